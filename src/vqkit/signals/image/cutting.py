"""Images cut into patches, so that a model sees them at full resolution."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from ...data.names import BadFile, PackedStrings
from ...data.splits import pack
from ...errors import VqkitError
from .arrays import array_items
from .config import DataConfig
from .files import (
    BROKEN_IMAGE,
    Target,
    decode,
    decode_with_content,
    look_of,
    patches,
    pillow_warnings,
    reason,
    reduced,
)
from .scan import NUM_THREADS
from .stores import Items

# Patches along the short side that a scaled-down image has at least.
MIN_PATCHES = 4
# Levels of 255 by which neighbouring pixels of a patch that is not flat differ, on average.
FLAT = 1.0
# Patches that are looked at together, which bounds memory.
_CHUNK = 64


class Cut(NamedTuple):
    """Patches (n, h, w, C) uint8 of an image and their places 'row,column', behind '1/2:' where the
    image was scaled down to a half.

    content, look: what the image is told apart by, see files.Decoded.
    """

    pixels: np.ndarray
    places: list[str]
    content: bytes
    look: int


def cut_up(
    items: Items,
    target: Target,
    config: DataConfig,
    keys_of: Callable[[Items, np.ndarray], np.ndarray],
    progress: Callable[[float], None] | None = None,
) -> Items:
    """Patches of target.size from every image, at config.num_scales sizes of it: all of them or,
    where memory (config.max_memory_mb) is short, as many from each at random. Of flat ones there
    are no more than config.max_flat.

    Those of one image stay in one split, and with them those of images that have a key in common
    with it, where `keys_of(items, looks)` gives the keys. Images smaller than a patch are scaled to
    one. VqkitError when none can be read.
    """
    assert target.size is not None
    height, width = target.size
    patch_bytes = height * width * target.channels
    most = (config.max_memory_mb << 20) // patch_bytes // max(1, len(items.store))
    most = max(1, most)
    # Room for the most there can be: pages of memory that are not touched are free.
    pixels = np.empty((most * len(items.store), height, width, target.channels), np.uint8)
    names: list[str] = []
    # Of each patch the place in `good` of its image.
    owners: list[int] = []
    good: list[int] = []
    bad = list(items.bad)
    contents: list[bytes] = []
    looks: list[int] = []
    cut = partial(_cut, items, target, config, most)
    with pillow_warnings(), ThreadPoolExecutor(NUM_THREADS) as pool:
        for index, part in enumerate(pool.map(cut, range(len(items.store)))):
            if progress:
                progress((index + 1) / len(items.store))
            if isinstance(part, BadFile):
                bad.append(part)
                continue
            pixels[len(names) : len(names) + len(part.places)] = part.pixels
            owners += [len(good)] * len(part.places)
            names += [f"{items.names[index]}:{place}" for place in part.places]
            good.append(index)
            contents.append(part.content)
            looks.append(part.look)
    if not names:
        raise VqkitError(f"none of the images can be read ({bad[0].name}: {bad[0].reason})")
    cut_items = array_items(pixels[: len(names)], items.kind, PackedStrings(names), "patches")
    whole = replace(items.kept(good), digests=pack(contents))
    fixed_test = None
    if items.fixed_test is not None:
        fixed_test = np.isin(np.array(good)[owners], items.fixed_test).nonzero()[0]
    return replace(
        cut_items,
        keys=keys_of(whole, np.array(looks, dtype=np.uint64))[owners],
        fixed_test=fixed_test,
        captions=whole.captions and [whole.captions[owner] for owner in owners],
        groups=whole.groups and [whole.groups[owner] for owner in owners],
        cut_from=whole.cut_from[owners] if whole.cut_from is not None else np.array(owners),
        bad=bad,
        modes=items.modes,
        sizes=items.sizes,
        value_range=items.value_range,
        notes=items.notes,
    )


def _cut(items: Items, target: Target, config: DataConfig, most: int, index: int) -> Cut | BadFile:
    """Patches of one image, at most `most` of them; the same ones for the same image."""
    assert target.size is not None
    try:
        raw = items.store.raw(index)
        whole = replace(target, size=None)
        if not isinstance(raw, np.ndarray):
            # Decoded as a whole anyway, and so told apart by all of its pixels.
            pixels, content, look = decode_with_content(raw, whole, full=True, looks=True)
            assert pixels is not None
        else:
            assert items.digests is not None and isinstance(raw, np.ndarray)
            pixels = decode(raw, whole)
            content = items.digests[index].tobytes()
            look = look_of(raw)
        every, places = _at_scales(pixels, target.size, config.num_scales)
        if not places:
            return Cut(decode(raw, target)[None], ["0,0"], content, look)
    except BROKEN_IMAGE as error:
        return BadFile(items.names[index], reason(error))
    seed = int.from_bytes(content, "little")
    order = np.random.default_rng(seed).permutation(len(places))
    if config.max_flat < 1:
        order = order[_kept(are_flat(every)[order], config.max_flat)]
    chosen = np.sort(order[:most])
    return Cut(every[chosen], [places[number] for number in chosen], content, look)


def _at_scales(
    pixels: np.ndarray, size: tuple[int, int], num_scales: int
) -> tuple[np.ndarray, list[str]]:
    """Patches of an image at its own size, a half of it, a quarter and so on, and their places."""
    cut, places = patches(pixels, size)
    parts = [cut]
    for scale in range(1, num_scales):
        factor = 2**scale
        if min(pixels.shape[:2]) // factor < MIN_PATCHES * max(size):
            break
        cut, where = patches(reduced(pixels, factor), size)
        parts.append(cut)
        places += [f"1/{factor}:{place}" for place in where]
    return np.concatenate(parts), places


def are_flat(cut: np.ndarray) -> np.ndarray:  # (N, h, w, C) uint8 -> (N,) bool
    """Whether neighbouring pixels of a patch differ by less than FLAT levels on average."""
    parts = []
    for start in range(0, len(cut), _CHUNK):
        values = cut[start : start + _CHUNK].astype(np.int16)
        down = np.abs(np.diff(values, axis=1))
        across = np.abs(np.diff(values, axis=2))
        total = down.sum((1, 2, 3)) + across.sum((1, 2, 3))
        parts.append(total < FLAT * (down[0].size + across[0].size))
    return np.concatenate(parts)


def _kept(flat: np.ndarray, share: float) -> np.ndarray:  # (N,) bool -> (N,) bool
    """All patches that are not flat, and the first flat ones, so that they are at most a share of
    what is kept. An image without others keeps one.
    """
    others = len(flat) - int(flat.sum())
    allowed = int(share / (1 - share) * others)
    if not others:
        allowed = 1
    return ~flat | (np.cumsum(flat) <= allowed)
