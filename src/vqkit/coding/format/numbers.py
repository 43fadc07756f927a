"""Numbers as they are stored, and a reader that never takes more bytes than there are.

Nothing here believes a size before it has been held against a bound and against the bytes that are
really there. The format is docs/file-format.md.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...errors import VqkitError
from .errors import CorruptHeader, OutOfBounds, Truncated

# A file in memory, or open for reading; a stream must be able to seek.
Source = bytes | BinaryIO

CRC_BYTES = 4
# 35 bits: every bound of the format lies below.
_MAX_VARINT_BYTES = 5
_CHUNK_BYTES = 1 << 20


def varint(number: int) -> bytes:
    """Unsigned LEB128: 7 bits a byte, the lowest first; the top bit says that another follows."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def crc_bytes(data: bytes) -> bytes:
    """CRC-32 of bytes as it is stored, little-endian."""
    return zlib.crc32(data).to_bytes(CRC_BYTES, "little")


def check_bounds(number: int, largest: int, what: str, smallest: int = 1) -> None:
    """OutOfBounds unless a size lies in its bounds."""
    if not smallest <= number <= largest:
        raise OutOfBounds(f"{what} is {number}; a .vq file allows {smallest} to {largest}")


@contextmanager
def opened(source: Source | str | Path) -> Iterator[Source]:
    """A source, or the file of that name, for as long as it is read.

    VqkitError for files that cannot be opened. ValueError for what is neither of them, for streams
    of text, and for streams that cannot seek.
    """
    if isinstance(source, str | Path):
        try:
            stream = open(source, "rb")
        except OSError as error:
            raise VqkitError(f"cannot read {source}: {error.strerror or error}") from error
        with stream:
            yield stream
    elif isinstance(source, bytes) or _is_binary_stream(source):
        yield source
    else:
        raise ValueError(
            "a .vq file is given as bytes, as a path, or as a binary stream that can seek"
        )


def _is_binary_stream(source: object) -> bool:
    can_seek = hasattr(source, "seekable") and source.seekable()
    return can_seek and hasattr(source, "read") and source.read(0) == b""


class Reader:
    """Bytes of a source from front to back. Truncated where they end."""

    def __init__(self, source: Source) -> None:
        self._stream = io.BytesIO(source) if isinstance(source, bytes) else source
        self.size = self._stream.seek(0, os.SEEK_END)
        self.position = self._stream.seek(0)

    @property
    def remaining(self) -> int:
        """Bytes from here to the end."""
        return self.size - self.position

    def seek(self, position: int) -> None:
        """Go on from a position, in bytes from the beginning."""
        self.position = self._stream.seek(position)

    def take(self, count: int) -> bytes:
        """The next bytes."""
        data = self._stream.read(count) if count <= self.remaining else b""
        if len(data) < count:
            raise Truncated(
                f"the file is cut off: {count} bytes are missing at byte {self.position}"
            )
        self.position += count
        return data

    def varint(self, what: str, largest: int, smallest: int = 0) -> int:
        """The next number. OutOfBounds if it is not in its bounds, or longer than it need be."""
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

    def crc(self) -> int:
        """The next check sum."""
        return int.from_bytes(self.take(CRC_BYTES), "little")

    def check_crc(self, start: int, what: str) -> None:
        """CorruptHeader unless the next 4 bytes are the CRC-32 of those from start to here."""
        end = self.position
        found = 0
        self.seek(start)
        while self.position < end:
            found = zlib.crc32(self.take(min(_CHUNK_BYTES, end - self.position)), found)
        if found != self.crc():
            raise CorruptHeader(f"the {what} is corrupt: it does not fit its check sum")
