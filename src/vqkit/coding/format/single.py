"""One item a file: header, stages, and its name. The format is docs/file-format.md.

How codes become the bytes of a stage is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import CorruptSection, TrailingBytes, Truncated, UnknownSection, WrongProfile
from .header import (
    BARE,
    CODES,
    FILE,
    MAX_CODEBOOKS,
    UNIT_GAIN,
    Kind,
    check_extent,
    num_extents_bytes,
    read_extent,
    read_kind,
    read_num_extents,
)
from .numbers import CRC_BYTES, Reader, Source, check_bounds, crc_bytes, varint
from .sections import MAX_NAME_BYTES, NAME, STAGE, Section, name_in, section, sections, usable_name


@dataclass(frozen=True)
class FileHeader:
    """What a file says before its codes.

    extent: of the original item, along each of its axes. num_codebooks: Q, which is the number of
    stages. coder: TRANSFORMER or MIXING. model_id: 8 bytes that name the model, None for a bare
    stream. signal: its number. holds: CODES or VALUES. gain: a byte, see
    UNIT_GAIN.
    """

    extent: tuple[int, ...]
    num_codebooks: int
    coder: int
    model_id: bytes | None
    signal: int = 0
    holds: int = CODES
    gain: int = UNIT_GAIN

    @property
    def kind(self) -> Kind:
        """Profile, model, signal, what it holds, and coder."""
        profile = BARE if self.model_id is None else FILE
        return Kind(profile, self.model_id, self.signal, self.holds, self.coder, self.gain)


@dataclass(frozen=True)
class Stage:
    """Codes of one codebook.

    crc: of all codes up to them, see `stage_crcs`. payload: the bytes of the coder.
    """

    crc: int
    payload: bytes


@dataclass(frozen=True)
class VqFile:
    """A file as it was read.

    stages: the whole ones, in order; fewer than Q make a coarser item, and then `truncated`.
    truncated: the file was cut off; with all stages there, only its name is lost.
    """

    header: FileHeader
    stages: tuple[Stage, ...]
    name: str | None
    truncated: bool


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a file: bytes of the header, sections, `size` of the whole in
    bytes.
    """

    header: FileHeader
    header_bytes: int
    sections: tuple[Section, ...]
    truncated: bool
    size: int


def write_file(header: FileHeader, stages: Sequence[Stage], name: str | None = None) -> bytes:
    """A file, or a bare stream where the header has no model id. OutOfBounds.

    ValueError unless there is a stage for each codebook, the extent is one of its signal, and the
    name, if any, is `usable_name`.
    """
    if len(stages) != header.num_codebooks:
        raise ValueError(f"{len(stages)} stages for {header.num_codebooks} codebooks")
    if name is not None and not usable_name(name):
        raise ValueError(f"{name!r} cannot be stored as a name")
    parts = [_written_header(header)]
    # The name comes first: what is cut off from a file is then always a part of the item itself,
    # and the reader can tell.
    if name is not None:
        parts.append(section(NAME, name.encode()))
    for stage in stages:
        parts.append(section(STAGE, stage.crc.to_bytes(CRC_BYTES, "little") + stage.payload))
    return b"".join(parts)


def _written_header(header: FileHeader) -> bytes:
    check_extent(header.extent, header.signal)
    check_bounds(header.num_codebooks, MAX_CODEBOOKS, "the number of codebooks")
    written = header.kind.written() + num_extents_bytes(len(header.extent), header.signal)
    written += b"".join(map(varint, (*header.extent, header.num_codebooks)))
    return written if header.model_id is None else written + crc_bytes(written)


def read_file(source: Source) -> VqFile:
    """A file or bare stream.

    Errors: every FormatError but WrongModel and CorruptCodes, which are for the caller to raise
    with `check_model` before and `check_stages` after decoding. A file that is cut off behind its
    first whole stage is no error, see VqFile.
    """
    reader = Reader(source)
    layout = _scan(reader)
    stages = []
    name = None
    for found in layout.sections:
        reader.seek(found.body)
        if found.tag == STAGE:
            crc = reader.crc()
            stages.append(Stage(crc, reader.take(found.end - reader.position)))
        elif found.tag == NAME and name is None:
            name = name_in(reader.take(min(found.end - found.body, MAX_NAME_BYTES + 1)))
    return VqFile(layout.header, tuple(stages), name, layout.truncated)


def read_layout(source: Source) -> Layout:
    """Where everything lies in a file or bare stream; no payload is read. Errors as `read_file`."""
    return _scan(Reader(source))


def _scan(reader: Reader) -> Layout:
    header = _read_header(reader)
    header_bytes = reader.position
    found = list[Section]()
    num_stages = 0
    try:
        for one in sections(reader):
            _check_section(one, complete=num_stages == header.num_codebooks)
            found.append(one)
            num_stages += one.tag == STAGE
        truncated = num_stages < header.num_codebooks
    except Truncated:
        truncated = True
    if num_stages == 0:
        raise Truncated(
            "the file is cut off before the end of its first stage: nothing is left of it"
        )
    return Layout(header, header_bytes, tuple(found), truncated, reader.size)


def _check_section(one: Section, complete: bool) -> None:
    """Whether a section may stand where it does. complete: all stages stand before it."""
    if one.tag % 2 and one.tag != STAGE:
        raise UnknownSection(
            f"the file has a section {one.tag} that this vqkit does not know: update vqkit"
        )
    if one.tag == STAGE and complete:
        raise TrailingBytes(f"the file has more stages than its header says, from byte {one.start}")
    if one.tag == STAGE and one.end - one.body < CRC_BYTES:
        raise CorruptSection(f"the stage at byte {one.start} is too short for its check sum")


def _read_header(reader: Reader) -> FileHeader:
    kind = read_kind(reader)
    if kind.profile not in (BARE, FILE):
        raise WrongProfile("this is a bundle of many items, or an item in parts, not a single one")
    extent = read_extent(reader, kind.signal, read_num_extents(reader, kind.signal))
    num_codebooks = reader.varint("the number of codebooks", MAX_CODEBOOKS, smallest=1)
    if kind.model_id is not None:
        reader.check_crc(0, "header")
    return FileHeader(
        extent, num_codebooks, kind.coder, kind.model_id, kind.signal, kind.holds, kind.gain
    )
