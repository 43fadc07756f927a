"""From settings to quantizers: this `match` is the registry."""

from __future__ import annotations

from ...config import (
    FSQConfig,
    NoneConfig,
    QuantizerConfig,
    VQConfig,
)
from .base import Quantizer
from .continuous import NoQuantizer
from .fsq import FiniteScalarQuantizer
from .vq import VectorQuantizer


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """The bottleneck of a config. ValueError for settings that contradict one another."""
    match config:
        case NoneConfig():
            return NoQuantizer(config)
        case VQConfig():
            return VectorQuantizer(config)
        case FSQConfig():
            return FiniteScalarQuantizer(config)
        case _:
            raise ValueError(f"no quantizer of kind {config.kind}")
