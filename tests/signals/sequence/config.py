"""Settings of sequences."""

from __future__ import annotations

from typing import Literal

from ...config.base import Count
from ...config.sections import DataSection, NetworkSection


class DataConfig(DataSection):
    signal: Literal["sequence"] = "sequence"
    """the kind of signal, which decides what may follow"""
    length: Count = 32
    """positions of an item in training; shorter ones are padded and masked, longer ones are cut"""


class StrideConfig(NetworkSection):
    kind: Literal["stride"] = "stride"
    stride: Count = 4
    """positions that become one latent"""
    width: Count = 32
    """channels of the residual blocks"""
