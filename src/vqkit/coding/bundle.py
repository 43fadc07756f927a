"""Many images in one file, each to be had without the others. The format is docs/file-format.md.

Items lie in blocks of up to 256, which are decoded together: one check sum and one entry of the index for all of them.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from .framing import (
    BUNDLE,
    CRC_BYTES,
    IMAGE,
    MAX_BLOCK,
    MAX_CODEBOOKS,
    MAX_ITEMS,
    MAX_NAMES_BYTES,
    MAX_SECTION_BYTES,
    MAX_SIDE,
    NAMES,
    CorruptCodes,
    CorruptSection,
    FormatError,
    Kind,
    Reader,
    Section,
    Source,
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


class Sizes:
    """Height and width, pixels, of many images in order; equal ones that follow one another take the room of one."""

    def __init__(self, sizes: Iterable[tuple[int, int]] = ()) -> None:
        self._ends, self._heights, self._widths = array("L"), array("L"), array("L")
        for (height, width), same in groupby(sizes):
            self.add(sum(1 for _ in same), height, width)

    def add(self, count: int, height: int, width: int) -> None:
        """Append images of one size. OutOfBounds."""
        check_pixels(height, width)
        self._ends.append(len(self) + count)
        self._heights.append(height)
        self._widths.append(width)

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Count, height and width of images that follow one another."""
        start = 0
        for end, height, width in zip(self._ends, self._heights, self._widths, strict=True):
            yield end - start, height, width
            start = end

    def pixels(self) -> int:
        """Pixels of all images."""
        return sum(count * height * width for count, height, width in self.runs())

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, item: int) -> tuple[int, int]:
        run = bisect_right(self._ends, item)
        return self._heights[run], self._widths[run]


@dataclass(frozen=True)
class BundleHeader:
    """What a bundle says before its codes: sizes of the original images; num_codebooks Q; coder; model_id, the first 8
    bytes of the content id; block_size, the largest number of items in a block."""

    sizes: Sizes
    num_codebooks: int
    coder: int
    model_id: bytes
    block_size: int = MAX_BLOCK
    modality: int = IMAGE

    @property
    def kind(self) -> Kind:
        """Profile, model, modality and coder."""
        return Kind(BUNDLE, self.model_id, self.modality, self.coder)

    @property
    def num_blocks(self) -> int:
        """Blocks that hold all items."""
        return -(-len(self.sizes) // self.block_size)

    def items(self, block: int) -> range:
        """Items of a block."""
        start = block * self.block_size
        return range(start, min(start + self.block_size, len(self.sizes)))


@dataclass(frozen=True)
class Block:
    """Codes of the items of a block: crc of all their codes, item by item and stage by stage, see `codes_crc`; for each
    item and stage the bytes of the coder."""

    crc: int
    payloads: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True)
class Item:
    """One image of a bundle: height and width, pixels; for each stage the bytes of the coder; its block, and which item
    it is there. The check sum is the block's, so that only a block that is decoded as a whole can be checked."""

    height: int
    width: int
    payloads: tuple[bytes, ...]
    block: int
    place: int


def write_bundle(header: BundleHeader, blocks: Iterable[Block], names: Sequence[str] | None = None) -> bytes:
    """A bundle. OutOfBounds. ValueError unless blocks and names are those of the items, the names `usable_name`."""
    check_bounds(len(header.sizes), MAX_ITEMS, "the number of items")
    check_bounds(header.block_size, MAX_BLOCK, "the block size")
    check_bounds(header.num_codebooks, MAX_CODEBOOKS, "the number of codebooks")
    numbers = [header.num_codebooks, len(header.sizes), header.block_size]
    numbers += [number for run in header.sizes.runs() for number in run]
    first = header.kind.written() + b"".join(map(varint, numbers))
    written = [_write_block(header, number, block) for number, block in enumerate(blocks)]
    if len(written) != header.num_blocks:
        raise ValueError(f"{len(written)} blocks instead of {header.num_blocks}")
    index = b"".join(varint(len(block)) for block in written)
    parts = [first, crc_bytes(first), index, crc_bytes(index), *written]
    return b"".join(parts + ([] if names is None else [section(NAMES, _write_names(header, names))]))


def _write_block(header: BundleHeader, number: int, block: Block) -> bytes:
    if [len(item) for item in block.payloads] != [header.num_codebooks] * len(header.items(number)):
        raise ValueError(f"block {number} needs {len(header.items(number))} items of {header.num_codebooks} stages")
    payloads = [payload for item in block.payloads for payload in item]
    table = b"".join(varint(len(payload)) for payload in payloads)
    written = block.crc.to_bytes(CRC_BYTES, "little") + table + b"".join(payloads)
    check_bounds(len(written), MAX_SECTION_BYTES, "the length of a block")
    return written


def _write_names(header: BundleHeader, names: Sequence[str]) -> bytes:
    unusable = next((name for name in names if not usable_name(name)), None)
    if unusable is not None or len(names) != len(header.sizes):
        raise ValueError(f"{len(names)} names for {len(header.sizes)} items; not a name: {unusable!r}")
    joined = "\0".join(names).encode()
    check_bounds(len(joined), MAX_NAMES_BYTES, "the length of all names")
    return zlib.compress(joined, 9)


class Bundle:
    """A bundle that is open for reading: header and index are in memory, blocks are read when they are asked for.

    header; size and header_bytes, of the file and its header; truncated: the file was cut off; whole_blocks: how many
    are there, from the first one; sections: where those behind the blocks lie. Errors on opening: every FormatError but
    WrongModel and CorruptCodes, which are for the caller to raise with `check_model` and `check_block`.
    """

    def __init__(self, source: Source) -> None:
        self._reader = Reader(source)
        self.size = self._reader.size
        self.header = _read_header(self._reader)
        self.header_bytes = self._reader.position
        self._bounds = _read_index(self._reader, self.header)
        self.whole_blocks = bisect_right(self._bounds, self.size) - 1
        if self.whole_blocks == 0:
            raise Truncated("the bundle is cut off before the end of its first block: nothing can be shown")
        self.sections, self.truncated = self._find_sections()

    def _find_sections(self) -> tuple[tuple[Section, ...], bool]:
        if self.whole_blocks < self.header.num_blocks:
            return (), True
        self._reader.seek(self._bounds[-1])
        found = []
        try:
            for one in sections(self._reader):
                if one.tag % 2:
                    raise UnknownSection(f"the bundle has a section {one.tag} that this vqkit does not know")
                found.append(one)
        except Truncated:
            return tuple(found), True
        return tuple(found), False

    def span(self, number: int) -> tuple[int, int]:
        """First byte of a block and the one behind its last. IndexError."""
        if not 0 <= number < self.header.num_blocks:
            raise IndexError(f"there is no block {number}")
        return self._bounds[number], self._bounds[number + 1]

    def block(self, number: int) -> Block:
        """A block, from 0. Truncated if it is cut off; CorruptCodes if its lengths do not fit it; IndexError."""
        start, end = self.span(number)
        self._reader.seek(start)
        data = self._reader.take(end - start)
        try:
            return _read_block(Reader(data), len(self.header.items(number)), self.header.num_codebooks)
        except FormatError as error:
            raise CorruptCodes(f"block {number + 1} is corrupt: {error}") from error

    def item(self, number: int) -> Item:
        """An item, from 0. Errors as `block`."""
        block, place = divmod(number, self.header.block_size)
        payloads = self.block(block).payloads
        if place >= len(payloads):
            raise IndexError(f"there is no item {number}")
        return Item(*self.header.sizes[number], payloads[place], block, place)

    def names(self) -> list[str] | None:
        """Names of all items, None if they are not in the file. CorruptSection if they are not fit for use."""
        found = next((one for one in self.sections if one.tag == NAMES), None)
        if found is None:
            return None
        self._reader.seek(found.body)
        joined = _inflated(self._reader.take(found.end - found.body))
        items = len(self.header.sizes)
        try:
            names = joined.decode().split("\0") if joined.count(b"\0") == items - 1 else []
        except UnicodeDecodeError:
            names = []
        if not (names and all(map(usable_name, names))):
            raise CorruptSection("the names of the items are corrupt; the items can be read without them")
        return names


def _read_header(reader: Reader) -> BundleHeader:
    kind = read_kind(reader)
    if kind.profile != BUNDLE or kind.model_id is None:
        raise WrongProfile("this is a single image, not a bundle of many")
    num_codebooks = reader.varint("the number of codebooks", MAX_CODEBOOKS, smallest=1)
    items = reader.varint("the number of items", MAX_ITEMS, smallest=1)
    block_size = reader.varint("the block size", MAX_BLOCK, smallest=1)
    sizes = Sizes()
    while len(sizes) < items:
        count = reader.varint("the number of items of one size", items - len(sizes), smallest=1)
        height = reader.varint("the height", MAX_SIDE, smallest=1)
        sizes.add(count, height, reader.varint("the width", MAX_SIDE, smallest=1))
    reader.check_crc(0, "header")
    return BundleHeader(sizes, num_codebooks, kind.coder, kind.model_id, block_size, kind.modality)


def _read_index(reader: Reader, header: BundleHeader) -> array[int]:
    """First byte of each block, and the one behind the last block."""
    start, bounds = reader.position, array("Q", [0])
    for number in range(header.num_blocks):
        smallest = CRC_BYTES + len(header.items(number)) * header.num_codebooks
        bounds.append(bounds[-1] + reader.varint("the length of a block", MAX_SECTION_BYTES, smallest))
    reader.check_crc(start, "index")
    return array("Q", (reader.position + bound for bound in bounds))


def _read_block(reader: Reader, items: int, num_codebooks: int) -> Block:
    crc = int.from_bytes(reader.take(CRC_BYTES), "little")
    lengths = [reader.varint("the length of a payload", MAX_SECTION_BYTES) for _ in range(items * num_codebooks)]
    if sum(lengths) != reader.remaining:
        raise CorruptCodes("its lengths do not add up")
    payloads = [reader.take(length) for length in lengths]
    return Block(crc, tuple(tuple(payloads[i : i + num_codebooks]) for i in range(0, len(payloads), num_codebooks)))


def _inflated(body: bytes) -> bytes:
    """Names as they were before they were packed; never more than MAX_NAMES_BYTES are unpacked. CorruptSection."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(body, MAX_NAMES_BYTES)
    except zlib.error as error:
        raise CorruptSection(f"the names of the items are corrupt: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise CorruptSection("the names of the items are corrupt, or too long")
    return data
