"""Quantizers: one contract (base.py), one module a family, composites over any of them."""

from .base import PADDING, Bottleneck, Quantized, Quantizer, TokensQuantized, weighted_sum
from .registry import build_quantizer

__all__ = [
    "PADDING",
    "Bottleneck",
    "Quantized",
    "Quantizer",
    "TokensQuantized",
    "build_quantizer",
    "weighted_sum",
]
