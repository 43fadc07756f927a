"""`open_images`: any supported source of pictures, surveyed, split and measured."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..config import DataConfig
from ..errors import VqkitError
from . import bundled
from .arrays import array_items, find_idx, read_idx, read_idx_folder, read_npy, read_npz
from .cutting import cut_up
from .images import Target, decode, is_grey, load_picture, patches, picture_suffixes, pillow_warnings, probe, reason
from .normalisation import Normalisation, measure
from .scan import NUM_THREADS, picture_files, scan_folder, scan_parquet
from .splits import split
from .stores import ArrayStore, BadFile, Items, NumberedNames, PackedStrings

MAX_BAD = 0.05
MAX_NAMED = 100
"""classes that a description counts"""
_PATCH_SIZE = (32, 32)
_MEASURED = 2048
"""training images that a streamed set is measured from"""


class ImageData:
    """An image set that is ready for batches.

    size (height, width) and channels: of every image that `read` gives. modes and sizes: Pillow modes and original
    sizes 'HxW' by count, of all files whose header can be read. bad: files left out; more may come while a streamed set
    is read. splits: indices (int64) of train, validation and test. captions, groups: one per item, or None.
    in_memory: False for streamed sets.
    """

    def __init__(self, name: str, items: Items, target: Target, pixels: torch.Tensor | None) -> None:
        assert target.size is not None
        self.name, self.kind = name, items.kind
        self.size, self.channels = target.size, target.channels
        self.names: Sequence[str] = items.names
        self.modes, self.bad = items.modes, items.bad
        self.sizes = {f"{width}x{height}": count for (height, width), count in items.sizes.items()}
        self.captions, self.groups = items.captions, items.groups
        self.splits: dict[str, np.ndarray] = {}
        self.normalisation = Normalisation((0.0,) * target.channels, (1.0,) * target.channels)
        self.pixels = pixels  # (N, C, H, W) uint8 when in memory
        self._store, self._target = items.store if pixels is None else None, target

    def __len__(self) -> int:
        return len(self.names)

    @property
    def in_memory(self) -> bool:
        return self.pixels is not None

    def read(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:  # (B, C, H, W) uint8
        """The images at these indices. VqkitError naming the file if one cannot be decoded (streamed sets only)."""
        wanted = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        if self.pixels is not None:
            return self.pixels.index_select(0, wanted)
        _, images, bad = self.read_good(wanted.numpy())
        if bad:
            raise VqkitError(f"cannot read {bad[0].name}: {bad[0].reason}")
        return images

    def read_good(self, indices: np.ndarray) -> tuple[np.ndarray, torch.Tensor, list[BadFile]]:
        """Of a streamed set, what can be decoded: its indices (B,), images (B, C, H, W) uint8, and the other files."""
        with pillow_warnings():
            found = [self.read_one(index) for index in indices.tolist()]
        good = [position for position, image in enumerate(found) if isinstance(image, torch.Tensor)]
        images = torch.empty(len(good), self.channels, *self.size, dtype=torch.uint8)
        for row, image in enumerate(image for image in found if isinstance(image, torch.Tensor)):
            images[row] = image
        return indices[good], images, [image for image in found if isinstance(image, BadFile)]

    def read_one(self, index: int) -> torch.Tensor | BadFile:  # (C, H, W) uint8
        """One image of a streamed set, or why it cannot be had. Call it inside `pillow_warnings`."""
        assert self._store is not None
        return _decode(self._store.raw(index), self._target, self.names, index)

    def report_bad(self, found: BadFile) -> None:
        """Notes a file that failed while it was streamed. VqkitError once more than 5 % of all files are bad."""
        if found not in self.bad:
            self.bad.append(found)
            _check_bad(self.name, self.bad, len(self))

    def describe(self) -> dict[str, Any]:
        """Counts, sizes, modes, bad files, splits and channel statistics; plain values that JSON can hold."""
        return {
            "name": self.name,
            "kind": self.kind,
            "images": len(self),
            "size": list(self.size),
            "channels": self.channels,
            "in_memory": self.in_memory,
            "sizes": dict(sorted(self.sizes.items(), key=lambda item: -item[1])),
            "modes": dict(sorted(self.modes.items(), key=lambda item: -item[1])),
            **({"classes": dict(Counter(self.groups).most_common(MAX_NAMED))} if self.groups else {}),
            "bad": [dataclasses.asdict(bad) for bad in self.bad],
            "splits": {split_name: len(indices) for split_name, indices in self.splits.items()},
            "normalisation": self.normalisation.to_dict(),
        }


def open_images(
    source: str | Path, config: DataConfig, seed: int, normalisation: Normalisation | None = None
) -> ImageData:
    """Pictures of a built-in set (emoji, fashion-mnist, digits) or of a path, decided by what lies there.

    Paths: a folder (recursive), one picture (cut into patches), IDX (a file or the folder of MNIST), .npy, .npz,
    .parquet (a file or a folder of them). A file called like a built-in set is reached with a separator: ./emoji.
    seed: of the splits. normalisation: of a trained model that is evaluated; else it is measured on the train split.
    Errors: VqkitError with one sentence that says what is wrong and what to do.
    """
    items = _read(source, config)
    name = str(source)
    if len(items.store) == 0 and not items.bad:
        raise VqkitError(f"{name} holds no images")
    _check_bad(name, items.bad, len(items.store))
    target = _target(name, items, config)
    assert target.size is not None
    if target.fit == "patches":
        items = cut_up(items, target, config.max_memory_mb << 20)
        _check_bad(name, items.bad, len(set(map(bytes, items.keys))) if items.keys is not None else 0)
    pixels = None
    if len(items.store) * target.channels * target.size[0] * target.size[1] <= config.max_memory_mb << 20:
        pixels, items = _load(items, target)
        _check_bad(name, items.bad, len(pixels))
    data = ImageData(name, items, target, pixels)
    keys = items.keys if items.keys is not None else items.digests
    data.splits = split(items.digests, keys, seed, (config.validation, config.test), items.fixed_test)
    data.normalisation = normalisation or _measure(data)
    if len(data.normalisation.mean) != data.channels:
        have = len(data.normalisation.mean)
        raise VqkitError(
            f"the normalisation has {have} channels, the images have {data.channels}; set data.channels={have}"
        )
    return data


def _read(source: str | Path, config: DataConfig) -> Items:
    if isinstance(source, str) and source in bundled.NAMES:
        return bundled.read_bundled(source)
    path = Path(source).expanduser()
    if not path.exists():
        known = ", ".join(bundled.NAMES)
        raise VqkitError(f"there is no file or folder '{source}', and no built-in set of that name (built-in: {known})")
    if path.is_dir():
        return _read_folder(path)
    suffix = (
        path.suffixes[-2].lower() if path.suffix.lower() == ".gz" and len(path.suffixes) > 1 else path.suffix.lower()
    )
    if suffix == ".npy":
        return read_npy(path)
    if suffix == ".npz":
        return read_npz(path, config.max_memory_mb << 20)
    if suffix == ".parquet":
        return scan_parquet([path])
    if suffix in picture_suffixes():
        return _read_picture(path, config)
    try:
        with path.open("rb") as file:
            start = file.read(3)
    except OSError as error:
        raise VqkitError(f"cannot read {path}: {error.strerror or error}") from error
    if start[:3] == b"\0\0\x08" or start[:2] == b"\x1f\x8b":
        array = read_idx(path)
        return array_items(array, "idx", NumberedNames(path.name, len(array)), str(path))
    return _read_picture(path, config)


def _read_folder(path: Path) -> Items:
    if find_idx(path):
        return read_idx_folder(path)
    tables = picture_files(path, frozenset({".parquet"}))
    if tables and not picture_files(path, picture_suffixes()):
        return scan_parquet([path / name for name in tables])
    return scan_folder(path)


def _read_picture(path: Path, config: DataConfig) -> Items:
    """Non-overlapping patches of one picture; the size of a patch is data.image_size."""
    size = config.image_size or _PATCH_SIZE
    try:
        with pillow_warnings(), path.open("rb") as file:
            header = probe(file)
    except Exception as error:  # see images.load_picture
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error
    channels = config.channels or (1 if is_grey(header.mode) else 3)
    cut, places = patches(load_picture(path, channels, config.background), size)
    if not places:
        height, width = header.size
        raise VqkitError(
            f"{path} has {width}x{height} pixels (width x height), too few for one patch of {size[1]}x{size[0]}; "
            "set data.image_size=[height, width]"
        )
    items = array_items(cut, "picture", PackedStrings(f"{path.name}:{place}" for place in places), str(path))
    items.modes, items.sizes = {header.mode: 1}, {header.size: 1}
    return items


def _target(name: str, items: Items, config: DataConfig) -> Target:
    """Size and channels from the settings, or from what the files are."""
    channels = config.channels
    if channels is None:
        grey = sum(count for mode, count in items.modes.items() if is_grey(mode))
        channels = 1 if 2 * grey > sum(items.modes.values()) else 3
    size = config.image_size or (_PATCH_SIZE if items.kind == "picture" else None)
    if size is None:
        if len(items.sizes) > 1:
            common = sorted(items.sizes, key=lambda key: -items.sizes[key])
            seen = ", ".join(f"{width}x{height}" for height, width in common[:3]) + ", ..." * (len(common) > 3)
            raise VqkitError(
                f"the images of {name} have {len(items.sizes)} different sizes (width x height: {seen}); "
                "say which one the model shall see: set data.image_size=[64, 64], height first"
            )
        size = next(iter(items.sizes))
    return Target(size, channels, config.background, config.fit)


def _check_bad(name: str, bad: list[BadFile], num_good: int) -> None:
    if len(bad) > MAX_BAD * (len(bad) + num_good):
        first = "; ".join(f"{item.name}: {item.reason}" for item in bad[:3])
        more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        total = len(bad) + num_good
        raise VqkitError(f"{len(bad)} of {total} files of {name} cannot be used, more than 5 % ({first}{more})")


def _decode(raw: Any, target: Target, names: Sequence[str], index: int) -> torch.Tensor | BadFile:
    try:
        return torch.from_numpy(decode(raw, target)).permute(2, 0, 1)
    except Exception as error:  # see images.load_picture
        return BadFile(names[index], reason(error))


def _load(items: Items, target: Target) -> tuple[torch.Tensor, Items]:  # (N, C, H, W) uint8
    """All images in memory; what cannot be decoded is left out and noted."""
    store, size = items.store, target.size
    assert size is not None
    if isinstance(store, ArrayStore) and store.array.shape[1:] == (*size, target.channels):
        return torch.from_numpy(np.array(store.chunk(0, len(store)).transpose(0, 3, 1, 2), order="C")), items
    pixels = torch.empty(len(store), target.channels, *size, dtype=torch.uint8)

    def load(index: int) -> BadFile | None:
        found = _decode(store.raw(index), target, items.names, index)
        if isinstance(found, BadFile):
            return found
        pixels[index] = found
        return None

    with pillow_warnings(), ThreadPoolExecutor(NUM_THREADS) as pool:
        failures = list(pool.map(load, range(len(store))))
    good = [index for index, failure in enumerate(failures) if failure is None]
    if len(good) == len(store):
        return pixels, items
    bad = items.bad + [failure for failure in failures if failure is not None]
    names = PackedStrings(items.names[index] for index in good)
    keys = None if items.keys is None else items.keys[good]
    captions, groups = (part and [part[index] for index in good] for part in (items.captions, items.groups))
    kept = dataclasses.replace(
        items, names=names, digests=items.digests[good], bad=bad, keys=keys, captions=captions, groups=groups
    )
    return pixels[good], kept


def _measure(data: ImageData) -> Normalisation:
    train = data.splits["train"] if data.in_memory else data.splits["train"][:_MEASURED]

    def batches() -> Iterator[torch.Tensor]:
        for start in range(0, len(train), 256):
            if data.in_memory:
                yield data.read(train[start : start + 256])
                continue
            _, images, bad = data.read_good(train[start : start + 256])
            for found in bad:
                data.report_bad(found)
            yield images

    try:
        return measure(batches(), data.channels)
    except VqkitError as error:
        raise VqkitError(f"{data.name}: {error}") from error


def sample_sheet(data: ImageData, count: int = 64) -> Image.Image:
    """The first `count` training images (the order of the split is random) in a square, for a look at them."""
    indices = data.splits["train"][:count]
    images = data.read(indices) if data.in_memory else data.read_good(indices)[1]
    columns = max(1, int(np.ceil(np.sqrt(len(images)))))
    height, width = data.size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + 1) + 1, rows * (height + 1) + 1), (128, 128, 128))
    for position, pixels in enumerate(images):
        array = pixels.permute(1, 2, 0).numpy()
        tile = Image.fromarray(array[:, :, 0] if data.channels == 1 else array).convert("RGBA")
        place = 1 + position % columns * (width + 1), 1 + position // columns * (height + 1)
        sheet.paste(tile, place, tile)
    return sheet
