"""`open_images`: any supported source of images, surveyed, decoded, split and measured."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...config.base import section_of
from ...data.blocks import BlockOrder, ShardStore, split_blocks
from ...data.indexed import Found, IndexedDataset, Order
from ...data.names import MAX_BAD, BadFile, check_bad
from ...data.normalisation import Normalisation, measure
from ...data.splits import derive_seed, near, split, tie
from ...errors import VqkitError
from ...shapes import Shape
from . import bundled
from .arrays import (
    find_idx,
)
from .augment import apply, draw
from .config import AugmentConfig, DataConfig, NoiseConfig
from .cutting import cut_up
from .decoding import load, looks_of_arrays, with_digests
from .files import (
    BROKEN_IMAGE,
    Target,
    decode,
    pillow_warnings,
    reason,
)
from .look import Look, look_at_folder, look_at_images, look_at_shards
from .modes import is_grey
from .noise import add_noise
from .ranges import ValueRange
from .reading import ARCHIVES, PATCH_SIZE, TABLES, is_of_shards, read
from .stores import Items, Reading, Store

# Classes that a description counts.
MAX_NAMED = 100
# Training images that a streamed set is measured from.
_MEASURED = 2048
# Files of arrays, and what they may have in bytes to be looked at: they are read whole for it.
_ARRAYS = (".npy", ".npz")
_LARGE_ARRAY = 1 << 26
# Held-out images below which it is said that there are few.
FEW_IMAGES = 5


class ImageData(IndexedDataset):
    """An image set that is ready for batches.

    modes and sizes: Pillow modes and original sizes 'WxH' by count, of all files whose header can
    be read. value_range: what became 0 and 255 of values of more than 8 bits; None where there are
    none. notes: what a user should know about how the source was read, a sentence each. cut_from:
    of patches, how many images those of each split were cut from. pixels: (N, C, H, W) uint8 when
    in memory.
    """

    def __init__(
        self,
        name: str,
        items: Items,
        target: Target,
        pixels: torch.Tensor | None,
        settings: DataConfig,
    ) -> None:
        assert target.size is not None
        super().__init__(
            name,
            items.names,
            Shape(target.channels, target.size),
            captions=items.captions,
            groups=items.groups,
            bad=items.bad,
            num_workers=settings.num_workers,
        )
        self.kind = items.kind
        self.modes = items.modes
        self.sizes = {f"{width}x{height}": count for (height, width), count in items.sizes.items()}
        self.value_range = items.value_range
        self.notes = items.notes
        self.cut_from: dict[str, int] | None = None
        self.pixels = pixels
        self.settings = settings
        self._store = items.store if pixels is None else None
        self._target = target

    @property
    def in_memory(self) -> bool:
        return self.pixels is not None

    def read_good(self, ids: np.ndarray) -> Found:
        """What can be decoded, uint8 (B, C, H, W)."""
        if self.pixels is not None:
            return Found(ids, self.pixels.index_select(0, torch.from_numpy(ids)), None, [])
        images = torch.empty(len(ids), self.shape.channels, *self.shape.extent, dtype=torch.uint8)
        good: list[int] = []
        bad: list[BadFile] = []
        with pillow_warnings():
            for position, image in enumerate(self._read_all(ids)):
                if isinstance(image, BadFile):
                    bad.append(image)
                    continue
                images[len(good)] = image
                good.append(position)
        return Found(ids[good], images[: len(good)], None, bad)

    def augmented(
        self, values: torch.Tensor, size: int, generator: torch.Generator, rows: slice
    ) -> torch.Tensor:
        drawn = draw(size, self.settings.augment, generator)
        mine = drawn.rows(rows.start, rows.stop)
        return apply(values, mine, self.settings.interpolation)

    def noisy(self, values: torch.Tensor, names: Sequence[tuple[Any, ...]]) -> torch.Tensor | None:
        if not self.settings.noise.sigma:
            return None
        return add_noise(values, self.settings.noise, [derive_seed(*name) for name in names])

    def for_codes(self, augment: Mapping[str, Any]) -> ImageData:
        """VqkitError for what is no setting of data.augment."""
        hint = "see data.augment of the model's recipe"
        changes = section_of(AugmentConfig, augment, "augment", hint)
        data = copy.copy(self)
        update = {"augment": changes, "noise": NoiseConfig()}
        data.settings = self.settings.model_copy(update=update)
        return data

    def report_bad(self, found: BadFile) -> None:
        """VqkitError once more than 5 % of all files are bad."""
        if found not in self.bad:
            self.bad.append(found)
            check_bad(self.name, self.bad, len(self), MAX_BAD)

    def order(self, seed: int) -> Order | BlockOrder:
        if isinstance(self._store, ShardStore):
            return BlockOrder(self.splits["train"], self._store, seed)
        return super().order(seed)

    def _read_all(self, ids: np.ndarray) -> Iterator[torch.Tensor | BadFile]:
        """By as many threads as PyTorch has here, which is one in a worker: while a batch is read
        in the process that trains, its cores have nothing else to do.
        """
        threads = min(torch.get_num_threads(), len(ids))
        if threads < 2:
            return map(self._read_one, ids.tolist())
        parts = np.array_split(ids, threads)
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(lambda part: [self._read_one(index) for index in part.tolist()], parts)
            return chain.from_iterable(found)

    def _read_one(self, index: int) -> torch.Tensor | BadFile:  # (C, H, W) uint8
        assert self._store is not None
        return _decode(self._store, self._target, self.names, index)

    def notes_in_words(self) -> list[str]:
        return [*self.notes, *self.range_in_words(), *self._splits_in_words()]

    def _splits_in_words(self) -> list[str]:
        """A sentence on what cannot be judged, where few images or none are held out."""
        counts = self.cut_from or {name: len(ids) for name, ids in self.splits.items()}
        validation = counts["validation"]
        test = counts["test"]
        if not validation and not test:
            return [
                "no image is held out: figures will be of images that were trained on, and whether "
                "the model memorises them cannot be judged"
            ]
        if not any(0 < held_out < FEW_IMAGES for held_out in (validation, test)):
            return []
        train = counts["train"]
        return [
            f"{train} image{'' if train == 1 else 's'} to train on, {validation} held out for "
            f"validation and {test} for test: figures of so few may be chance"
        ]

    def range_in_words(self) -> list[str]:
        """A sentence on what became black and white, where values have more than 8 bits.

        Else none.
        """
        if self.value_range is None:
            return []
        how = "found from all images; data.value_range=[low, high] sets another"
        if self.value_range.chosen:
            how = "as set"
        return [
            f"values from {self.value_range.low:g} to {self.value_range.high:g} become black to "
            f"white ({how})"
        ]

    def describe(self) -> dict[str, Any]:
        """Counts, sizes, modes, bad files, splits and channel statistics.

        Plain values that JSON can hold.
        """
        description: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "images": len(self),
            "size": list(self.shape.extent),
            "channels": self.shape.channels,
            "in_memory": self.in_memory,
            "sizes": _commonest_first(self.sizes),
            "modes": _commonest_first(self.modes),
        }
        if self.value_range:
            description["value_range"] = [self.value_range.low, self.value_range.high]
        if self.groups:
            description["classes"] = dict(Counter(self.groups).most_common(MAX_NAMED))
        description["bad"] = [dataclasses.asdict(bad) for bad in self.bad]
        description["splits"] = {name: len(ids) for name, ids in self.splits.items()}
        if self.cut_from:
            description["cut_from"] = self.cut_from
        description["normalisation"] = self.normalisation.to_dict()
        return description


def _commonest_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def open_images(
    source: str | Path,
    config: DataConfig,
    seed: int,
    normalisation: Normalisation | None = None,
    value_range: ValueRange | None = None,
    *,
    max_bad: float = MAX_BAD,
    progress: Callable[[float], None] | None = None,
) -> ImageData:
    """Images of a built-in set (emoji, fashion-mnist, digits) or of a path, decided by what lies
    there.

    Paths: a folder (recursive), one image (cut into patches), IDX (a file or the folder of MNIST),
    .npy, .npz, .parquet (a file or a folder of them). A file called like a built-in set is reached
    with a separator: ./emoji. Images whose decoded pixels are equal never lie in different splits,
    whatever files they come from.
    seed: of the splits. normalisation, value_range: of a trained model that is used; else they are
    measured, on the train split and the whole set. max_bad: share of bad files from which on
    nothing is opened. progress: called with the share that is done, from 0 to 1, once for the
    headers and once for the pixels.
    Errors: VqkitError with one sentence that says what is wrong and what to do.
    """
    name = str(source)
    items = read(source, _reading(config, normalisation, value_range, progress))
    if len(items.store) == 0 and not items.bad:
        raise VqkitError(f"{name} holds no images")
    if len(items.store) == 0:
        max_bad = min(max_bad, MAX_BAD)
    check_bad(name, items.bad, len(items.store), max_bad)
    target = _target(name, items, config)
    shares = (config.validation, config.test)
    if isinstance(items.store, ShardStore):
        data = ImageData(name, items, target, None, config)
        data.splits = split_blocks(items.store, seed, shares)
    else:
        pixels, items = _decoded(name, items, target, config, max_bad, progress)
        assert items.digests is not None and items.keys is not None
        data = ImageData(name, items, target, pixels, config)
        data.splits = split(items.digests, items.keys, seed, shares, items.fixed_test)
    if items.cut_from is not None:
        data.cut_from = {
            name: len(np.unique(items.cut_from[ids])) for name, ids in data.splits.items()
        }
    data.normalisation = normalisation or _measure(data)
    if len(data.normalisation.mean) != data.shape.channels:
        have = len(data.normalisation.mean)
        raise VqkitError(
            f"the normalisation has {have} channels, the images have {data.shape.channels}; set "
            f"data.channels={have}"
        )
    return data


def look_at(source: str | Path) -> Look | None:
    """A look at a folder of images or a small array of them; None of anything else, and of what
    cannot be read.
    """
    path = Path(source).expanduser()
    is_built_in = isinstance(source, str) and source in bundled.NAMES
    is_array = path.suffix.lower() in _ARRAYS or path.is_dir() and find_idx(path) is not None
    try:
        if not is_built_in and is_of_shards(path, ARCHIVES | TABLES):
            return look_at_shards(path)
        if not is_built_in and not is_array:
            return look_at_folder(path) if path.is_dir() else None
        if not is_built_in and _num_bytes(path) > _LARGE_ARRAY:
            return None
        items = read(source, _reading(DataConfig(), None, None, None))
    except (VqkitError, OSError):
        return None
    if not len(items.store):
        return None
    return look_at_images(len(items.store), next(iter(items.sizes)), items.store.raw)


def _num_bytes(path: Path) -> int:
    """Of a file, or of those right in a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def bad_files(
    source: str | Path, config: DataConfig, progress: Callable[[float], None] | None = None
) -> tuple[list[BadFile], int]:
    """All files of a source that cannot be used, each decoded, and the number of images that can
    be.

    Needs no size that is common to the images, no least number of them and no largest share of bad
    files.
    """
    items = read(source, _reading(config, None, None, progress))
    target = Target(None, 4, value_range=items.value_range)
    if items.digests is None:
        items, _ = with_digests(items, target, config, progress)
    return items.bad, len(items.names)


def _reading(
    config: DataConfig,
    normalisation: Normalisation | None,
    value_range: ValueRange | None,
    progress: Callable[[float], None] | None,
) -> Reading:
    if value_range is None and config.value_range is not None:
        value_range = ValueRange(*config.value_range, chosen=True)
    return Reading(config, value_range, find_range=normalisation is None, progress=progress)


def _decoded(
    name: str,
    items: Items,
    target: Target,
    config: DataConfig,
    max_bad: float,
    progress: Callable[[float], None] | None,
) -> tuple[torch.Tensor | None, Items]:
    """Pixels where they fit into memory, and the items, with digests and keys, of the files that
    can be decoded.
    """
    assert target.size is not None

    def keys_of(items: Items, looks: np.ndarray) -> np.ndarray:
        return _keys(items, looks, config)

    is_cut = target.fit == "patches" and set(items.sizes) != {target.size}
    if is_cut:
        items = cut_up(items, target, config, keys_of, progress)
        assert items.keys is not None
        check_bad(name, items.bad, len(np.unique(items.keys, axis=0)), max_bad)
    pixels = None
    looks = np.empty(0, np.uint64)
    height, width = target.size
    num_bytes = len(items.store) * target.channels * height * width
    if num_bytes <= config.max_memory_mb << 20:
        pixels, items, looks = load(items, target, config, progress)
    elif items.digests is None:
        items, looks = with_digests(items, target, config, progress)
    elif config.near_duplicates and not is_cut:
        looks = looks_of_arrays(items.store)
    check_bad(name, items.bad, len(items.names), max_bad)
    # Those of patches were found while they were cut.
    if not is_cut:
        items = dataclasses.replace(items, keys=keys_of(items, looks))
    return pixels, items


def _keys(items: Items, looks: np.ndarray, config: DataConfig) -> np.ndarray:  # (N, 16) uint8
    """What must not be torn apart: equal pixels, images of one file and, if wanted, near
    duplicates.
    """
    keys = items.digests if items.keys is None else items.keys
    assert keys is not None
    labels = []
    if items.files is not None:
        labels.append(items.files)
    num_different = len(np.unique(keys, axis=0))
    copies = len(keys) - num_different
    if copies and items.keys is None:
        verb = "image has" if copies == 1 else "images have"
        items.notes.append(f"{copies} {verb} the pixels of another one, in the same split")
    if config.near_duplicates:
        alike = near(looks)
        labels.append(alike)
        together = num_different - len(np.unique(tie(keys, [alike]), axis=0))
        verb = "image looks" if together == 1 else "images look"
        items.notes.append(f"{together} {verb} like another one, in the same split")
    return tie(keys, labels)


def _target(name: str, items: Items, config: DataConfig) -> Target:
    """Size and channels from the settings, or from what the files are."""
    channels = config.channels
    if channels is None:
        grey = sum(count for mode, count in items.modes.items() if is_grey(mode))
        channels = 1 if 2 * grey > sum(items.modes.values()) else 3
    size = config.image_size
    if size is None and items.kind == "image":
        size = PATCH_SIZE
    if size is None:
        if len(items.sizes) > 1:
            common = sorted(items.sizes, key=lambda key: -items.sizes[key])
            seen = ", ".join(f"{width}x{height}" for height, width in common[:3])
            if len(common) > 3:
                seen += ", ..."
            raise VqkitError(
                f"the images of {name} have {len(items.sizes)} different sizes (width x height: "
                f"{seen}); say which one the model shall see: set data.image_size=[64, 64], height "
                "first"
            )
        size = next(iter(items.sizes))
    return Target(
        size,
        channels,
        config.background,
        config.fit,
        config.interpolation,
        value_range=items.value_range,
    )


def _decode(
    store: Store, target: Target, names: Sequence[str], index: int
) -> torch.Tensor | BadFile:
    try:
        return torch.from_numpy(decode(store.raw(index), target)).permute(2, 0, 1)
    except BROKEN_IMAGE as error:
        return BadFile(names[index], reason(error))


def _measure(data: ImageData) -> Normalisation:
    train = data.splits["train"]
    if not data.in_memory:
        train = train[:_MEASURED]

    def batches() -> Iterator[torch.Tensor]:
        for start in range(0, len(train), 256):
            if data.in_memory:
                yield data.read(train[start : start + 256]).values
                continue
            found = data.read_good(train[start : start + 256])
            for bad in found.bad:
                data.report_bad(bad)
            yield found.values

    try:
        return measure(batches(), data.shape.channels)
    except VqkitError as error:
        raise VqkitError(f"{data.name}: {error}") from error
