"""Settings that only arrays have: how files are laid out, how long items of training are, and the
network around the codes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ...config.base import ActsOnly, Count
from ...config.sections import DataSection, NetworkSection

Length = Annotated[int, Field(ge=1, le=1 << 20)]
# Arrays are mapped, and never streamed.
UNUSED = ActsOnly(("num_workers",), "{at}signal=image", lambda data: False)


class SeriesData(DataSection):
    conditions: ClassVar[tuple[ActsOnly, ...]] = (UNUSED,)

    signal: Literal["series"] = "series"
    """the kind of signal, which decides what may follow"""
    length: Length = 1024
    """samples of an item of training; longer series are cut, shorter ones are padded and the
    padding is left out of all losses"""
    overlap: Annotated[int, Field(ge=1, le=64)] = 32
    """items of training begin at about every so manieth part of an item"""
    layout: Literal["time_first", "channels_first"] = "time_first"
    """what the axes of an .npy array are: (time, channels) or (channels, time)"""
    columns: tuple[str, ...] | None = None
    """channels to take of tables (.csv, .parquet), by name; null = all that hold numbers"""


class VolumeData(DataSection):
    conditions: ClassVar[tuple[ActsOnly, ...]] = (UNUSED,)

    signal: Literal["volume"] = "volume"
    """the kind of signal, which decides what may follow"""
    size: tuple[Length, Length, Length] = (32, 32, 32)
    """depth, height and width of an item of training; larger volumes are cut into such parts,
    smaller ones are padded and the padding is left out of all losses"""
    overlap: Annotated[int, Field(ge=1, le=16)] = 2
    """items of training begin at about every so manieth part of an item, along each axis"""
    has_channels: bool = False
    """the last axis of an array is its channels: (depth, height, width, channels)"""


class ArrayConfig(NetworkSection):
    """Cubes of the array become channels, with residual blocks on either side of the quantizer, in
    as many dimensions as the array has.
    """

    kind: Literal["array"] = "array"
    patch: Annotated[int, Field(ge=1, le=64)] = 16
    """samples along each axis that become one latent"""
    width: Count = 128
    """channels of the residual blocks"""
    expansion: Annotated[int, Field(ge=1, le=16)] = 2
    """channels inside of a block, as a multiple of width"""
    encoder_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks before the quantizer"""
    decoder_blocks: Annotated[int, Field(ge=0, le=64)] = 4
    """residual blocks after the quantizer"""
