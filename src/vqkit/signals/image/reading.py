"""What lies at a path as items, none of them decoded yet."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np

from ...data.names import NumberedNames, PackedStrings
from ...errors import VqkitError
from ...files import open_regular
from . import bundled
from .arrays import (
    array_items,
    check_unpacked,
    find_idx,
    read_idx,
    read_idx_folder,
    read_npy,
    read_npz,
)
from .files import (
    BROKEN_IMAGE,
    Frame,
    Target,
    decode,
    image_suffixes,
    patches,
    pillow_warnings,
    reason,
    survey_file,
)
from .modes import is_grey
from .scan import image_files, scan_folder, scan_parquet, scan_shards
from .stores import Items, Reading

# Archives of WebDataset, which are always read as training goes, and tables.
ARCHIVES = frozenset({".tar", ".tgz"})
TABLES = frozenset({".parquet"})
# Patches of a single image, where data.image_size says nothing.
PATCH_SIZE = (32, 32)


def read(source: str | Path, how: Reading) -> Items:
    if isinstance(source, str) and source in bundled.NAMES:
        return bundled.read_bundled(source, how.config)
    path = Path(source).expanduser()
    if how.config.stream or is_of_shards(path, ARCHIVES):
        found = scan_shards(str(source), how)
        if found is not None:
            return found
    if not path.exists():
        known = ", ".join(bundled.NAMES)
        raise VqkitError(
            f"there is no file or folder '{source}', and no built-in set of that name (built-in: "
            f"{known})"
        )
    if path.is_dir():
        return _read_folder(path, how)
    suffix = path.suffix.lower()
    if suffix == ".gz" and len(path.suffixes) > 1:
        suffix = path.suffixes[-2].lower()
    if suffix == ".npy":
        return read_npy(path, how)
    if suffix == ".npz":
        return read_npz(path, how)
    if suffix == ".parquet":
        return scan_parquet([path], how)
    if suffix in image_suffixes():
        return _read_image(path, how)
    try:
        with open_regular(path) as file:
            start = file.read(3)
    except OSError as error:
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error
    if start[:3] == b"\0\0\x08" or start[:2] == b"\x1f\x8b":
        array = read_idx(path, how.config)
        return array_items(array, "idx", NumberedNames(path.name, len(array)), str(path))
    return _read_image(path, how)


def is_of_shards(path: Path, suffixes: frozenset[str]) -> bool:
    """Whether a source is shards of these kinds, and no image lies beside them."""
    if path.is_dir():
        return not image_files(path, image_suffixes()) and bool(image_files(path, suffixes))
    return path.suffix.lower() in suffixes


def _read_folder(path: Path, how: Reading) -> Items:
    if find_idx(path):
        return read_idx_folder(path, how.config)
    tables = image_files(path, TABLES)
    if tables and not image_files(path, image_suffixes()):
        return scan_parquet([path / name for name in tables], how)
    return scan_folder(path, how)


def _read_image(path: Path, how: Reading) -> Items:
    """Non-overlapping patches of the images in one file; the size of a patch is data.image_size."""
    config = how.config
    size = config.image_size or PATCH_SIZE
    try:
        with pillow_warnings():
            survey = survey_file(path, config.frames == "all")
            channels = config.channels
            if channels is None:
                channels = 1 if is_grey(survey.headers[0].mode) else 3
            num_pixels = sum(math.prod(header.size) for header in survey.headers)
            check_unpacked(num_pixels * channels, str(path), config)
            value_range = None
            if not survey.extent.is_empty:
                value_range = how.value_range
                if value_range is None and how.find_range:
                    value_range = survey.extent.range()
            target = Target(None, channels, config.background, value_range=value_range)
            cut, places, frames = _patches_of_frames(path, len(survey.headers), target, size)
    except BROKEN_IMAGE as error:
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error
    if not places:
        height, width = survey.headers[0].size
        raise VqkitError(
            f"{path} has {width}x{height} pixels (width x height), too few for one patch of "
            f"{size[1]}x{size[0]}; set data.image_size=[height, width]"
        )
    names = PackedStrings(f"{path.name}:{place}" for place in places)
    items = array_items(cut, "image", names, str(path))
    items.modes = dict(Counter(header.mode for header in survey.headers))
    items.sizes = dict(Counter(header.size for header in survey.headers))
    items.value_range = value_range
    items.cut_from = frames
    if survey.num_frames > len(survey.headers):
        items.notes.append(
            f"{path} holds {survey.num_frames} images; the first is used, data.frames=all uses all"
        )
    items.notes.append("the splits are of patches of one file, and show nothing about others")
    if config.num_scales > 1:
        items.notes.append("data.num_scales has no effect on a single file")
    return items


def _patches_of_frames(
    path: Path, count: int, target: Target, size: tuple[int, int]
) -> tuple[np.ndarray, list[str], np.ndarray]:  # (N, h, w, C); (N,) the frame of each
    cut = []
    places: list[str] = []
    frames: list[int] = []
    for number in range(count):
        parts, where = patches(decode(Frame(path, number), target), size)
        cut.append(parts)
        if count > 1:
            where = [f"{number}:{place}" for place in where]
        places += where
        frames += [number] * len(where)
    return np.concatenate(cut), places, np.array(frames, dtype=np.int64)
