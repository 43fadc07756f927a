"""Bottlenecks: one contract, one file a family."""

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
