"""Files of text: which they are, and their bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import VqkitError
from ...files import open_regular, read_bounded

Bytes = NDArray[np.uint8]

SUFFIXES = frozenset(
    ".txt .text .md .markdown .rst .adoc .tex .org .log .csv .tsv .json .jsonl .ndjson .yaml .yml "
    ".toml .ini .cfg .conf .xml .html .htm .css .svg .py .pyi .ipynb .js .mjs .ts .tsx .jsx .java "
    ".c .h .cc .cpp .hpp .rs .go .rb .php .pl .lua .sh .bash .sql .r .jl .kt .swift .scala .hs "
    ".po .srt .vtt .bib .eml".split()
)
# Bytes of a file at most: positions of an item that a .vq file may have.
MAX_BYTES = 1 << 28
# Why a file that holds nothing cannot be used.
EMPTY = "it is empty"
# Bytes of a file without a suffix that are looked at, to see whether it is text.
LOOKED_AT = 1 << 12
# Bytes that text without a suffix does not hold: control characters but tab, line and page ends.
_CONTROLS = bytes(set(range(32)) - {8, 9, 10, 12, 13, 27})


class BadText(Exception):
    """Why a file cannot be used: a clause."""


def is_text(path: Path) -> bool:
    """Whether a file is text, by its suffix; one without, by its first bytes."""
    if path.suffix:
        return path.suffix.lower() in SUFFIXES
    try:
        with open_regular(path) as file:
            start = file.read(LOOKED_AT)
    except OSError:
        return False
    return bool(start) and _reads_as_text(start)


def _reads_as_text(start: bytes) -> bool:
    """Whether bytes have no control characters that text does not have."""
    return start.translate(None, _CONTROLS) == start


def load(path: Path) -> Bytes:
    """The bytes of a file (T,), one at least; whatever they are, where its suffix says that it is
    text. BadText.
    """
    try:
        content = read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise BadText(error.strerror or str(error)) from error
    if not content:
        raise BadText(EMPTY)
    if path.suffix.lower() not in SUFFIXES and not _reads_as_text(content[:LOOKED_AT]):
        raise BadText("it is no text: there are control characters in it")
    return np.frombuffer(content, np.uint8)


def wanted(path: Path) -> Bytes:
    """As `load`. VqkitError naming the file."""
    try:
        return load(path)
    except BadText as error:
        raise VqkitError(f"cannot read {path}: {error}") from error
