"""Settings that only text has: what is read from files, what is changed in training, which networks
there are.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ...config.base import ActsOnly, Count, Section, Share
from ...config.sections import DataSection, NetworkSection


class NoiseConfig(Section):
    level: Share = 0.0
    """largest share of the bytes that the encoder sees wrong, the target being the text as it was:
    other letters, and neighbours that have changed places; every piece has its own share, from 0
    on; 0 = none"""


class DataConfig(DataSection):
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        # Bytes are in memory.
        ActsOnly(("num_workers",), "{at}signal=image", lambda data: False),
    )

    signal: Literal["text"] = "text"
    """the kind of signal, which decides what may follow"""
    item: Annotated[str, Field(pattern=r"^(file|line|bytes:[1-9][0-9]{0,8})$")] = "file"
    """what stays in one split, and is not mixed with what is beside it: file, line, or bytes:N = N
    bytes of a file"""
    length: Annotated[int, Field(ge=16, le=1 << 16)] = 512
    """bytes of a piece of training; longer items are cut, shorter ones are padded and the padding
    is left out of all losses"""
    overlap: Annotated[int, Field(ge=1, le=64)] = 4
    """pieces of training begin at about every so manieth part of a piece"""
    noise: NoiseConfig = NoiseConfig()


class BytesConfig(NetworkSection):
    kind: Literal["bytes"] = "bytes"
    patch_size: Annotated[int, Field(ge=1, le=16)] = 2
    """bytes that become one latent"""
    embedding: Count = 64
    """channels that stand for one byte"""
    width: Count = 192
    """channels of the residual blocks"""
    expansion: Count = 2
    """channels inside of a block, as a multiple of width"""
    encoder_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks before the quantizer"""
    decoder_blocks: Annotated[int, Field(ge=0, le=64)] = 4
    """residual blocks after the quantizer"""
