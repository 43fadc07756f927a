"""Entropy coders of codes: an integer-only transformer, context mixing, and one for scalar
codes.
"""

from .mixing import MixingCoder
from .scalar import ScalarCoder
from .scalar_codes import ScalarCodes
from .transformer_coder import TransformerCoder

__all__ = ["MixingCoder", "ScalarCoder", "ScalarCodes", "TransformerCoder"]
