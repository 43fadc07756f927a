"""Blocks one behind the other, each of which is decoded without the others, with an index before
them and sections behind. The format is docs/file-format.md.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from .errors import CorruptCodes, FormatError, Truncated, UnknownSection
from .numbers import CRC_BYTES, Reader, check_bounds, crc_bytes, varint
from .sections import MAX_SECTION_BYTES, Section, sections


def written_blocks(header: bytes, blocks: Iterable[tuple[int, Sequence[bytes]]]) -> list[bytes]:
    """A header with its check sum, the index, and blocks, each of a check sum and payloads.
    OutOfBounds.
    """
    written = []
    for crc, payloads in blocks:
        lengths = b"".join(varint(len(payload)) for payload in payloads)
        block = crc.to_bytes(CRC_BYTES, "little") + lengths + b"".join(payloads)
        check_bounds(len(block), MAX_SECTION_BYTES, "the length of a block")
        written.append(block)
    index = b"".join(varint(len(block)) for block in written)
    return [header, crc_bytes(header), index, crc_bytes(index), *written]


class Blocks:
    """What follows a header: the index is in memory, blocks are read when asked for.

    size, header_bytes: bytes of the file and of its header. num_blocks: how many there are meant to
    be. whole_blocks: how many are there, from the first one. truncated: the file was cut off.
    sections: where those behind the blocks lie.
    """

    # What people call a block.
    word = "block"

    def __init__(self, reader: Reader, num_blocks: int, num_payloads: Callable[[int], int]) -> None:
        """The reader has read the header. num_payloads: of a block, from its number.

        Errors: Truncated without a whole block; CorruptHeader; OutOfBounds; UnknownSection;
        TrailingBytes.
        """
        self._reader = reader
        self._num_payloads = num_payloads
        self.size = reader.size
        self.header_bytes = reader.position
        self.num_blocks = num_blocks
        self._bounds = self._read_index()
        self.whole_blocks = bisect_right(self._bounds, self.size) - 1
        if self.whole_blocks == 0:
            raise Truncated(
                f"the file is cut off before the end of its first {self.word}: nothing is left of "
                "it"
            )
        self.sections, self.truncated = self._find_sections()

    def _read_index(self) -> array[int]:
        """First byte of each block, and the one behind the last block."""
        reader = self._reader
        start = reader.position
        ends = array("Q", [0])
        for number in range(self.num_blocks):
            smallest = CRC_BYTES + self._num_payloads(number)
            length = reader.varint("the length of a block", MAX_SECTION_BYTES, smallest)
            ends.append(ends[-1] + length)
        reader.check_crc(start, "index")
        return array("Q", (reader.position + end for end in ends))

    def _find_sections(self) -> tuple[tuple[Section, ...], bool]:
        """Sections behind the blocks, and whether the file was cut off."""
        if self.whole_blocks < self.num_blocks:
            return (), True
        self._reader.seek(self._bounds[-1])
        found = []
        try:
            for one in sections(self._reader):
                if one.tag % 2:
                    raise UnknownSection(
                        f"the file has a section {one.tag} that this vqkit does not know: update "
                        "vqkit"
                    )
                found.append(one)
        except Truncated:
            return tuple(found), True
        return tuple(found), False

    def span(self, number: int) -> tuple[int, int]:
        """First byte of a block and the one behind its last. IndexError."""
        if not 0 <= number < self.num_blocks:
            raise IndexError(f"there is no {self.word} {number}")
        return self._bounds[number], self._bounds[number + 1]

    def read(self, number: int) -> tuple[int, list[bytes]]:
        """Check sum and payloads of a block, from 0.

        Errors: Truncated if it is cut off; CorruptCodes if its lengths do not fit it; IndexError.
        """
        start, end = self.span(number)
        self._reader.seek(start)
        reader = Reader(self._reader.take(end - start))
        try:
            return _read_block(reader, self._num_payloads(number))
        except FormatError as error:
            raise CorruptCodes(f"{self.word} {number + 1} is corrupt: {error}") from error

    def body(self, tag: int, largest: int | None = None) -> bytes | None:
        """The body of the first section with a tag, none of it behind so many bytes; None without
        one.
        """
        for one in self.sections:
            if one.tag == tag:
                self._reader.seek(one.body)
                length = one.end - one.body
                return self._reader.take(length if largest is None else min(length, largest))
        return None


def _read_block(reader: Reader, num_payloads: int) -> tuple[int, list[bytes]]:
    crc = reader.crc()
    lengths = []
    for _ in range(num_payloads):
        lengths.append(reader.varint("the length of a payload", MAX_SECTION_BYTES))
    if sum(lengths) != reader.remaining:
        raise CorruptCodes("its lengths do not add up")
    return crc, [reader.take(length) for length in lengths]
