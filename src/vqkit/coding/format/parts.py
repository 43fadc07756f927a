"""One long item along one dimension, in parts that are decoded one by one. The format is
docs/file-format.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .blocks import Blocks, written_blocks
from .errors import OutOfBounds, WrongProfile
from .header import (
    MAX_CODEBOOKS,
    MAX_POSITIONS,
    PARTS,
    PLANAR_SIGNAL,
    UNIT_GAIN,
    Kind,
    read_kind,
)
from .numbers import Reader, Source, check_bounds, varint
from .sections import MAX_NAME_BYTES, NAME, name_in, section, usable_name

MAX_PARTS = 1 << 20


@dataclass(frozen=True)
class PartsHeader:
    """What a file in parts says before its codes.

    length: of the original item. part_length: of every part but the last, which has the rest.
    num_codebooks: Q, stages of every part. coder: TRANSFORMER, MIXING or SCALAR. model_id: 8 bytes
    that name the model. signal: its number. gain: a byte, see UNIT_GAIN.
    """

    length: int
    part_length: int
    num_codebooks: int
    coder: int
    model_id: bytes
    signal: int
    gain: int = UNIT_GAIN

    @property
    def kind(self) -> Kind:
        """Profile, model, signal, what it holds, and coder."""
        return Kind(PARTS, self.model_id, self.signal, self.holds, self.coder, self.gain)

    @property
    def holds(self) -> int:
        """CODES, always."""
        return 0

    @property
    def num_parts(self) -> int:
        """Parts that hold the whole item."""
        return -(-self.length // self.part_length)

    def extent_of(self, part: int) -> tuple[int]:
        """The extent of a part, from 0."""
        return (min(self.part_length, self.length - part * self.part_length),)


@dataclass(frozen=True)
class Part:
    """Codes of a part.

    crc: of all of them, stage by stage, see `codes_crc`, whose number is that of the part.
    payloads: for each stage the bytes of the coder.
    """

    crc: int
    payloads: tuple[bytes, ...]


def write_parts(header: PartsHeader, parts: Sequence[Part], name: str | None = None) -> bytes:
    """A file in parts. OutOfBounds.

    ValueError unless there are as many parts as the header says, each with as many stages, and the
    name, if any, is `usable_name`.
    """
    written_header = _written_header(header)
    if [len(part.payloads) for part in parts] != [header.num_codebooks] * header.num_parts:
        raise ValueError(
            f"{len(parts)} parts are given; the header says {header.num_parts} of "
            f"{header.num_codebooks} stages each"
        )
    if name is not None and not usable_name(name):
        raise ValueError(f"{name!r} cannot be stored as a name")
    written = written_blocks(written_header, [(one.crc, one.payloads) for one in parts])
    if name is not None:
        written.append(section(NAME, name.encode()))
    return b"".join(written)


class Parts(Blocks):
    """A file in parts that is open for reading: header and index are in memory, parts are read when
    asked for. Errors on opening: every FormatError but WrongModel and CorruptCodes, which are for
    the caller to raise with `check_model` and `check_block`.
    """

    word = "part"

    def __init__(self, source: Source) -> None:
        reader = Reader(source)
        self.header = _read_header(reader)
        super().__init__(reader, self.header.num_parts, lambda _: self.header.num_codebooks)

    def part(self, number: int) -> Part:
        """A part, from 0. Errors as `Blocks.read`."""
        crc, payloads = self.read(number)
        return Part(crc, tuple(payloads))

    @property
    def length(self) -> int:
        """How much of the item the whole parts have."""
        return min(self.header.length, self.whole_blocks * self.header.part_length)

    @property
    def name(self) -> str | None:
        """Of the original file; None without one that is fit for use."""
        body = self.body(NAME, MAX_NAME_BYTES + 1)
        return None if body is None else name_in(body)


def _written_header(header: PartsHeader) -> bytes:
    _check(header)
    numbers = (header.length, header.part_length, header.num_codebooks)
    return header.kind.written() + b"".join(map(varint, numbers))


def _read_header(reader: Reader) -> PartsHeader:
    kind = read_kind(reader)
    if kind.profile != PARTS or kind.model_id is None:
        raise WrongProfile("this is no item in parts")
    length = reader.varint("the length of the item", MAX_POSITIONS, smallest=1)
    part_length = reader.varint("the length of a part", MAX_POSITIONS, smallest=1)
    num_codebooks = reader.varint("the number of codebooks", MAX_CODEBOOKS, smallest=1)
    reader.check_crc(0, "header")
    header = PartsHeader(
        length, part_length, num_codebooks, kind.coder, kind.model_id, kind.signal, kind.gain
    )
    _check(header)
    return header


def _check(header: PartsHeader) -> None:
    """OutOfBounds for what cannot be in parts."""
    if header.signal == PLANAR_SIGNAL:
        raise OutOfBounds("items of signal 0 have two extents, and do not come in parts")
    check_bounds(header.length, MAX_POSITIONS, "the length of the item")
    check_bounds(header.part_length, MAX_POSITIONS, "the length of a part")
    check_bounds(header.num_codebooks, MAX_CODEBOOKS, "the number of codebooks")
    check_bounds(header.num_parts, MAX_PARTS, "the number of parts")
