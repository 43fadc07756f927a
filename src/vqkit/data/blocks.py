"""Samples of tar archives and parquet tables, read where they lie while a model is trained.

A block is a run of samples that are read together: members of an archive that follow one another,
or a group of rows of a table. Blocks are put in a random order and mixed a window at a time, as a
whole set of terabytes cannot be (the block shuffle of MosaicML Streaming; WebDataset's shuffle
buffer without its state: here a step says which samples it has). What is kept of a sample is a
place, 4 bytes of an archive and none of a table, and its number in the splits, 4 bytes.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from ..errors import VqkitError
from ..files import open_regular
from ..machine import give_back_memory, num_cores
from ..tables import check_group, pyarrow
from .names import BadFile, Names
from .shards import (
    MAX_CONTENT,
    SourceShard,
    by_suffix,
    check_end,
    column_of_samples,
    key_of,
    plain,
)
from .splits import derive_seed, digest

# Members of an archive that are one block.
TOGETHER = 64
# Blocks that are mixed, and bytes of them: a worker that reads tables holds as much.
WINDOW_BLOCKS = 64
WINDOW_BYTES = 1 << 28
# Bytes of a record of tar, at whose multiples everything begins.
RECORD = tarfile.BLOCKSIZE
# Of an archive, up to which places of samples can be kept: 2 TiB.
MOST_BYTES = RECORD << 32
# Samples that are held out of a set however large it is.
MOST_HELD_OUT = 10_000
_BROKEN_ARCHIVE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)


@dataclass(frozen=True)
class Part:
    """A shard's places.

    starts: first sample of each of its blocks, and the number of all, (M + 1,). sizes: bytes of
    each block, (M,). records: of an archive, the record of tar in which each sample begins, (N,)
    uint32; the record before it is its header. A table has none: its samples lie in `column`, which
    is a struct that has them as `bytes` or not.
    """

    path: Path
    name: str
    starts: np.ndarray
    sizes: np.ndarray
    records: np.ndarray
    column: str = ""
    is_struct: bool = False


class ShardStore:
    """Random access to the samples of shards, by any thread, which is fast for those of few blocks
    at a time.

    Groups of rows that were read last are kept, as many bytes as a window has; processes that it
    travels to have their own. blocks: first sample of each block, and the number of all, (M + 1,).
    sizes: bytes of each block, (M,). names: 'shard:number', (N,).
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = list(parts)
        counts = [int(part.starts[-1]) for part in parts]
        self._first = np.cumsum([0, *counts], dtype=np.int64)
        shifted = [
            part.starts[:-1] + first for part, first in zip(parts, self._first, strict=False)
        ]
        self.blocks = np.concatenate([*shifted, self._first[-1:]]).astype(np.int64)
        self.sizes = np.concatenate([part.sizes for part in parts]).astype(np.int64)
        self.names = ShardNames([part.name for part in parts], self._first)
        self._groups: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_groups": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock())

    def raw(self, index: int) -> bytes:
        """The bytes of a sample. OSError or ValueError where they cannot be read."""
        number = int(np.searchsorted(self._first, index, "right")) - 1
        part = self._parts[number]
        row = index - int(self._first[number])
        if not part.column:
            return _member(part, row)
        block = int(np.searchsorted(part.starts, row, "right")) - 1
        with self._lock:
            group = self._group(number, block)
        value = group[row - int(part.starts[block])].as_py()
        if value is None:
            raise ValueError("the row holds no bytes")
        return value

    def _group(self, number: int, block: int) -> Any:
        key = (number, block)
        if key in self._groups:
            self._groups.move_to_end(key)
            return self._groups[key]
        values = _read_group(self._parts[number], block)
        self._groups[key] = values
        while len(self._groups) > 1 and sum(v.nbytes for v in self._groups.values()) > WINDOW_BYTES:
            self._groups.popitem(last=False)
        return values


class ShardNames(Names):
    """'shard:0', 'shard:1', ...: the samples of shards that begin at `first`, (shards + 1,)."""

    def __init__(self, shards: list[str], first: np.ndarray) -> None:
        self._shards = shards
        self._first = first

    def __len__(self) -> int:
        return int(self._first[-1])

    def at(self, position: int) -> str:
        number = int(np.searchsorted(self._first, position, "right")) - 1
        return f"{self._shards[number]}:{position - int(self._first[number])}"


def find_places(
    shards: Sequence[SourceShard],
    is_item: Callable[[Path], bool],
    progress: Callable[[float], None] | None = None,
) -> tuple[ShardStore, list[BadFile]]:
    """Where the samples of archives and tables lie, by the headers of members and of tables alone;
    and what cannot be used.

    is_item: whether a member is a sample, by its suffix. VqkitError for compressed archives, for
    tables without a column of samples or with too large groups of rows, and where nothing is left.
    """
    parts = []
    bad: list[BadFile] = []
    with ThreadPoolExecutor(min(8, num_cores())) as pool:
        found = pool.map(lambda shard: _places(shard, is_item), shards)
        for done, (part, failures) in enumerate(found, 1):
            bad += failures
            if part is not None and part.starts[-1]:
                parts.append(part)
            if progress:
                progress(done / len(shards))
    if not parts:
        reason = f" ({bad[0].name}: {bad[0].reason})" if bad else ""
        raise VqkitError(f"none of {len(shards)} shards holds a sample{reason}")
    parts = _packed(parts)
    # Of large sets, what was found on the way here is larger than what is kept of it.
    give_back_memory()
    return ShardStore(parts), bad


def _packed(parts: Sequence[Part]) -> list[Part]:
    """The same in arrays of this thread, the places of all archives in one: small arrays of the
    threads of a pool keep all pages around them.
    """
    ends = np.cumsum([len(part.records) for part in parts])
    records = np.split(np.concatenate([part.records for part in parts]), ends[:-1])
    return [
        replace(part, starts=part.starts.copy(), sizes=part.sizes.copy(), records=own)
        for part, own in zip(parts, records, strict=True)
    ]


def _places(
    shard: SourceShard, is_item: Callable[[Path], bool]
) -> tuple[Part | None, list[BadFile]]:
    if shard.kind == "tar":
        return _places_in_archive(shard, is_item)
    return _places_in_table(shard)


# --------------------------------------------------------------------------------- splits and order


def split_blocks(
    store: ShardStore, seed: int, shares: tuple[float, float]
) -> dict[str, np.ndarray]:
    """Numbers of the samples of train (int32 where these are enough), validation and test (int64):
    whole blocks, in the order of sha256(seed, name of the first sample).

    shares: of the samples, for validation and for test; MOST_HELD_OUT of each at most, and one
    block at least where a share is above 0. VqkitError where nothing is left to train on.
    """
    salt = f"vqkit blocks {seed}:".encode()
    starts = store.blocks
    ranks = [digest(salt, store.names[int(first)].encode()) for first in starts[:-1]]
    order = np.array(sorted(range(len(ranks)), key=ranks.__getitem__), dtype=np.int64)
    held = np.cumsum(np.diff(starts)[order])
    found = {}
    begin = 0
    for name, share in zip(("test", "validation"), reversed(shares), strict=True):
        wanted = min(share * len(store), MOST_HELD_OUT)
        before = int(held[begin - 1]) if begin else 0
        end = begin
        if share > 0:
            end = int(np.searchsorted(held, before + wanted, "left")) + 1
        found[name] = _numbers(starts, order[begin:end])
        begin = end
    if begin >= len(order):
        raise VqkitError(
            f"{len(store)} samples are too few for validation, test and training, each of which "
            f"has whole blocks of them, and there are {len(order)}: unpack archives, and read "
            "tables without data.stream, or write them with smaller groups of rows"
        )
    small = np.int32 if len(store) <= np.iinfo(np.int32).max else np.int64
    train = _numbers(starts.astype(small), order[begin:])
    give_back_memory()
    return {"train": train, "validation": found["validation"], "test": found["test"]}


def _numbers(starts: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    parts = [np.arange(starts[block], starts[block + 1], dtype=starts.dtype) for block in blocks]
    return np.concatenate([np.empty(0, starts.dtype), *parts])


class BlockOrder:
    """Which training sample is seen when, of samples `ids` that come block by block: blocks in an
    order drawn from (seed, epoch), and as many of them as a window holds mixed by (seed, epoch, its
    first sample).

    Like `Order`, epochs follow one another without a gap.
    """

    def __init__(self, ids: np.ndarray, store: ShardStore, seed: int) -> None:
        block = np.searchsorted(store.blocks, ids, "right") - 1
        first = np.flatnonzero(np.diff(block, prepend=-1))
        self._ids = ids
        self._seed = seed
        # Of each block: where it begins in `ids`, how many samples and how many bytes it has.
        self._starts = first
        self._counts = np.diff(np.append(first, len(ids)))
        self._sizes = store.sizes[block[first]]
        self._epoch = -1
        self._windows: list[np.ndarray] = []
        self._begins = np.zeros(1, np.int64)
        self._window = -1
        self._mixed = ids

    def positions(self, start: int, stop: int) -> np.ndarray:  # (stop - start,) int64
        """Numbers of the samples start..stop since the beginning of training."""
        parts = []
        while start < stop:
            epoch, offset = divmod(start, len(self._ids))
            self._go_to(epoch, offset)
            inside = offset - int(self._begins[self._window])
            taken = self._mixed[inside : inside + stop - start]
            parts.append(taken)
            start += len(taken)
        return np.concatenate(parts).astype(np.int64)

    def _go_to(self, epoch: int, offset: int) -> None:
        if epoch != self._epoch:
            self._epoch = epoch
            self._window = -1
            self._windows = list(self._cut(self._drawn(len(self._counts), epoch)))
            lengths = [int(self._counts[window].sum()) for window in self._windows]
            self._begins = np.cumsum([0, *lengths], dtype=np.int64)
        window = int(np.searchsorted(self._begins, offset, "right")) - 1
        if window == self._window:
            return
        self._window = window
        blocks = self._windows[window]
        ends = self._starts[blocks] + self._counts[blocks]
        runs = [self._ids[a:b] for a, b in zip(self._starts[blocks], ends, strict=True)]
        samples = np.concatenate(runs)
        self._mixed = samples[self._drawn(len(samples), epoch, int(self._begins[window]))]

    def _cut(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """Blocks in their order, cut into windows."""
        begin = 0
        size = 0
        for place, block in enumerate(order.tolist()):
            size += int(self._sizes[block])
            if place > begin and (size > WINDOW_BYTES or place - begin == WINDOW_BLOCKS):
                yield order[begin:place]
                begin = place
                size = int(self._sizes[block])
        yield order[begin:]

    def _drawn(self, count: int, *place: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(derive_seed("blocks", self._seed, *place))
        return torch.randperm(count, generator=generator).numpy()


# ----------------------------------------------------------------------------------------- archives


def _places_in_archive(
    shard: SourceShard, is_item: Callable[[Path], bool]
) -> tuple[Part, list[BadFile]]:
    path = Path(shard.root) / shard.name
    places: list[int] = []
    lengths: list[int] = []
    bad = []
    last = None
    is_sample = by_suffix(is_item)
    with open_regular(path) as file:
        try:
            # "r:" is a tar that is not compressed: only there has a member a place.
            with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as archive:
                for member in archive:
                    # Otherwise an archive remembers all of its members.
                    archive.members = []  # type: ignore[attr-defined]
                    key, suffix = key_of(member.name)
                    if suffix is None or not is_sample(suffix):
                        continue
                    if not member.isreg() or member.issparse() or key == last:
                        continue
                    if member.size > MAX_CONTENT:
                        bad.append(BadFile(plain(member.name), "it holds too many bytes"))
                        continue
                    if "size" in member.pax_headers or member.offset_data >= MOST_BYTES:
                        # Where it is read, its size is taken from its header, and its place is kept
                        # in 32 bits.
                        bad.append(BadFile(plain(member.name), "its place or size is too large"))
                        continue
                    places.append(member.offset_data)
                    lengths.append(member.size)
                    last = key
                check_end(archive)
        except _BROKEN_ARCHIVE as error:
            if path.suffix.lower() in (".gz", ".tgz"):
                raise VqkitError(
                    f"{path} is compressed, and its samples have no places of their own; unpack it "
                    "with gunzip to train from it"
                ) from error
            bad.append(BadFile(plain(shard.name), f"damaged from here on: {error}"))
        size = os.fstat(file.fileno()).st_size
    whole = [place + length <= size for place, length in zip(places, lengths, strict=True)]
    records = (np.array(places, dtype=np.int64)[whole] // RECORD).astype(np.uint32)
    starts = np.array([*range(0, len(records), TOGETHER), len(records)], dtype=np.int64)
    length = np.array(lengths, dtype=np.int64)[whole]
    sizes = np.add.reduceat(length, starts[:-1]) if len(records) else starts[:0]
    return Part(path, plain(shard.name), starts, sizes, records), bad


def _member(part: Part, row: int) -> bytes:
    place = RECORD * int(part.records[row])
    with open_regular(part.path) as file:
        header = os.pread(file.fileno(), RECORD, place - RECORD)
        try:
            # Octal digits (POSIX.1, ustar); tarfile would check all of the header for every sample.
            length = int(header[124:136].strip(b" \0"), 8)
        except ValueError as error:
            raise ValueError("the archive has changed, and has no header here") from error
        if not 0 <= length <= MAX_CONTENT:
            raise ValueError("it holds too many bytes")
        content = os.pread(file.fileno(), length, place)
    if len(content) != length:
        raise ValueError("the archive ends inside of it")
    return content


# ------------------------------------------------------------------------------------------- tables


def _places_in_table(shard: SourceShard) -> tuple[Part | None, list[BadFile]]:
    arrow = pyarrow()
    path = Path(shard.root) / shard.name
    try:
        with open_regular(path) as file, arrow.parquet.ParquetFile(file) as table:
            column, is_struct = column_of_samples(path, table.schema_arrow, arrow)
            counts = [0]
            sizes = []
            for number in range(table.num_row_groups):
                group = table.metadata.row_group(number)
                sizes.append(check_group(path, group, [column]))
                counts.append(group.num_rows)
    except (arrow.ArrowException, OSError) as error:
        return None, [BadFile(plain(shard.name), " ".join(str(error).split()))]
    starts = np.cumsum(counts, dtype=np.int64)
    bytes_of = np.array(sizes, dtype=np.int64)
    none = np.empty(0, np.uint32)
    return Part(path, plain(shard.name), starts, bytes_of, none, column, is_struct), []


def _read_group(part: Part, block: int) -> Any:
    arrow = pyarrow()
    try:
        with open_regular(part.path) as file, arrow.parquet.ParquetFile(file) as table:
            values = table.read_row_group(block, columns=[part.column]).column(0)
    except arrow.ArrowException as error:
        raise ValueError(" ".join(str(error).split())) from error
    if part.is_struct:
        return arrow.compute.struct_field(values, "bytes")
    return values
