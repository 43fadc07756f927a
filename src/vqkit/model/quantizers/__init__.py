"""Quantizers: one contract (base.py), one module a family, composites over any of them."""

from .base import PADDING, Bottleneck, Quantizer
from .registry import build_quantizer
from .results import Quantized, TokensQuantized, weighted_sum

__all__ = [
    "PADDING",
    "Bottleneck",
    "Quantized",
    "Quantizer",
    "TokensQuantized",
    "build_quantizer",
    "weighted_sum",
]
