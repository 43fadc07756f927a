"""What the files of codes are made of: numbers, check sums, sections, bounds, and an error for everything wrong.

The format is docs/file-format.md. Nothing here believes a size before it has been held against a bound and against the
bytes that are really there.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import VqkitError

MAGIC = b"\x96vq"
VERSION = 1
BARE, FILE, BUNDLE = range(3)
"""profiles"""
PROFILES = ("bare", "file", "bundle")
IMAGE, PIXELS = range(2)
"""modalities: codes that a model made of an image, and the values of its pixels"""
INTEGER_PRIOR, CONTEXT_MIXING = range(2)
"""coders"""
STAGE, NAME, NAMES = 1, 2, 4
"""tags of sections; odd ones are critical"""

MODEL_ID_BYTES = 8
CRC_BYTES = 4
MAX_SIDE = 1 << 20
MAX_PIXELS = 1 << 28
MAX_CODEBOOKS = 64
MAX_ITEMS = 1 << 24
MAX_BLOCK = 256
MAX_SECTION_BYTES = 1 << 30
MAX_SECTIONS = 256
MAX_NAME_BYTES = 1024
MAX_NAMES_BYTES = 1 << 28
"""of all items of a bundle, before they are packed"""
_MAX_VARINT_BYTES = 5  # 35 bits: every bound lies below
_CHUNK_BYTES = 1 << 20

Source = bytes | BinaryIO
"""a file in memory, or open for reading; a stream must be able to seek"""


class FormatError(VqkitError):
    """Something is wrong with a file of codes; what, is said by the class."""


class NotVq(FormatError):
    """The data do not begin like a .vq file."""


class NewerVersion(FormatError):
    """A version, profile, modality or coder that this code does not know."""


class WrongProfile(FormatError):
    """A bundle was read as a single file, or the other way round."""


class WrongModel(FormatError):
    """The codes belong to another model."""


class CorruptHeader(FormatError):
    """The header, or the index of a bundle, is not what was written."""


class CorruptSection(FormatError):
    """A section breaks the rules of the format."""


class UnknownSection(FormatError):
    """A section that this code does not know and may not skip."""


class TrailingBytes(FormatError):
    """Something stands behind the codes, or between sections, that does not belong there."""


class OutOfBounds(FormatError):
    """A size is larger than the format allows, or zero."""


class Truncated(FormatError):
    """The file ends before the first whole stage, or before what was asked for."""


class CorruptCodes(FormatError):
    """The decoded codes are not those that were written."""


# ------------------------------------------------------------------------------------------------------------ sums


def codes_crc(codes: np.ndarray, number: int, before: int = 0) -> int:
    """CRC-32 of codes, any shape, in row-major order as little-endian uint32, with a number before them.

    The number is that of the stage or block, from 0: one that stands in the place of another is found out. before: the
    sum of what comes before, which goes on. ValueError for codes that are negative or beyond 32 bits.
    """
    if codes.size and not (0 <= int(codes.min()) and int(codes.max()) < 1 << 32):
        raise ValueError("codes must be numbers from 0 to 2^32 - 1")
    return zlib.crc32(np.ascontiguousarray(codes, "<u4").data, zlib.crc32(number.to_bytes(4, "little"), before))


def stage_crcs(codes: np.ndarray) -> list[int]:
    """Codes (Q, ...) of an image -> the sum of each stage, which covers all stages up to it.

    So a stage of another image does not fit, although its own codes are what they were.
    """
    crcs = [0]
    for number, stage in enumerate(codes):
        crcs.append(codes_crc(stage, number, crcs[-1]))
    return crcs[1:]


def check_stages(codes: np.ndarray, crcs: Sequence[int]) -> None:
    """CorruptCodes unless decoded codes (Q, ...) are those that `stage_crcs` saw when they were written."""
    for number, (found, crc) in enumerate(zip(stage_crcs(codes), crcs, strict=True), 1):
        if found != crc:
            raise CorruptCodes(f"stage {number} is corrupt, or not of this image: its codes do not fit its check sum")


def check_block(codes: np.ndarray, number: int, crc: int) -> None:
    """CorruptCodes unless decoded codes of a block are those that `codes_crc` saw when they were written."""
    if codes_crc(codes, number) != crc:
        raise CorruptCodes(f"block {number + 1} is corrupt: its codes do not fit their check sum")


def crc_bytes(data: bytes) -> bytes:
    """CRC-32 of bytes as it is stored, little-endian."""
    return zlib.crc32(data).to_bytes(CRC_BYTES, "little")


# --------------------------------------------------------------------------------------------------------- numbers


def varint(number: int) -> bytes:
    """Unsigned LEB128: 7 bits a byte, the lowest first; the top bit says that another byte follows."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def check_bounds(number: int, largest: int, what: str, smallest: int = 1) -> None:
    """OutOfBounds unless a size lies in its bounds."""
    if not smallest <= number <= largest:
        raise OutOfBounds(f"{what} is {number}; a .vq file allows {smallest} to {largest}")


def check_pixels(height: int, width: int) -> None:
    """OutOfBounds unless an image has a size, pixels, that the format allows."""
    check_bounds(height, MAX_SIDE, "the height")
    check_bounds(width, MAX_SIDE, "the width")
    check_bounds(height * width, MAX_PIXELS, "the number of pixels")


@contextmanager
def opened(source: Source | str | Path) -> Iterator[Source]:
    """A source, or the file of that name, for as long as it is read. VqkitError for files that cannot be opened.

    ValueError for what is neither of them, for streams of text, and for streams that cannot seek.
    """
    if isinstance(source, str | Path):
        try:
            stream = open(source, "rb")
        except OSError as error:
            raise VqkitError(f"cannot read {source}: {error.strerror or error}") from error
        with stream:
            yield stream
    elif isinstance(source, bytes) or (hasattr(source, "seekable") and source.seekable() and source.read(0) == b""):
        yield source
    else:
        raise ValueError("a .vq file is given as bytes, as a path, or as a binary stream that can seek")


class Reader:
    """Bytes of a source from front to back, never more than are there. Truncated where they end."""

    def __init__(self, source: Source) -> None:
        self._stream = io.BytesIO(source) if isinstance(source, bytes) else source
        self.size = self._stream.seek(0, os.SEEK_END)
        self.position = self._stream.seek(0)

    @property
    def remaining(self) -> int:
        """Bytes from here to the end."""
        return self.size - self.position

    def seek(self, position: int) -> None:
        """Go on from a position, bytes from the beginning."""
        self.position = self._stream.seek(position)

    def take(self, count: int) -> bytes:
        """The next bytes."""
        data = self._stream.read(count) if count <= self.remaining else b""
        if len(data) < count:
            raise Truncated(f"the file is cut off: {count} bytes are missing at byte {self.position}")
        self.position += count
        return data

    def varint(self, what: str, largest: int, smallest: int = 0) -> int:
        """The next number. OutOfBounds if it does not lie in its bounds, or is longer than it need be."""
        number = 0
        for place in range(_MAX_VARINT_BYTES):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if byte == 0 and place:
                    raise OutOfBounds(f"{what} is written with more bytes than it needs")
                check_bounds(number, largest, what, smallest)
                return number
        raise OutOfBounds(f"{what} is a number of more than {_MAX_VARINT_BYTES} bytes")

    def check_crc(self, start: int, what: str) -> None:
        """CorruptHeader unless the next 4 bytes are the CRC-32 of those from start to here."""
        end, crc = self.position, 0
        self.seek(start)
        while self.position < end:
            crc = zlib.crc32(self.take(min(_CHUNK_BYTES, end - self.position)), crc)
        if crc != int.from_bytes(self.take(CRC_BYTES), "little"):
            raise CorruptHeader(f"the {what} is corrupt: it does not fit its check sum")


# ---------------------------------------------------------------------------------------------- beginnings, sections


@dataclass(frozen=True)
class Kind:
    """What a file is: profile BARE, FILE or BUNDLE; model_id, 8 bytes, None when bare; modality; coder."""

    profile: int
    model_id: bytes | None
    modality: int
    coder: int

    def written(self) -> bytes:
        """The first bytes of the file."""
        if self.model_id is not None and len(self.model_id) != MODEL_ID_BYTES:
            raise ValueError(f"a model id has {MODEL_ID_BYTES} bytes, not {len(self.model_id)}")
        first = MAGIC + bytes([VERSION << 4 | self.profile]) + (self.model_id or b"")
        return first + bytes([self.modality << 4 | self.coder])


def profile_of(source: Source) -> int:
    """Profile of a file: BARE, FILE or BUNDLE. NotVq, NewerVersion."""
    return _profile(Reader(source))


def _profile(reader: Reader) -> int:
    magic = reader.take(min(len(MAGIC) + 1, reader.remaining))
    if len(magic) <= len(MAGIC) or not magic.startswith(MAGIC) or magic[-1] >> 4 == 0:
        raise NotVq("this is not a .vq file" + ("" if magic else ": it is empty"))
    version, profile = divmod(magic[-1], 16)
    if version > VERSION:
        raise NewerVersion(f"the file has version {version}; this vqkit reads up to {VERSION}: update vqkit")
    if profile > BUNDLE:
        raise NewerVersion(f"the file has profile {profile}, which this vqkit does not know: update vqkit")
    return profile


def read_kind(reader: Reader) -> Kind:
    """The first bytes of a file. NotVq, NewerVersion, Truncated."""
    profile = _profile(reader)
    model_id = None if profile == BARE else reader.take(MODEL_ID_BYTES)
    modality, coder = divmod(reader.take(1)[0], 16)
    if modality > PIXELS or coder > CONTEXT_MIXING or (modality == PIXELS and coder != CONTEXT_MIXING):
        raise NewerVersion(f"the file has modality {modality} and coder {coder}: update vqkit, or the file is corrupt")
    return Kind(profile, model_id, modality, coder)


def check_model(kind: Kind, model_id: bytes) -> None:
    """WrongModel unless the codes were written with the model of that id, 8 bytes. A bare stream has none to check."""
    if kind.model_id not in (None, model_id):
        raise WrongModel(f"the file was written with model {kind.model_id.hex()}; this model is {model_id.hex()}")


@dataclass(frozen=True)
class Section:
    """Where a section lies: tag; bytes from `start`; body from `body` to `end`."""

    tag: int
    start: int
    body: int
    end: int


def section(tag: int, body: bytes) -> bytes:
    """A section as it is stored. OutOfBounds."""
    check_bounds(len(body), MAX_SECTION_BYTES, "the length of a section", smallest=0)
    return varint(tag) + varint(len(body)) + body


def sections(reader: Reader) -> Iterator[Section]:
    """Sections from here to the end, none of them read. Truncated inside of one; OutOfBounds; TrailingBytes (tag 0)."""
    number = 0
    while reader.remaining:
        number += 1
        check_bounds(number, MAX_SECTIONS, "the number of sections")
        start = reader.position
        tag = reader.varint("the tag of a section", MAX_SECTION_BYTES)
        if tag == 0:  # no section has it, so that zeros behind a file are not taken for empty ones
            raise TrailingBytes(f"there is no section at byte {start}, where one should begin")
        length = reader.varint("the length of a section", MAX_SECTION_BYTES)
        if length > reader.remaining:
            raise Truncated(f"the file is cut off in the section at byte {start}")
        found = Section(tag, start, reader.position, reader.position + length)
        reader.seek(found.end)
        yield found


def usable_name(name: str) -> bool:
    """Whether a name may be stored: a path below the present folder, parts divided by '/', safe on every system."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    safe = not any(letter < " " or letter in "\x7f\\:" for letter in name)
    return safe and size <= MAX_NAME_BYTES and not set(name.split("/")) & {"", ".", ".."}
