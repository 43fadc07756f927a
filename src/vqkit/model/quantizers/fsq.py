"""Finite scalar quantisation: no codebook to learn, hence none to collapse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...config.quantizers import FSQConfig
from .base import Quantizer, TokensQuantized
from .estimators import straight_through


class FiniteScalarQuantizer(Quantizer):
    """Rounds every bounded channel to one of a few levels (Mentzer et al. 2023, arXiv 2309.15505,
    section 3.1).

    Channel i takes `levels[i]` values, evenly spaced in [-1, 1]; a code is their mixed-radix
    number, first channel least significant. All levels have cells of equal width, centred on zero,
    for even and for odd numbers of levels. There are no terms: a straight-through gradient is all
    it needs.

    Buffers, constant and not saved:
        levels, basis (d,): int64, levels of each channel and what one level adds to the code.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, config: FSQConfig) -> None:
        super().__init__(len(config.levels), [number_of_codes(config.levels)], config.latent_dim)
        basis = torch.cumprod(torch.tensor([1, *config.levels[:-1]]), 0)
        self.register_buffer("levels", torch.tensor(config.levels), persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def bound(self, tokens: Tensor) -> Tensor:
        """To (-L/(L-1), L/(L-1)), so that the outermost of L levels has a whole cell too."""
        return torch.tanh(tokens) * ((self.levels - 1e-3) / (self.levels - 1))

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        digits = self._digits(tokens.detach())
        values = straight_through(tokens, self._values(digits))
        return TokensQuantized(values, self._number(digits), {})

    def assign(self, tokens: Tensor) -> Tensor:
        return self._number(self._digits(tokens))

    def lookup(self, codes: Tensor) -> Tensor:
        return self._values((codes // self.basis) % self.levels)

    def _digits(self, tokens: Tensor) -> Tensor:
        """(N, d) -> digits in [0, level - 1].

        A token outside of [-1, 1] belongs to the outermost level.
        """
        top = self.levels - 1
        return (0.5 * (tokens + 1.0) * top).round().clamp(min=0).minimum(top)

    def _values(self, digits: Tensor) -> Tensor:
        """Digits (N, d) in [0, level - 1] -> values in [-1, 1]."""
        return 2.0 * digits / (self.levels - 1) - 1.0

    def _number(self, digits: Tensor) -> Tensor:
        return (digits.long() * self.basis).sum(-1, keepdim=True)


def number_of_codes(levels: tuple[int, ...]) -> int:
    """Product of the levels. ValueError when an int64 cannot hold it."""
    count = math.prod(levels)
    if count > 1 << 62:
        raise ValueError(f"levels {list(levels)} make {count} codes; at most 2^62 fit an int64")
    return count
