"""A look at a source of images: the sizes of all of them, and what the pixels of a few are like.

It costs seconds for any source: headers of MAX_HEADERS files at most, pixels of MAX_LOOKED.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data.blocks import find_places
from ...data.shards import find_shards
from .arrays import find_idx
from .files import BROKEN_IMAGE, Raw, Target, decode, image_suffixes, pillow_warnings, read_header
from .scan import evenly, image_files, is_image

# Files whose headers are read; of more, as many spread over all.
MAX_HEADERS = 20_000
# Archives or tables that are looked into.
LOOKED_SHARDS = 8
# Images whose pixels are looked at.
MAX_LOOKED = 64
# Pixels from which on an image is looked at scaled down.
_LARGE = 1 << 18
_LARGE_LOOK = (256, 256)
# Pixels of large images that are decoded in all, except from JPEG files, which are decoded at an
# eighth of their size.
_MAX_DECODED = 1 << 26
# Levels of 255 that alpha spans in an image that is cut out of something.
_ALPHA_SPAN = 32
# Pixel art: colours of an image at most, and the share of its edges, at most, that have a pixel
# between their two sides as an antialiased edge has. Drawings scaled to 64x64 have 170 colours and
# more, and photographs a colour a pixel; of antialiased edges every second has such a pixel.
_ART_COLOURS = 64
_ART_SOFT = 0.45
_EDGE = 48
_BETWEEN = 8


@dataclass(frozen=True)
class Look:
    """What images are like, as far as a look tells.

    num_images: that can be read. sizes: (height, width), turned upright, of each or, of many, of
    MAX_HEADERS of them. num_looked: whose pixels were looked at; of these the shares: cut_out, with
    alpha that varies; grey, without colour; pixel_art, few colours and hard edges.
    """

    num_images: int
    sizes: Sequence[tuple[int, int]]
    num_looked: int
    cut_out: float
    grey: float
    pixel_art: float

    @property
    def common_size(self) -> tuple[int, int] | None:
        """The size that at least half of the images have."""
        size = statistics.mode(self.sizes)
        return size if 2 * self.sizes.count(size) >= len(self.sizes) else None

    @property
    def are_alike(self) -> bool:
        """Whether all images have one size."""
        return len(set(self.sizes)) == 1

    @property
    def size(self) -> tuple[int, int]:
        """The size that most images have, else the medians of heights and widths."""
        if self.common_size:
            return self.common_size
        heights, widths = zip(*self.sizes, strict=True)
        return int(statistics.median(heights)), int(statistics.median(widths))


@dataclass(frozen=True)
class _Pixels:
    """What one image is like; see Look."""

    cut_out: bool
    grey: bool
    pixel_art: bool


def look_at_folder(folder: Path) -> Look | None:
    """A look at the image files below a folder; None where there are none that can be read."""
    names = image_files(folder, image_suffixes())
    if find_idx(folder):
        return None
    chosen = [folder / names[index] for index in _spread(len(names), MAX_HEADERS)]
    good: list[Path] = []
    sizes: list[tuple[int, int]] = []
    with pillow_warnings():
        for path in chosen:
            try:
                header = read_header(path)
            except BROKEN_IMAGE:
                continue
            good.append(path)
            sizes.append(header.size)
    if not good:
        return None
    num_images = round(len(names) * len(good) / len(chosen))
    return _look(num_images, sizes, good.__getitem__)


def look_at_shards(source: str | Path) -> Look | None:
    """A look at the images in tar archives or tables, of which the first few stand for all; None
    where none can be read.
    """
    shards = find_shards(str(source), is_image)
    store, _ = find_places(shards[:LOOKED_SHARDS], is_image)
    good: list[int] = []
    sizes: list[tuple[int, int]] = []
    chosen = evenly(store)
    with pillow_warnings():
        for index in chosen:
            try:
                header = read_header(store.raw(index))
            except BROKEN_IMAGE:
                continue
            good.append(index)
            sizes.append(header.size)
    if not good:
        return None
    share = len(shards) / min(len(shards), LOOKED_SHARDS) * len(good) / len(chosen)
    return _look(round(len(store) * share), sizes, lambda place: store.raw(good[place]))


def look_at_images(num_images: int, size: tuple[int, int], read: Callable[[int], Raw]) -> Look:
    """A look at images of one size, such as lie in an array; `read` gives one."""
    return _look(num_images, [size] * min(num_images, MAX_HEADERS), read)


def _look(num_images: int, sizes: Sequence[tuple[int, int]], read: Callable[[int], Raw]) -> Look:
    found: list[_Pixels] = []
    left = _MAX_DECODED
    with pillow_warnings():
        for index in _spread(len(sizes), MAX_LOOKED):
            raw = read(index)
            num_pixels = sizes[index][0] * sizes[index][1]
            is_large = num_pixels > _LARGE
            is_jpeg = isinstance(raw, Path) and raw.suffix.lower() in (".jpg", ".jpeg")
            if is_large and not is_jpeg:
                if num_pixels > left and found:
                    continue
                left -= num_pixels
            target = Target(_LARGE_LOOK if is_large else None, 4, fit="resize")
            try:
                pixels = decode(raw, target)
            except BROKEN_IMAGE:
                continue
            found.append(_examine(pixels, is_large))
    count = max(1, len(found))
    return Look(
        num_images,
        sizes,
        len(found),
        sum(one.cut_out for one in found) / count,
        sum(one.grey for one in found) / count,
        sum(one.pixel_art for one in found) / count,
    )


def _spread(count: int, most: int) -> list[int]:
    """Numbers from 0 to count - 1, all of them or `most` evenly apart."""
    if count <= most:
        return list(range(count))
    return [index * count // most for index in range(most)]


def _examine(pixels: np.ndarray, is_large: bool) -> _Pixels:  # (H, W, 4) uint8
    alpha = pixels[..., 3]
    colours = pixels[alpha > 0][:, :3]
    spans = int(alpha.max()) - int(alpha.min())
    return _Pixels(
        cut_out=spans >= _ALPHA_SPAN,
        grey=bool((colours == colours[:, :1]).all()),
        pixel_art=not is_large and _is_pixel_art(pixels),
    )


def _is_pixel_art(pixels: np.ndarray) -> bool:  # (H, W, 4) uint8
    # What lies under transparent pixels is not seen.
    seen = np.where(pixels[..., 3:] > 0, pixels, 0)
    if len(np.unique(np.ascontiguousarray(seen).view(np.uint32))) > _ART_COLOURS:
        return False
    edges = soft = 0
    for values in (seen.astype(np.int16), seen.transpose(1, 0, 2).astype(np.int16)):
        low = np.minimum(values[:, :-2], values[:, 2:])
        high = np.maximum(values[:, :-2], values[:, 2:])
        middle = values[:, 1:-1]
        is_edge = high - low >= _EDGE
        is_soft = is_edge & (middle >= low + _BETWEEN) & (middle <= high - _BETWEEN)
        edges += int(is_edge.any(2).sum())
        soft += int(is_soft.any(2).sum())
    # Without a single hard edge it is something smooth, such as a dark image of 16 bits.
    return edges > 0 and soft <= _ART_SOFT * edges
