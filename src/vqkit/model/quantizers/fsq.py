"""Finite scalar quantisation: no codebook to learn, hence none to collapse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...config import FSQConfig
from .base import Quantizer, TokensQuantized
from .estimators import straight_through


class FiniteScalarQuantizer(Quantizer):
    """Rounds every bounded channel to one of a few levels (Mentzer et al. 2023, arXiv 2309.15505, section 3.1).

    Channel i takes `levels[i]` values, evenly spaced in [-1, 1]; a code is their mixed-radix number, first channel
    least significant. Every level has a cell of equal width, for even and odd numbers of them, centred on zero. No
    terms: rounding with a straight-through gradient is all there is.

    Buffers: `levels`, `basis` (d,) int64, both constants.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, config: FSQConfig) -> None:
        super().__init__(len(config.levels), [number_of_codes(config.levels)], config.latent_dim)
        levels = torch.tensor(config.levels)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("basis", torch.cumprod(torch.tensor([1, *config.levels[:-1]]), 0), persistent=False)

    def bound(self, tokens: Tensor) -> Tensor:
        """To (-L/(L-1), L/(L-1)), so that the outermost of L levels has a whole cell too."""
        return torch.tanh(tokens) * ((self.levels - 1e-3) / (self.levels - 1))

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        digits = self._digits(tokens.detach())
        return TokensQuantized(straight_through(tokens, self._values(digits)), self._number(digits), {})

    def assign(self, tokens: Tensor) -> Tensor:
        return self._number(self._digits(tokens))

    def lookup(self, codes: Tensor) -> Tensor:
        return self._values((codes // self.basis) % self.levels)

    def _digits(self, tokens: Tensor) -> Tensor:
        """(N, d) -> digits in [0, level - 1]; what lies outside belongs to the outermost level."""
        top = self.levels - 1
        return (0.5 * (tokens + 1.0) * top).round().clamp(min=0).minimum(top)

    def _values(self, digits: Tensor) -> Tensor:
        """Digit in [0, level - 1] -> [-1, 1]."""
        return 2.0 * digits / (self.levels - 1) - 1.0

    def _number(self, digits: Tensor) -> Tensor:
        return (digits.long() * self.basis).sum(-1, keepdim=True)


def number_of_codes(levels: tuple[int, ...]) -> int:
    """Product of the levels. ValueError when an int64 cannot hold it."""
    count = math.prod(levels)
    if count > 1 << 62:
        raise ValueError(f"levels {list(levels)} make {count} codes; at most 2^62 fit an int64")
    return count
