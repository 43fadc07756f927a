"""Pictures cut into patches, so that a model sees them at full resolution."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from ..errors import VqkitError
from .arrays import array_items
from .images import Target, decode, patches, pillow_warnings, reason
from .scan import NUM_THREADS
from .stores import BadFile, Items, PackedStrings

Cut = tuple[np.ndarray, list[str]]
"""patches (n, h, w, C) uint8 of a picture, and their places 'row,column'"""


def cut_up(items: Items, target: Target, max_bytes: int) -> Items:
    """Patches of target.size from every picture, all of them or, where memory is short, as many from each at random.

    Those of one picture stay in one split. Pictures smaller than a patch are scaled to one. VqkitError when none can
    be read.
    """
    assert target.size is not None
    height, width = target.size
    if set(items.sizes) == {target.size}:
        return items
    most = max(1, max_bytes // (height * width * target.channels) // max(1, len(items.store)))
    found = np.empty((most * len(items.store), height, width, target.channels), np.uint8)  # untouched pages are free
    names, owners, bad = list[str](), list[int](), list(items.bad)
    with pillow_warnings(), ThreadPoolExecutor(NUM_THREADS) as pool:
        for index, part in enumerate(pool.map(partial(_cut, items, target, most), range(len(items.store)))):
            if isinstance(part, BadFile):
                bad.append(part)
                continue
            found[len(names) : len(names) + len(part[1])] = part[0]
            owners += [index] * len(part[1])
            names += [f"{items.names[index]}:{place}" for place in part[1]]
    if not names:
        raise VqkitError(f"none of the pictures can be read ({bad[0].name}: {bad[0].reason})")
    cut_items = array_items(found[: len(names)], items.kind, PackedStrings(names), "patches")
    keys = items.digests if items.keys is None else items.keys
    captions, groups = (part and [part[owner] for owner in owners] for part in (items.captions, items.groups))
    fixed_test = None if items.fixed_test is None else np.isin(owners, items.fixed_test).nonzero()[0]
    return replace(
        cut_items, keys=keys[owners], fixed_test=fixed_test, captions=captions, groups=groups, bad=bad,
        modes=items.modes, sizes=items.sizes,
    )  # fmt: skip


def _cut(items: Items, target: Target, most: int, index: int) -> Cut | BadFile:
    """Patches of one picture, `most` of them; the same ones for the same picture."""
    assert target.size is not None
    try:
        found, places = patches(decode(items.store.raw(index), replace(target, size=None)), target.size)
        if not places:
            return decode(items.store.raw(index), target)[None], ["0,0"]
    except Exception as error:  # see images.load_picture
        return BadFile(items.names[index], reason(error))
    seed = int.from_bytes(items.digests[index].tobytes(), "little")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(places))[:most])
    return found[chosen], [places[number] for number in chosen]
