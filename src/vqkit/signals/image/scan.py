"""Surveys of many image files: the header of each, flat in memory.

Only values of more than 8 bits are decoded.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ...data.blocks import TOGETHER, ShardStore, find_places
from ...data.names import BadFile, PackedStrings
from ...data.shards import column_of_samples, find_shards
from ...errors import VqkitError
from ...files import delete_with, open_regular, temporary_file
from ...machine import num_cores
from ...tables import pyarrow
from .arrays import check_unpacked, max_unpacked
from .config import DataConfig
from .files import (
    BROKEN_IMAGE,
    Encoded,
    FileSurvey,
    Header,
    image_suffixes,
    pillow_warnings,
    reason,
    survey_file,
)
from .ranges import Extent
from .stores import BlobStore, FileStore, Items, Reading, Store

# What is known of a file, or why it is bad.
Found: TypeAlias = "FileSurvey | str"

NUM_THREADS = min(8, num_cores())
_CHUNK = 256
# Blocks of shards from which images are looked at.
SURVEYED_BLOCKS = 16


@dataclass
class _Survey:
    """Running totals over files, and what there is to know of each image."""

    names: list[str] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    # Of images in another format than JPEG: a JPEG file of such a size must be decoded whole to be
    # told apart from them.
    other_sizes: set[tuple[int, int]] = field(default_factory=set)
    bad: list[BadFile] = field(default_factory=list)
    extent: Extent = field(default_factory=Extent)
    # Of each image: its size, the number of its file, and which image of that file it is.
    item_sizes: list[tuple[int, int]] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    num_files: int = 0
    # Images behind the first of their file that are left out, and the files that hold several.
    num_left: int = 0
    num_holding_more: int = 0
    # Files whose colours have 16 bits, of which 8 are used.
    num_cut: int = 0

    def add(self, name: str, found: Found) -> bool:
        """Take in a file. Returns whether it is good."""
        if isinstance(found, str):
            self.bad.append(BadFile(name, found))
            return False
        for frame, header in enumerate(found.headers):
            item = f"{name}:{frame}" if len(found.headers) > 1 else name
            self._add_image(item, header, frame)
            if found.format != "JPEG":
                self.other_sizes.add(header.size)
        if not found.extent.is_empty:
            self.extent.merge(found.extent.low, found.extent.high, found.extent.are_whole)
        self.num_files += 1
        self.num_left += found.num_frames - len(found.headers)
        self.num_holding_more += found.num_frames > 1
        self.num_cut += found.is_cut
        return True

    def _add_image(self, name: str, header: Header, frame: int) -> None:
        self.names.append(name)
        self.modes[header.mode] += 1
        self.sizes[header.size] += 1
        self.item_sizes.append(header.size)
        self.files.append(self.num_files)
        self.frames.append(frame)

    def items(self, kind: str, store: Store, how: Reading) -> Items:
        """All that was found, with the range of values that was given, or else the one of all of
        them.
        """
        items = Items(
            kind=kind,
            store=store,
            names=PackedStrings(self.names),
            digests=None,
            modes=dict(self.modes),
            sizes=dict(self.sizes),
            bad=self.bad,
        )
        items.full = np.array([size in self.other_sizes for size in self.item_sizes], dtype=bool)
        if len(self.files) > self.num_files:
            items.files = np.array(self.files, dtype=np.int64)
        if not self.extent.is_empty:
            items.value_range = how.value_range
            if items.value_range is None and how.find_range:
                items.value_range = self.extent.range()
        items.notes = self._notes()
        return items

    def _notes(self) -> list[str]:
        notes = []
        if self.num_left:
            notes.append(
                f"{self.num_holding_more} files hold {self.num_left + self.num_holding_more} "
                "images; the first of each is used, data.frames=all uses all"
            )
        if len(self.files) > self.num_files:
            notes.append(
                f"{len(self.files)} images lie in {self.num_files} files; those of one file stay "
                "in one split"
            )
        if self.num_cut:
            notes.append(
                f"{self.num_cut} files have colours of 16 bits, of which the upper 8 are used"
            )
        return notes

    def frame_numbers(self) -> np.ndarray | None:
        """The image in its file that each item is; None where all are the first."""
        if not any(self.frames):
            return None
        return np.array(self.frames, dtype=np.int32)


def image_files(folder: Path, suffixes: frozenset[str]) -> list[str]:
    """Relative paths, sorted, of the files below `folder` with one of these suffixes.

    Hidden ones are passed over.
    """
    paths = []
    for parent, folders, files in os.walk(folder):
        # os.walk goes on into what is left in the list.
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                path = os.path.relpath(os.path.join(parent, name), folder)
                paths.append(path.replace(os.sep, "/"))
    return sorted(paths)


def scan_folder(folder: Path, how: Reading) -> Items:
    """The images below `folder`; folders right below it are classes (`folder_classes`).

    VqkitError if there is no file with the suffix of an image.
    """
    names = image_files(folder, image_suffixes())
    if not names:
        hint = ""
        if any(path.suffix.lower() in (".npy", ".csv") for path in folder.rglob("*")):
            hint = "; arrays are read with --recipe signal (along time) or --recipe volume"
        raise VqkitError(
            f"{folder} holds no images (looked for .png, .jpg and every other format that Pillow "
            f"reads){hint}"
        )
    survey = _Survey()
    files = []
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    inspect = partial(_inspect, every_frame=how.config.frames == "all")
    with pillow_warnings(), ThreadPoolExecutor(NUM_THREADS) as pool:
        surveyed = pool.map(lambda chunk: [inspect(folder / name) for name in chunk], chunks)
        for number, (chunk, results) in enumerate(zip(chunks, surveyed, strict=True), 1):
            for name, found in zip(chunk, results, strict=True):
                if survey.add(name, found) and isinstance(found, FileSurvey):
                    files += [name] * len(found.headers)
            if how.progress:
                how.progress(number / len(chunks))
    store = FileStore(folder, files, survey.frame_numbers())
    items = survey.items("folder", store, how)
    items.groups = folder_classes(files)
    return items


def folder_classes(names: list[str]) -> list[str] | None:
    """Of images 'folder/.../file' their first folder, if that looks like a class.

    None where an image lies beside the folders, for one folder alone, and for folders of fewer than
    two images each on average.
    """
    first = [name.split("/", 1)[0] for name in names if "/" in name]
    different = len(set(first))
    if len(first) == len(names) and different > 1 and 2 * different <= len(names):
        return first
    return None


def _inspect(file: Encoded, every_frame: bool) -> Found:
    try:
        return survey_file(file, every_frame)
    except BROKEN_IMAGE as error:
        return reason(error)


# ------------------------------------------------------------------------------------------ parquet


def scan_parquet(files: list[Path], how: Reading) -> Items:
    """Images in a column of parquet files: binary, or the struct {bytes, path} of Hugging Face
    datasets.

    Rows are shuffled in training, and parquet can only be read in large groups: the encoded images
    are copied once, as they are, to a temporary file (in TMPDIR, as large as the column) that is
    read at random.
    Errors: VqkitError without pyarrow, without such a column, if a file is broken, or if it unpacks
    to more than data.max_bytes and twice its size.
    """
    arrow = pyarrow()
    survey = _Survey()
    ends: list[int] = []
    lengths: list[int] = []
    inspect = partial(_inspect, every_frame=how.config.frames == "all")
    path, file = temporary_file("parquet")
    try:
        with file, pillow_warnings():
            for source in files:
                start = file.tell()
                # Encoded images hardly shrink: what unpacks to many times its size was made to do
                # harm.
                limit = max(max_unpacked(how.config), 2 * source.stat().st_size)
                rows = _parquet_rows(source, arrow.parquet.ParquetFile, how.config)
                for row, content in enumerate(rows):
                    found: Found = "the row holds no bytes"
                    if content is not None:
                        found = inspect(content)
                    is_good = survey.add(f"{source.name}:{row}", found)
                    if not is_good or not content or isinstance(found, str):
                        continue
                    file.write(content)
                    lengths += [len(content)] * len(found.headers)
                    ends += [file.tell()] * len(found.headers)
                    if file.tell() - start > limit:
                        check_unpacked(file.tell() - start, str(source), how.config)
    except (arrow.ArrowException, OSError) as error:
        path.unlink(missing_ok=True)
        raise VqkitError(f"cannot read {source}: {reason(error)}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    last = np.array(ends, dtype=np.int64)
    store = BlobStore(path, last - np.array(lengths, dtype=np.int64), last, survey.frame_numbers())
    delete_with(store, path)
    return survey.items("parquet", store, how)


def _parquet_rows(path: Path, parquet_file: Any, config: DataConfig) -> Iterator[bytes | None]:
    with open_regular(path) as source, parquet_file(source) as table:
        column, nested = column_of_samples(path, table.schema_arrow, pyarrow())
        for group in range(table.num_row_groups):
            size = _column_bytes(table.metadata.row_group(group), column)
            check_unpacked(size, f"a row group of {path}", config)
            # A dictionary holds a value once, however many rows show it: each may be as large as
            # the whole group.
            rows = max(1, min(_CHUNK, max_unpacked(config) // max(1, size)))
            for batch in table.iter_batches(batch_size=rows, row_groups=[group], columns=[column]):
                values = batch.column(0)
                if nested:
                    values = values.field("bytes")
                for value in values:
                    yield value.as_py()


def _column_bytes(group: Any, column: str) -> int:
    """Unpacked size of a column in a group of rows, as the file says it."""
    size = 0
    for index in range(group.num_columns):
        part = group.column(index)
        if part.path_in_schema.split(".")[0] == column:
            size += part.total_uncompressed_size
    return size


# ------------------------------------------------------------------------------------------- shards


def scan_shards(source: str, how: Reading) -> Items | None:
    """The images of tar archives and parquet tables in a folder, a file, a pattern or a list of
    files, which stay where they are; None where there are none.

    What images are like, their range of values included, is that of some of them.
    """
    shards = [one for one in find_shards(source, is_image) if one.kind in ("tar", "parquet")]
    if not shards:
        return None
    store, bad = find_places(shards, is_image, how.progress)
    survey = _Survey()
    surveyed = evenly(store)
    with pillow_warnings():
        for index in surveyed:
            try:
                survey.add(store.names[index], survey_file(store.raw(index), False))
            except BROKEN_IMAGE as error:
                bad.append(BadFile(store.names[index], reason(error)))
    items = survey.items("shards", store, how)
    notes = [
        f"{len(store)} images in {len(shards)} shard{'' if len(shards) == 1 else 's'} are read as "
        f"training goes; sizes are those of {len(surveyed)} of them, and equal images may lie in "
        "different splits"
    ]
    if how.config.fit == "patches":
        notes.append("of each image the patch in its middle is used, at full resolution")
    return replace(
        items, names=store.names, bad=bad, files=None, full=None, notes=[*notes, *items.notes]
    )


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its suffix."""
    return path.suffix.lower() in image_suffixes()


def evenly(store: ShardStore) -> list[int]:
    """Numbers of images from all over shards, neighbours where they are read together."""
    starts = store.blocks[:-1]
    chosen = np.unique(np.linspace(0, len(starts) - 1, SURVEYED_BLOCKS).round().astype(int))
    ends = np.minimum(store.blocks[chosen + 1], starts[chosen] + TOGETHER)
    return [index for a, b in zip(starts[chosen], ends, strict=True) for index in range(a, b)]
