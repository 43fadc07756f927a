"""Codes and values <-> bytes: entropy coders and the .vq format.

All of it is integers, so that every machine reads what another wrote.
"""

from .codes import MixingCoder, ScalarCoder, ScalarCodes, TransformerCoder
from .format import *  # noqa: F403
from .format import __all__ as _format
from .rangecoder import BatchRangeDecoder, RangeDecoder, RangeEncoder, encode_batch
from .values import LEVELS, BytesCoder, ValueNetwork

__all__ = [
    "LEVELS",
    "BatchRangeDecoder",
    "BytesCoder",
    "MixingCoder",
    "RangeDecoder",
    "RangeEncoder",
    "ScalarCoder",
    "ScalarCodes",
    "TransformerCoder",
    "ValueNetwork",
    "encode_batch",
    *_format,
]
