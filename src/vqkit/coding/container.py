"""One image a file: header, stages, and what else is known of it. The format is docs/file-format.md.

How codes become the bytes of a stage is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .framing import (
    BARE,
    CRC_BYTES,
    FILE,
    IMAGE,
    MAX_CODEBOOKS,
    MAX_NAME_BYTES,
    MAX_SIDE,
    NAME,
    STAGE,
    CorruptSection,
    Kind,
    Reader,
    Section,
    Source,
    TrailingBytes,
    Truncated,
    UnknownSection,
    WrongProfile,
    check_bounds,
    check_pixels,
    crc_bytes,
    read_kind,
    section,
    sections,
    usable_name,
    varint,
)


@dataclass(frozen=True)
class FileHeader:
    """What a file says before its codes: height and width, pixels of the original image; num_codebooks Q, which is the
    number of stages; coder; model_id, the first 8 bytes of the content id, None for a bare stream."""

    height: int
    width: int
    num_codebooks: int
    coder: int
    model_id: bytes | None
    modality: int = IMAGE

    @property
    def kind(self) -> Kind:
        """Profile, model, modality and coder."""
        return Kind(BARE if self.model_id is None else FILE, self.model_id, self.modality, self.coder)


@dataclass(frozen=True)
class Stage:
    """Codes of one codebook: crc of all codes up to them, see `stage_crcs`; payload, the bytes of the coder."""

    crc: int
    payload: bytes


@dataclass(frozen=True)
class VqFile:
    """A file as it was read. stages: the whole ones, in order; fewer than Q make a coarser image, then `truncated`.

    truncated: the file was cut off; with all stages there only something less important is lost.
    """

    header: FileHeader
    stages: tuple[Stage, ...]
    name: str | None
    truncated: bool


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a file: bytes of the header, sections, `size` of the whole in bytes."""

    header: FileHeader
    header_bytes: int
    sections: tuple[Section, ...]
    truncated: bool
    size: int


def write_file(header: FileHeader, stages: Sequence[Stage], name: str | None = None) -> bytes:
    """A file, or a bare stream where the header has no model id. OutOfBounds.

    ValueError unless there is a stage for each codebook and the name, if any, is `usable_name`.
    """
    if len(stages) != header.num_codebooks:
        raise ValueError(f"{len(stages)} stages for {header.num_codebooks} codebooks")
    if name is not None and not usable_name(name):
        raise ValueError(f"{name!r} cannot be stored as a name")
    check_pixels(header.height, header.width)
    check_bounds(header.num_codebooks, MAX_CODEBOOKS, "the number of codebooks")
    written = header.kind.written() + b"".join(map(varint, (header.height, header.width, header.num_codebooks)))
    if header.model_id is not None:
        written += crc_bytes(written)
    # The name comes first: what is cut off from a file is then always a part of the picture, and can be told.
    parts = [written] + ([] if name is None else [section(NAME, name.encode())])
    parts += [section(STAGE, stage.crc.to_bytes(CRC_BYTES, "little") + stage.payload) for stage in stages]
    return b"".join(parts)


def read_file(source: Source) -> VqFile:
    """A file or bare stream. Errors: every FormatError but WrongModel and CorruptCodes, which are for the caller to
    raise with `check_model` before and `check_stages` after decoding.

    A file that is cut off behind its first whole stage is no error, see VqFile.
    """
    reader = Reader(source)
    layout = _scan(reader)
    stages, name = [], None
    for found in layout.sections:
        if found.tag == STAGE:
            reader.seek(found.body)
            crc = int.from_bytes(reader.take(CRC_BYTES), "little")
            stages.append(Stage(crc, reader.take(found.end - reader.position)))
        elif found.tag == NAME and name is None:
            reader.seek(found.body)
            name = _name(reader.take(min(found.end - found.body, MAX_NAME_BYTES + 1)))
    return VqFile(layout.header, tuple(stages), name, layout.truncated)


def read_layout(source: Source) -> Layout:
    """Where everything lies in a file or bare stream; no payload is read. Errors as `read_file`."""
    return _scan(Reader(source))


def _scan(reader: Reader) -> Layout:
    header = _read_header(reader)
    start, found, stages = reader.position, list[Section](), 0
    try:
        for one in sections(reader):
            _check_section(one, whole=stages == header.num_codebooks)
            found.append(one)
            stages += one.tag == STAGE
        truncated = stages < header.num_codebooks
    except Truncated:
        truncated = True
    if stages == 0:
        raise Truncated("the file is cut off before the end of its first stage: nothing can be shown")
    return Layout(header, start, tuple(found), truncated, reader.size)


def _check_section(one: Section, whole: bool) -> None:
    """Whether a section may stand where it does; `whole`: behind the last stage."""
    if one.tag % 2 and one.tag != STAGE:
        raise UnknownSection(f"the file has a section {one.tag} that this vqkit does not know: update vqkit")
    if one.tag == STAGE and whole:
        raise TrailingBytes(f"the file has more stages than its header says, from byte {one.start}")
    if one.tag == STAGE and one.end - one.body < CRC_BYTES:
        raise CorruptSection(f"the stage at byte {one.start} is too short for its check sum")


def _read_header(reader: Reader) -> FileHeader:
    kind = read_kind(reader)
    if kind.profile not in (BARE, FILE):
        raise WrongProfile("this is a bundle of many images, not a single one")
    height = reader.varint("the height", MAX_SIDE, smallest=1)
    width = reader.varint("the width", MAX_SIDE, smallest=1)
    num_codebooks = reader.varint("the number of codebooks", MAX_CODEBOOKS, smallest=1)
    if kind.model_id is not None:
        reader.check_crc(0, "header")
    check_pixels(height, width)
    return FileHeader(height, width, num_codebooks, kind.coder, kind.model_id, kind.modality)


def _name(body: bytes) -> str | None:
    """A name, or nothing where it is not fit for use: it is not needed for the picture."""
    try:
        name = body.decode()
    except UnicodeDecodeError:
        return None
    return name if usable_name(name) else None
