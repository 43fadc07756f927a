"""`open_arrays`: arrays of a folder or a file, cut into items, split and measured."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ...data.indexed import Found, IndexedDataset
from ...data.names import MAX_BAD, BadFile, PackedStrings, check_bad
from ...data.splits import digest, pack, split
from ...errors import VqkitError
from ...shapes import Shape
from ..paths import files_below
from .config import SeriesData, VolumeData
from .files import BadArray, Numbers, Target, read

# Files from which on whole files go to one split; of fewer, parts of them do.
ENOUGH_FILES = 20
# Items along the first axis of such a part, at most.
PART_ITEMS = 8
MIB = 1 << 20


class Segment(NamedTuple):
    """What stays in one split: an array (C, *extent), its name and its content."""

    name: str
    values: Numbers
    content: bytes


@dataclasses.dataclass(frozen=True)
class Scale:
    """Mean and deviation of every channel over the training set, in the units of files."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Scale:
        """That of a model. VqkitError where its data section has none."""
        try:
            scale = data["scale"]
            return cls(tuple(map(float, scale["mean"])), tuple(map(float, scale["std"])))
        except (KeyError, TypeError, ValueError) as error:
            raise VqkitError("the artifact does not say the scale of its channels") from error

    def standardised(self, values: Numbers) -> Numbers:
        """(C, *extent) in deviations, 0 where a value is missing."""
        mean, std = self._like(values)
        return np.nan_to_num((values.astype(np.float64) - mean) / std).astype(np.float32)

    def restored(self, values: Numbers) -> Numbers:
        """The way back."""
        mean, std = self._like(values)
        return (values.astype(np.float64) * std + mean).astype(np.float32)

    def _like(self, values: Numbers) -> tuple[np.ndarray, np.ndarray]:
        shape = (-1, *[1] * (values.ndim - 1))
        return np.array(self.mean).reshape(shape), np.array(self.std).reshape(shape)


class ArrayData(IndexedDataset):
    """Items of arrays, cut out at regular places.

    owners (N,), starts (N, dims) int64: of every item its segment, and where in that it begins.
    """

    in_memory = True

    def __init__(
        self,
        name: str,
        segments: list[Segment],
        extent: tuple[int, ...],
        bad: list[BadFile],
        settings: SeriesData | VolumeData,
    ) -> None:
        self.segments = segments
        self.settings = settings
        self.notes: list[str] = []
        owners: list[int] = []
        starts: list[tuple[int, ...]] = []
        for owner, segment in enumerate(segments):
            for start in _places(segment.values.shape[1:], extent, settings.overlap):
                owners.append(owner)
                starts.append(start)
        self.owners = np.array(owners, np.int64)
        self.starts = np.array(starts, np.int64).reshape(len(owners), len(extent))
        names = []
        for owner, start in zip(owners, starts, strict=True):
            names.append(f"{segments[owner].name}@{','.join(map(str, start))}")
        channels = len(segments[0].values)
        super().__init__(name, PackedStrings(names), Shape(channels, extent), bad=bad)
        self.scale = Scale((0.0,) * channels, (1.0,) * channels)
        self.normalisation = dataclasses.replace(self.normalisation, levels=None)

    def apart(self, name: str) -> np.ndarray:
        ids = self.splits[name]
        return ids[(self.starts[ids] % np.array(self.shape.extent) == 0).all(1)]

    def read_good(self, ids: np.ndarray) -> Found:
        extent = self.shape.extent
        values = np.zeros((len(ids), self.shape.channels, *extent), np.float32)
        known = torch.zeros(values.shape, dtype=torch.bool)
        for row, index in enumerate(ids.tolist()):
            array = self.segments[self.owners[index]].values
            there = []
            here = []
            for start, side, whole in zip(
                self.starts[index].tolist(), extent, array.shape[1:], strict=True
            ):
                there.append(slice(start, min(start + side, whole)))
                here.append(slice(0, min(side, whole - start)))
            part = array[(slice(None), *there)]
            values[row][(slice(None), *here)] = self.scale.standardised(part)
            known[row][(slice(None), *here)] = torch.from_numpy(~np.isnan(part))
        # A position is real where any of its channels is known.
        mask = known.any(1)
        return Found(
            ids,
            torch.from_numpy(values),
            None if mask.all() else mask,
            [],
            None if (known == mask[:, None]).all() else known,
        )

    def notes_in_words(self) -> list[str]:
        return self.notes

    def describe(self) -> dict[str, Any]:
        settings = self.settings
        # How files are written: as they were read.
        axes: dict[str, Any]
        if isinstance(settings, SeriesData):
            axes = {"layout": settings.layout}
        else:
            axes = {"has_channels": settings.has_channels}
        return {
            "name": self.name,
            "images": len(self),
            "arrays": len(self.segments),
            **axes,
            "size": list(self.shape.extent),
            "channels": self.shape.channels,
            "bad": [dataclasses.asdict(bad) for bad in self.bad],
            "splits": {name: len(ids) for name, ids in self.splits.items()},
            "normalisation": self.normalisation.to_dict(),
            "scale": {"mean": list(self.scale.mean), "std": list(self.scale.std)},
        }

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint, "scale": dataclasses.asdict(self.scale)}


def open_arrays(
    source: str | Path,
    target: Target,
    suffixes: Sequence[str],
    extent: tuple[int, ...],
    seed: int,
    *,
    data: Mapping[str, Any] | None = None,
    max_bad: float = MAX_BAD,
    progress: Callable[[float], None] | None = None,
) -> ArrayData:
    """Arrays of a file or a folder and all below it, as items of that extent.

    data: of a trained model that is used on them. VqkitError with one sentence that says what is
    wrong and what to do.
    """
    settings = target.settings
    arrays, bad = _read_all(source, target, suffixes, progress)
    check_bad(str(source), bad, len(arrays), max_bad)
    segments = arrays if len(arrays) >= ENOUGH_FILES else list(_in_parts(arrays, extent[0]))
    found = ArrayData(str(source), segments, extent, bad, settings)
    _split(found, seed)
    if data is None:
        found.scale = _measured(segments[owner] for owner in _trained_on(found))
    else:
        found.scale = Scale.of(data)
    found.notes = _notes(found, arrays)
    return found


def _read_all(
    source: str | Path,
    target: Target,
    suffixes: Sequence[str],
    progress: Callable[[float], None] | None,
) -> tuple[list[Segment], list[BadFile]]:
    root = Path(source).expanduser()
    if not root.exists():
        raise VqkitError(f"there is no file or folder {source}")
    paths = (
        files_below(root, lambda path: path.suffix.lower() in suffixes) if root.is_dir() else [root]
    )
    if not paths:
        raise VqkitError(f"{source} holds no arrays: files of {', '.join(suffixes)}")
    found: list[Segment] = []
    bad: list[BadFile] = []
    limit = target.settings.max_memory_mb * MIB
    size = 0
    for number, path in enumerate(paths, 1):
        name = str(path.relative_to(root)) if root.is_dir() else path.name
        try:
            values = read(path, target)
        except BadArray as error:
            bad.append(BadFile(name, str(error)))
            continue
        # The first one that can be read says how many channels there are.
        target = target._replace(channels=len(values))
        size += values.nbytes
        if size > limit:
            raise VqkitError(
                f"the arrays of {source} take more than data.max_memory_mb="
                f"{target.settings.max_memory_mb}: raise it, or take fewer files"
            )
        found.append(Segment(name, values, digest(values.tobytes())))
        if progress:
            progress(number / len(paths))
    if not found:
        raise VqkitError(
            f"{source} holds no array that can be used: {bad[0].name}: {bad[0].reason}"
        )
    return found, bad


def _in_parts(arrays: Iterable[Segment], length: int) -> Iterator[Segment]:
    """Arrays cut along their first axis, each part of whole items but the last."""
    arrays = list(arrays)
    count = sum(-(-array.values.shape[1] // length) for array in arrays)
    side = length * min(PART_ITEMS, max(1, count // ENOUGH_FILES))
    for array in arrays:
        for number, start in enumerate(range(0, array.values.shape[1], side)):
            values = array.values[:, start : start + side]
            yield Segment(f"{array.name}#{number}", values, digest(values.tobytes()))


def _places(
    whole: tuple[int, ...], extent: tuple[int, ...], overlap: int
) -> Iterator[tuple[int, ...]]:
    """Where items begin along every axis: at about each `overlap`-th part of an item, and at those
    that are measured, one behind the other.
    """
    sides = []
    for length, side in zip(whole, extent, strict=True):
        # An odd step, so that items begin anywhere within the pieces that become one position.
        step = max(1, side // overlap) | 1
        whole_ones = np.arange(0, max(1, length - side + 1), step)
        sides.append(np.union1d(whole_ones, np.arange(0, length, side)).tolist())
    return itertools.product(*sides)


def _split(data: ArrayData, seed: int) -> None:
    keys = pack([segment.content for segment in data.segments])
    shares = (data.settings.validation, data.settings.test)
    of_segments = split(keys, keys, seed, shares)
    for name, ids in of_segments.items():
        rank = np.full(len(data.segments), -1)
        rank[ids] = np.arange(len(ids))
        is_here = rank[data.owners] >= 0
        if name != "train":
            is_here &= (data.starts % np.array(data.shape.extent) == 0).all(1)
        items = np.flatnonzero(is_here)
        order = np.argsort(rank[data.owners[items]], kind="stable")
        data.splits[name] = items[order].astype(np.int64)


def _trained_on(data: ArrayData) -> list[int]:
    return np.unique(data.owners[data.splits["train"]]).tolist()


def _measured(segments: Iterable[Segment]) -> Scale:
    """Mean and deviation of every channel, without what is missing. VqkitError where nothing
    changes.
    """
    counts: Any = 0.0
    sums: Any = 0.0
    squares: Any = 0.0
    shift: Any = None
    for segment in segments:
        flat = segment.values.reshape(len(segment.values), -1).astype(np.float64)
        if shift is None:
            # Large values that hardly differ leave few bits for their squares.
            shift = np.nan_to_num(np.nanmean(flat, 1, keepdims=True))
        flat = flat - shift
        counts = counts + (~np.isnan(flat)).sum(1)
        sums = sums + np.nansum(flat, 1)
        squares = squares + np.nansum(flat**2, 1)
    known = np.maximum(counts, 1)
    mean = sums / known
    std = np.sqrt(np.maximum(squares / known - mean**2, 0.0))
    if not (std > 0).any():
        raise VqkitError("the training items are constant: every value of a channel is the same")
    std = np.where(std > 0, std, 1.0)
    return Scale(tuple((mean + shift[:, 0]).tolist()), tuple(std.tolist()))


def _notes(data: ArrayData, arrays: Sequence[Segment]) -> list[str]:
    missing = sum(int(np.isnan(one.values).sum()) for one in arrays)
    total = sum(one.values.size for one in arrays)
    notes = []
    if missing:
        notes.append(
            f"{missing} of {total} values are missing: what is measured and learned leaves them out"
        )
    if len(arrays) < ENOUGH_FILES:
        notes.append(f"{len(arrays)} files are few: parts of one file are in different splits")
    return notes
