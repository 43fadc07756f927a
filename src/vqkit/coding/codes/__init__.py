"""Entropy coders of codes: an integer-only transformer, context mixing, and one for scalar
codes.
"""

from .mixing import MixingCoder
from .scalar import ScalarCoder
from .transformer_coder import TransformerCoder

__all__ = ["MixingCoder", "ScalarCoder", "TransformerCoder"]
