"""Sections, of which files consist behind their headers, and the names that may stand in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import TrailingBytes, Truncated
from .numbers import Reader, check_bounds, varint

# Tags; odd ones are critical: a reader that does not know one refuses the file.
STAGE = 1
NAME = 2
NAMES = 4

MAX_SECTION_BYTES = 1 << 30
MAX_SECTIONS = 256
MAX_NAME_BYTES = 1024
# Control characters, and what other systems take for a separator.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\:]")


@dataclass(frozen=True)
class Section:
    """Where a section lies: its tag; its first byte `start`; its body from `body` to `end`."""

    tag: int
    start: int
    body: int
    end: int


def section(tag: int, body: bytes) -> bytes:
    """A section as it is stored. OutOfBounds."""
    check_bounds(len(body), MAX_SECTION_BYTES, "the length of a section", smallest=0)
    return varint(tag) + varint(len(body)) + body


def sections(reader: Reader) -> Iterator[Section]:
    """Sections from here to the end, none of them read.

    Errors: Truncated inside of one; OutOfBounds; TrailingBytes where one would have tag 0.
    """
    number = 0
    while reader.remaining:
        number += 1
        check_bounds(number, MAX_SECTIONS, "the number of sections")
        start = reader.position
        tag = reader.varint("the tag of a section", MAX_SECTION_BYTES)
        # No section has tag 0, so that zeros behind a file are not taken for empty sections.
        if tag == 0:
            raise TrailingBytes(f"there is no section at byte {start}, where one should begin")
        length = reader.varint("the length of a section", MAX_SECTION_BYTES)
        if length > reader.remaining:
            raise Truncated(f"the file is cut off in the section at byte {start}")
        found = Section(tag, start, reader.position, reader.position + length)
        reader.seek(found.end)
        yield found


def usable_name(name: str) -> bool:
    """Whether a name may be stored.

    It is a path below the present folder, its parts divided by '/', that is safe on every system.
    """
    try:
        num_bytes = len(name.encode())
    except UnicodeEncodeError:
        return False
    if num_bytes > MAX_NAME_BYTES or _UNSAFE.search(name):
        return False
    return not set(name.split("/")) & {"", ".", ".."}


def name_in(body: bytes) -> str | None:
    """A name, or None where it is not fit for use: the item can be decoded without it."""
    try:
        name = body.decode()
    except UnicodeDecodeError:
        return None
    return name if usable_name(name) else None
