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
from .files import (
    BROKEN_IMAGE,
    Target,
    decode,
    decode_with_content,
    look_of,
    patches,
    pillow_warnings,
    reason,
)
from .scan import NUM_THREADS
from .stores import Items


class Cut(NamedTuple):
    """Patches (n, h, w, C) uint8 of an image and their places 'row,column'.

    content, look: what the image is told apart by, see files.Decoded.
    """

    pixels: np.ndarray
    places: list[str]
    content: bytes
    look: int


def cut_up(
    items: Items,
    target: Target,
    max_bytes: int,
    keys_of: Callable[[Items, np.ndarray], np.ndarray],
    progress: Callable[[float], None] | None = None,
) -> Items:
    """Patches of target.size from every image, all of them or, where memory is short, as many from
    each at random.

    Those of one image stay in one split, and with them those of images that have a key in common
    with it, where `keys_of(items, looks)` gives the keys. Images smaller than a patch are scaled to
    one. VqkitError when none can be read.
    """
    assert target.size is not None
    height, width = target.size
    most = max(1, max_bytes // (height * width * target.channels) // max(1, len(items.store)))
    # Room for the most there can be: pages of memory that are not touched are free.
    pixels = np.empty((most * len(items.store), height, width, target.channels), np.uint8)
    names: list[str] = []
    # Of each patch the place in `good` of its image.
    owners: list[int] = []
    good: list[int] = []
    bad = list(items.bad)
    contents: list[bytes] = []
    looks: list[int] = []
    cut = partial(_cut, items, target, most)
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
        bad=bad,
        modes=items.modes,
        sizes=items.sizes,
        value_range=items.value_range,
        notes=items.notes,
    )


def _cut(items: Items, target: Target, most: int, index: int) -> Cut | BadFile:
    """Patches of one image, `most` of them; the same ones for the same image."""
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
        every, places = patches(pixels, target.size)
        if not places:
            return Cut(decode(raw, target)[None], ["0,0"], content, look)
    except BROKEN_IMAGE as error:
        return BadFile(items.names[index], reason(error))
    seed = int.from_bytes(content, "little")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(places))[:most])
    return Cut(every[chosen], [places[number] for number in chosen], content, look)
