"""Text for terminals: nothing in it can move the cursor, change colours or forge a line."""

from __future__ import annotations

import re

# Control characters of ASCII and Latin-1 but for tabs and line ends, marks that turn the direction
# of writing, and bytes of file names that are no text.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with every character that acts on a terminal as its escape, such as \\x1b."""
    return _UNPRINTABLE.sub(
        lambda found: found.group().encode("unicode_escape").decode("ascii"), text
    )


def one_line(text: object) -> str:
    """A name or message for the middle of a line: printable, and without line ends."""
    return printable(str(text).replace("\n", "\\n").replace("\t", "\\t"))
