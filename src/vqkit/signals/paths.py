"""Files that users name, and those in folders that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Wanted = Callable[[Path], bool]


def files_below(folder: Path, is_wanted: Wanted) -> list[Path]:
    """Files below a folder, sorted; hidden ones are left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not is_hidden and path.is_file() and is_wanted(path):
            found.append(path)
    return found


def named_or_below(paths: Iterable[str | Path], is_wanted: Wanted) -> Iterator[Path]:
    """The files as they are named, and those below paths that are folders."""
    for path in map(Path, paths):
        yield from files_below(path, is_wanted) if path.is_dir() else [path]
