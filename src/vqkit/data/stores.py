"""Where pictures lie: a folder of files, one file of many blobs, or an array. Each gives item i in raw form.

Stores travel to worker processes. What they hold is packed into arrays: lists of Python strings would be copied page by
page as workers touch their reference counts, and memory would grow through the first epoch.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, overload

import numpy as np

from .images import Raw


@dataclass(frozen=True)
class BadFile:
    """A file that is left out, and why."""

    name: str
    reason: str


class PackedStrings(Sequence[str]):
    """A list of strings in two arrays."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [text.encode("utf-8", "surrogateescape") for text in strings]
        self._ends = np.cumsum([0] + [len(text) for text in encoded], dtype=np.int64)
        self._text = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        return bytes(self._text[self._ends[position] : self._ends[position + 1]]).decode("utf-8", "surrogateescape")


class NumberedNames(Sequence[str]):
    """'name:0', 'name:1', ...: the items of an array."""

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count = name, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return f"{self._name}:{range(self._count)[index]}"


class Store(Protocol):
    """Random access to pictures that are not decoded yet."""

    def __len__(self) -> int: ...

    def raw(self, index: int) -> Raw:
        """Item `index` as a path, the bytes of a picture file, or pixels (H, W, C) uint8."""


class FileStore:
    """Picture files below a folder; names are paths relative to it, with forward slashes."""

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root, self.names = root, PackedStrings(names)

    def __len__(self) -> int:
        return len(self.names)

    def raw(self, index: int) -> Path:
        return self.root / self.names[index]


class BlobStore:
    """Picture files one after another in a temporary file, which is deleted with the store."""

    def __init__(self, path: Path, starts: np.ndarray, ends: np.ndarray) -> None:
        self.path, self.starts, self.ends = path, starts, ends

    def __len__(self) -> int:
        return len(self.starts)

    def raw(self, index: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(int(self.starts[index]))
            return file.read(int(self.ends[index] - self.starts[index]))


class ArrayStore:
    """Images (N, H, W) or (N, H, W, C) in one array; floats in [0, 1] become uint8 on the way out.

    path: the .npy file that the array is mapped from, if it is. Workers that are not forked map it anew.
    """

    def __init__(self, array: np.ndarray, path: Path | None = None) -> None:
        self.array = array[..., None] if array.ndim == 3 else array  # (N, H, W, C)
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapped array would be pickled with all that is in it.
        return (_map_array, (self._path,)) if self._path else (ArrayStore, (self.array,))

    def __len__(self) -> int:
        return len(self.array)

    def raw(self, index: int) -> np.ndarray:  # (H, W, C) uint8
        return self.chunk(index, index + 1)[0]

    def chunk(self, start: int, stop: int) -> np.ndarray:  # (n, H, W, C) uint8
        values = np.ascontiguousarray(self.array[start:stop])
        return values if values.dtype == np.uint8 else np.rint(values.astype(np.float32) * 255).astype(np.uint8)


def _map_array(path: Path) -> ArrayStore:
    return ArrayStore(np.load(path, mmap_mode="r", allow_pickle=False), path)


@dataclass
class Items:
    """Everything that a reader found in a source, before it is split: the items of `store` are the good ones.

    digests: content of each item; keys: what must not be torn apart, when that is more than the content. Both (N, 16).
    """

    kind: str
    store: Store
    names: Sequence[str]
    digests: np.ndarray
    modes: dict[str, int]
    sizes: dict[tuple[int, int], int]
    bad: list[BadFile] = field(default_factory=list)
    keys: np.ndarray | None = None
    fixed_test: np.ndarray | None = None
    captions: list[str] | None = None
    groups: list[str] | None = None


def temporary_file(owner_hint: str) -> tuple[Path, BinaryIO]:
    """An empty file for what does not fit into memory. Whoever keeps it calls `delete_with`."""
    handle, path = tempfile.mkstemp(prefix=f"vqkit-{owner_hint}-")
    return Path(path), os.fdopen(handle, "wb")


def delete_with(owner: object, path: Path) -> None:
    """Deletes the temporary file when `owner` goes or the program ends; worker processes leave it alone."""
    weakref.finalize(owner, _delete, path, os.getpid())


def _delete(path: Path, creator: int) -> None:
    if os.getpid() == creator:
        path.unlink(missing_ok=True)
