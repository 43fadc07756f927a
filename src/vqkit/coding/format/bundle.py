"""Many items in one file, each to be had without the others. The format is docs/file-format.md.

Items lie in blocks of up to 256, which are decoded together: there is one check sum and one entry
of the index for all of them.
"""

from __future__ import annotations

import math
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from .blocks import Blocks, written_blocks
from .errors import CorruptSection, WrongProfile
from .header import (
    BUNDLE,
    CODES,
    MAX_CODEBOOKS,
    UNIT_GAIN,
    Kind,
    check_extent,
    num_extents_bytes,
    read_extent,
    read_kind,
    read_num_extents,
)
from .numbers import Reader, Source, check_bounds, varint
from .sections import MAX_NAME_BYTES, NAMES, section, usable_name

MAX_ITEMS = 1 << 24
MAX_BLOCK = 256
# Of the names of all items, before they are packed.
MAX_NAMES_BYTES = 1 << 28


class Extents:
    """Extents of many items in order; equal ones that follow one another take the room of one."""

    def __init__(self, extents: Iterable[tuple[int, ...]] = ()) -> None:
        # A run is what follows one another with one extent: the number of the item behind it, and
        # `num_axes` lengths. Arrays of 8 bytes a number, as a file may have millions of runs.
        self._ends = array("Q")
        self._lengths = array("Q")
        self.num_axes = 0
        for extent, same in groupby(extents):
            self.add(sum(1 for _ in same), extent)

    def add(self, count: int, extent: tuple[int, ...]) -> None:
        """Append items of one extent. ValueError for another number of axes than those before."""
        if self._ends and len(extent) != self.num_axes:
            raise ValueError(f"an extent of {len(extent)} axes among those of {self.num_axes}")
        self.num_axes = len(extent)
        self._ends.append(len(self) + count)
        self._lengths.extend(extent)

    def runs(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Count and extent of items that follow one another with the same one."""
        start = 0
        for number, end in enumerate(self._ends):
            yield end - start, self._run(number)
            start = end

    def positions(self) -> int:
        """Products of the extents, of all items together: what a rate is measured by."""
        return sum(count * math.prod(extent) for count, extent in self.runs())

    def _run(self, number: int) -> tuple[int, ...]:
        return tuple(self._lengths[number * self.num_axes : (number + 1) * self.num_axes])

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, item: int) -> tuple[int, ...]:
        if not 0 <= item < len(self):
            raise IndexError(f"there is no item {item}")
        return self._run(bisect_right(self._ends, item))


@dataclass(frozen=True)
class BundleHeader:
    """What a bundle says before its codes.

    extents: of the original items. num_codebooks: Q, stages of every item. coder: TRANSFORMER or
    MIXING. model_id: 8 bytes that name the model. block_size: the largest number of items in a
    block. signal: its number. holds: CODES or VALUES. gain: a byte, see
    UNIT_GAIN.
    """

    extents: Extents
    num_codebooks: int
    coder: int
    model_id: bytes
    block_size: int = MAX_BLOCK
    signal: int = 0
    holds: int = CODES
    gain: int = UNIT_GAIN

    @property
    def kind(self) -> Kind:
        """Profile, model, signal, what it holds, and coder."""
        return Kind(BUNDLE, self.model_id, self.signal, self.holds, self.coder, self.gain)

    @property
    def num_blocks(self) -> int:
        """Blocks that hold all items."""
        return -(-len(self.extents) // self.block_size)

    def items(self, block: int) -> range:
        """Numbers of the items of a block."""
        start = block * self.block_size
        return range(start, min(start + self.block_size, len(self.extents)))


@dataclass(frozen=True)
class Block:
    """Codes of the items of a block.

    crc: of all their codes, item by item and in an item stage by stage, see `codes_crc`. payloads:
    for each item and stage the bytes of the coder.
    """

    crc: int
    payloads: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True)
class Item:
    """One item of a bundle.

    payloads: for each stage the bytes of the coder. block, place: its block, and which item it is
    there. The check sum is the block's, so that only a block that is decoded as a whole can be
    checked.
    """

    extent: tuple[int, ...]
    payloads: tuple[bytes, ...]
    block: int
    place: int


# ------------------------------------------------------------------------------------------ write


def write_bundle(
    header: BundleHeader, blocks: Iterable[Block], names: Sequence[str] | None = None
) -> bytes:
    """A bundle. OutOfBounds.

    ValueError unless blocks and names are those of the items, the extents ones of their signal, and
    the names `usable_name`.
    """
    given = list(blocks)
    if len(given) != header.num_blocks:
        raise ValueError(f"{len(given)} blocks instead of {header.num_blocks}")
    flat = []
    for number, block in enumerate(given):
        num_items = len(header.items(number))
        if [len(item) for item in block.payloads] != [header.num_codebooks] * num_items:
            raise ValueError(
                f"block {number} needs {num_items} items of {header.num_codebooks} stages"
            )
        flat.append((block.crc, [payload for item in block.payloads for payload in item]))
    parts = written_blocks(_written_header(header), flat)
    if names is not None:
        parts.append(section(NAMES, _packed_names(header, names)))
    return b"".join(parts)


def _written_header(header: BundleHeader) -> bytes:
    check_bounds(len(header.extents), MAX_ITEMS, "the number of items")
    check_bounds(header.block_size, MAX_BLOCK, "the block size")
    check_bounds(header.num_codebooks, MAX_CODEBOOKS, "the number of codebooks")
    numbers = (header.num_codebooks, len(header.extents), header.block_size)
    written = bytearray(header.kind.written() + b"".join(map(varint, numbers)))
    written += num_extents_bytes(header.extents.num_axes, header.signal)
    for count, extent in header.extents.runs():
        check_extent(extent, header.signal)
        written += b"".join(map(varint, (count, *extent)))
    return bytes(written)


def _packed_names(header: BundleHeader, names: Sequence[str]) -> bytes:
    for name in names:
        if not usable_name(name):
            raise ValueError(f"{name!r} cannot be stored as a name")
    if len(names) != len(header.extents):
        raise ValueError(f"{len(names)} names for {len(header.extents)} items")
    joined = "\0".join(names).encode()
    check_bounds(len(joined), MAX_NAMES_BYTES, "the length of all names")
    return zlib.compress(joined, 9)


# ------------------------------------------------------------------------------------------- read


class Bundle(Blocks):
    """A bundle that is open for reading: header and index are in memory, blocks are read when asked
    for. Errors on opening: every FormatError but WrongModel and
    CorruptCodes, which are for the caller to raise with `check_model` and `check_block`.
    """

    def __init__(self, source: Source) -> None:
        reader = Reader(source)
        self.header = _read_header(reader)
        num_codebooks = self.header.num_codebooks
        super().__init__(
            reader,
            self.header.num_blocks,
            lambda number: len(self.header.items(number)) * num_codebooks,
        )

    def block(self, number: int) -> Block:
        """A block, from 0. Errors as `Blocks.read`."""
        crc, payloads = self.read(number)
        num_codebooks = self.header.num_codebooks
        starts = range(0, len(payloads), num_codebooks)
        return Block(crc, tuple(tuple(payloads[start : start + num_codebooks]) for start in starts))

    def item(self, number: int) -> Item:
        """An item, from 0. Errors as `block`."""
        extent = self.header.extents[number]
        block, place = divmod(number, self.header.block_size)
        return Item(extent, self.block(block).payloads[place], block, place)

    def names(self) -> list[str] | None:
        """Names of all items, None without any. CorruptSection if they are not fit for use."""
        packed = self.body(NAMES)
        if packed is None:
            return None
        num_items = len(self.header.extents)
        # No more than so many names can be: a few bytes unpack to a thousand times as many.
        joined = _unpacked_names(packed, min(MAX_NAMES_BYTES, num_items * (MAX_NAME_BYTES + 1)))
        names = []
        # Counted before they are taken apart: a name is 50 bytes in memory, however short it is.
        if joined.count(b"\0") == num_items - 1:
            try:
                names = joined.decode().split("\0")
            except UnicodeDecodeError:
                names = []
        if not names or not all(map(usable_name, names)):
            raise CorruptSection(
                "the names of the items are corrupt; the items can be read without them"
            )
        return names


def _read_header(reader: Reader) -> BundleHeader:
    kind = read_kind(reader)
    if kind.profile != BUNDLE or kind.model_id is None:
        raise WrongProfile("this is a single item, not a bundle of many")
    num_codebooks = reader.varint("the number of codebooks", MAX_CODEBOOKS, smallest=1)
    num_items = reader.varint("the number of items", MAX_ITEMS, smallest=1)
    block_size = reader.varint("the block size", MAX_BLOCK, smallest=1)
    num_extents = read_num_extents(reader, kind.signal)
    extents = Extents()
    while len(extents) < num_items:
        most = num_items - len(extents)
        count = reader.varint("the number of items of one extent", most, smallest=1)
        extents.add(count, read_extent(reader, kind.signal, num_extents))
    reader.check_crc(0, "header")
    return BundleHeader(
        extents,
        num_codebooks,
        kind.coder,
        kind.model_id,
        block_size,
        kind.signal,
        kind.holds,
        kind.gain,
    )


def _unpacked_names(body: bytes, most: int) -> bytes:
    """Names as they were before they were packed, of which no more than so many bytes are
    unpacked.
    """
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(body, most)
    except zlib.error as error:
        raise CorruptSection(f"the names of the items are corrupt: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise CorruptSection("the names of the items are corrupt, or too long")
    return data
