"""The bottleneck that does not quantise, for plain autoencoders and VAEs.

It keeps the whole contract: its codes are the bits of the float32 latents as integers, 32 bits
each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...config.quantizers import NoneConfig
from .base import Quantizer, TokensQuantized


def float_bits(values: Tensor) -> Tensor:
    """float32 -> int64 in [0, 2^32) with the same bits."""
    return values.contiguous().view(torch.int32).long() & 0xFFFFFFFF


def bits_float(codes: Tensor) -> Tensor:
    """The inverse of `float_bits`, exact for every value."""
    signed = torch.where(codes >= 1 << 31, codes - (1 << 32), codes)
    return signed.to(torch.int32).view(torch.float32)


class NoQuantizer(Quantizer):
    """Passes latents through: the upper bound for every quantizer of equal width."""

    is_discrete = False

    def __init__(self, config: NoneConfig) -> None:
        super().__init__(config.code_dim, [1 << 32] * config.code_dim)

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        return TokensQuantized(tokens, float_bits(tokens.detach()), {})

    def assign(self, tokens: Tensor) -> Tensor:
        return float_bits(tokens)

    def lookup(self, codes: Tensor) -> Tensor:
        return bits_float(codes)
