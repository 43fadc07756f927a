"""Entropy coders of codes: an integer-only transformer, and context mixing."""

from .mixing import MixingCoder
from .transformer_coder import TransformerCoder

__all__ = ["MixingCoder", "TransformerCoder"]
