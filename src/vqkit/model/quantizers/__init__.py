"""Bottlenecks: one contract, one file a family."""

from .base import Quantized, Quantizer, weighted_sum
from .continuous import GaussianBottleneck, NoQuantizer
from .fsq import FiniteScalarQuantizer
from .vq import VectorQuantizer

__all__ = [
    "FiniteScalarQuantizer",
    "GaussianBottleneck",
    "NoQuantizer",
    "Quantized",
    "Quantizer",
    "VectorQuantizer",
    "weighted_sum",
]
