"""Where images lie: a folder of files, one file of many blobs, or an array.

Each gives item i in raw form.

Stores travel to worker processes. What they hold is packed into arrays: lists of Python strings
would be copied page by page as workers touch their reference counts, and memory would grow through
the first epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...data.names import BadFile, PackedStrings
from .config import DataConfig
from .files import Frame, Raw
from .ranges import ValueRange, to_bytes


class Store(Protocol):
    """Random access to images that are not decoded yet."""

    def __len__(self) -> int: ...

    def raw(self, index: int) -> Raw:
        """Item `index` as a path, the bytes of an image file, one frame of either, or pixels (H, W,
        C) uint8.
        """


class FileStore:
    """Image files below a folder; names are paths relative to it, with forward slashes.

    frames: the image in its file that each item is, (N,); None where all are the first.
    """

    def __init__(self, root: Path, names: Iterable[str], frames: np.ndarray | None = None) -> None:
        self.root = root
        self.names = PackedStrings(names)
        self.frames = frames

    def __len__(self) -> int:
        return len(self.names)

    def raw(self, index: int) -> Raw:
        return _frame(self.root / self.names[index], self.frames, index)


class BlobStore:
    """Image files one after another in a temporary file, which is deleted with the store. frames:
    as of FileStore.
    """

    def __init__(
        self, path: Path, starts: np.ndarray, ends: np.ndarray, frames: np.ndarray | None = None
    ) -> None:
        self.path = path
        self.starts = starts
        self.ends = ends
        self.frames = frames

    def __len__(self) -> int:
        return len(self.starts)

    def raw(self, index: int) -> Raw:
        with self.path.open("rb") as file:
            file.seek(int(self.starts[index]))
            content = file.read(int(self.ends[index] - self.starts[index]))
        return _frame(content, self.frames, index)


class PartStore:
    """Some of the items of another store."""

    def __init__(self, store: Store, indices: Sequence[int]) -> None:
        self.store = store
        self.indices = np.array(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def raw(self, index: int) -> Raw:
        return self.store.raw(int(self.indices[index]))


def _frame(file: Path | bytes, frames: np.ndarray | None, index: int) -> Raw:
    if frames is None or not frames[index]:
        return file
    return Frame(file, int(frames[index]))


class ArrayStore:
    """Images (N, H, W, C) in one array; what is not uint8 is scaled on the way out.

    mapped: the .npy file that the array is mapped from, and how its dimensions are read, if it is.
    Workers that are not forked map it anew.
    """

    def __init__(
        self,
        array: np.ndarray,
        value_range: ValueRange | None = None,
        mapped: tuple[Path, Callable[[np.ndarray], np.ndarray]] | None = None,
    ) -> None:
        self.array = array
        self.value_range = value_range
        self._mapped = mapped

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapped array would be pickled with all that is in it.
        if self._mapped is not None:
            return _map_array, (*self._mapped, self.value_range)
        return ArrayStore, (self.array, self.value_range)

    def __len__(self) -> int:
        return len(self.array)

    def raw(self, index: int) -> np.ndarray:  # (H, W, C) uint8
        return self.chunk(index, index + 1)[0]

    def chunk(self, start: int, stop: int) -> np.ndarray:  # (n, H, W, C) uint8
        values = np.ascontiguousarray(self.array[start:stop])
        if values.dtype == np.uint8:
            return values
        return to_bytes(values, self.value_range)


def _map_array(
    path: Path, arranged: Callable[[np.ndarray], np.ndarray], value_range: ValueRange | None
) -> ArrayStore:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return ArrayStore(arranged(array), value_range, (path, arranged))


@dataclass(frozen=True)
class Reading:
    """How a source is read: the settings, and what becomes of values of more than 8 bits.

    value_range: that of a trained model or of the settings. find_range: where there is none, find
    it from the whole set. progress: called with the share that is done.
    """

    config: DataConfig
    value_range: ValueRange | None = None
    find_range: bool = True
    progress: Callable[[float], None] | None = None


@dataclass
class Items:
    """Everything that a reader found in a source, before it is split: the items of `store` are the
    good ones.

    digests: content of each item (N, 16); None until the files are decoded. keys: what must not be
    torn apart, when that is more than the content, (N, 16). files: number of the file that each
    item lies in, (N,), when there are several images in one. full: items that must be decoded whole
    to be told apart, (N,) bool. value_range: of values of more than 8 bits; None where there are
    none. cut_from: number of the image that each item was cut from, (N,); None of whole images.
    notes: what a user should know about how the source was read.
    """

    kind: str
    store: Store
    names: Sequence[str]
    digests: np.ndarray | None
    modes: dict[str, int]
    sizes: dict[tuple[int, int], int]
    bad: list[BadFile] = field(default_factory=list)
    keys: np.ndarray | None = None
    fixed_test: np.ndarray | None = None
    captions: list[str] | None = None
    groups: list[str] | None = None
    files: np.ndarray | None = None
    full: np.ndarray | None = None
    value_range: ValueRange | None = None
    cut_from: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    def kept(self, good: list[int]) -> Items:
        """The items at these places alone; the store stays as it is."""

        def part(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[good]

        return replace(
            self,
            names=PackedStrings(self.names[index] for index in good),
            digests=part(self.digests),
            keys=part(self.keys),
            files=part(self.files),
            full=part(self.full),
            cut_from=part(self.cut_from),
            captions=self.captions and [self.captions[index] for index in good],
            groups=self.groups and [self.groups[index] for index in good],
        )
