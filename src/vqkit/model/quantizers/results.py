"""What quantizers return; in eval mode terms that take long are computed when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Quantized:
    """What a bottleneck returns.

    Attributes:
        quantized: (B, D, *grid), input of the decoder; gradients reach the latents through it;
            zeros where padded.
        codes: (B, Q, *grid) int64; -1 where padded.
        terms: unweighted scalars by name (`commitment`, `codebook`, `entropy`), for a sum with the
            weights of a recipe. In eval mode those that take long are computed when the first one
            is read.
        weights: of the terms in the paper, by name.
        loss: scalar, the terms summed with these weights; for use without the trainer.
    """

    quantized: Tensor
    codes: Tensor
    terms: Mapping[str, Tensor]
    weights: Mapping[str, float]

    @property
    def loss(self) -> Tensor:
        return weighted_sum(self.terms, self.weights, self.quantized)


@dataclass(frozen=True)
class TokensQuantized:
    """What a family makes of tokens.

    Attributes:
        values: (N, d), with the gradient that the tokens get.
        codes: (N, Q) int64.
        terms: unweighted scalars by name.
    """

    values: Tensor
    codes: Tensor
    terms: Mapping[str, Tensor]


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float], like: Tensor) -> Tensor:
    """Sum of weight * term, the one place where losses are added up.

    Zero on `like`'s device if empty.
    """
    weighted = [weights[name] * term for name, term in terms.items() if weights[name] != 0]
    if not weighted:
        return like.new_zeros((), dtype=torch.float32)
    return sum(weighted[1:], weighted[0])


def terms_of(
    compute: Callable[[], dict[str, Tensor]], at_once: bool, device: torch.device
) -> Mapping[str, Tensor]:
    """The terms that `compute` gives: `at_once`, as in training mode, or when the first is read.

    A call in eval mode whose loss nobody reads then does not pay for it. What `compute` holds must
    be its own: latents and quantized values may be overwritten before it runs. A graph that
    torch.compile traces has no later, and leaves out itself what nobody reads.
    """
    if at_once or torch.compiler.is_compiling():
        return compute()
    return _TermsWhenRead(compute, device)


def in_float32(device: torch.device) -> AbstractContextManager[object]:
    """No autocast inside: quantizers compute in float32."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class _TermsWhenRead(Mapping[str, Tensor]):
    def __init__(self, compute: Callable[[], dict[str, Tensor]], device: torch.device) -> None:
        self._compute = compute
        self._device = device

    @cached_property
    def _terms(self) -> dict[str, Tensor]:
        # As where the layer was called: gradients for what had any there, and all in float32.
        with torch.enable_grad(), in_float32(self._device):
            return self._compute()

    def __getitem__(self, name: str) -> Tensor:
        return self._terms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._terms)

    def __len__(self) -> int:
        return len(self._terms)

    def __repr__(self) -> str:
        return repr(self._terms)

    def __reduce__(self) -> tuple[type[dict[str, Tensor]], tuple[dict[str, Tensor]]]:
        return dict, (self._terms,)
