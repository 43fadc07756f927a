"""Finite scalar quantisation: no codebook to learn, hence none to collapse."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...config import FSQConfig
from .base import Quantized, Quantizer, check_latents, from_tokens, straight_through, to_tokens


class FiniteScalarQuantizer(Quantizer):
    """Rounds every bounded channel to one of a few levels (Mentzer et al. 2023, arXiv 2309.15505, section 3.1).

    Channel i takes `levels[i]` values, evenly spaced in [-1, 1]; a code is their mixed-radix number, first channel
    least significant. No terms: rounding with a straight-through gradient is all there is.

    Buffers: `levels`, `basis` (d,) int64, both constants.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        self.codebook_size = math.prod(config.levels)
        if self.codebook_size > 1 << 62:
            raise ValueError(f"levels {list(config.levels)} make {self.codebook_size} codes; at most 2^62 fit an int64")
        self.num_codebooks = 1
        self.latent_dim = self.encoder_dim = config.latent_dim or len(config.levels)
        projects = self.latent_dim != len(config.levels)
        self.project_in = nn.Linear(self.latent_dim, len(config.levels)) if projects else nn.Identity()
        self.project_out = nn.Linear(len(config.levels), self.latent_dim) if projects else nn.Identity()
        levels = torch.tensor(config.levels)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("basis", torch.cumprod(torch.tensor([1, *config.levels[:-1]]), 0), persistent=False)

    def forward(self, latents: Tensor, generator: torch.Generator | None = None) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            bounded = self._bound(self.project_in(to_tokens(check_latents(latents, self.encoder_dim))))
            digits = bounded.detach().round()
            codes = self._number(digits)
            values = straight_through(self._scale(bounded), self._scale(digits))
            quantized = from_tokens(self.project_out(values), latents)
        return Quantized(
            quantized, from_tokens(codes[:, None], latents), latents.new_zeros((), dtype=torch.float32), {}
        )

    def encode(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            bounded = self._bound(self.project_in(to_tokens(check_latents(latents, self.encoder_dim))))
            return from_tokens(self._number(bounded.round())[:, None], latents)

    def decode(self, codes: Tensor) -> Tensor:
        digits = (to_tokens(codes) // self.basis) % self.levels  # (N, d) in [0, level)
        with torch.autocast(codes.device.type, enabled=False):
            return from_tokens(self.project_out(self._scale(digits.float())), codes)

    def _bound(self, values: Tensor) -> Tensor:
        """Any real -> (-1/2, level - 1/2), centred on the middle level at 0: every level gets a cell, even or odd."""
        return 0.5 * (self.levels - 1) + 0.5 * (self.levels - 1e-3) * torch.tanh(values)

    def _scale(self, digits: Tensor) -> Tensor:
        """Digit in [0, level - 1] -> [-1, 1]."""
        return 2.0 * digits / (self.levels - 1) - 1.0

    def _number(self, digits: Tensor) -> Tensor:
        return (digits.long() * self.basis).sum(-1)
