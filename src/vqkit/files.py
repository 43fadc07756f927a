"""Files that are either there in full or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, bring it to disk, and give it its name. Makes the folder.

    Whatever fails, `path` is what it was before and nothing is left over. Errors: those of `write` and of the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """`content` as the file `path`, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, content: str) -> None:
    """`content` as the file `path` in UTF-8, whole or not at all; escapes for names of files that are no text."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def free_name(path: Path, taken: Callable[[Path], bool] = Path.exists) -> Path:
    """The path itself, or with the smallest number from 2 on behind its stem that is not taken."""
    target, number = path, 2
    while taken(target):
        target, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return target
