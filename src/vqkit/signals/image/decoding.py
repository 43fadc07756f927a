"""All items of a set decoded once: to pixels in memory, and to what they are told apart by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from ...data.names import BadFile
from ...data.splits import DIGEST_BYTES
from .config import DataConfig
from .files import (
    BROKEN_IMAGE,
    Decoded,
    Target,
    decode,
    decode_with_content,
    look_of,
    pillow_warnings,
    reason,
)
from .scan import NUM_THREADS
from .stores import ArrayStore, Items, PartStore

# Images between two reports of progress.
_TOLD = 64


def load(
    items: Items, target: Target, config: DataConfig, progress: Callable[[float], None] | None
) -> tuple[torch.Tensor, Items, np.ndarray]:  # (N, C, H, W) uint8, and (N,) uint64
    """All images in memory, and their looks if wanted.

    What cannot be decoded is left out and noted.
    """
    store = items.store
    size = target.size
    assert size is not None
    if isinstance(store, ArrayStore) and store.array.shape[1:] == (*size, target.channels):
        looks = np.empty(0, np.uint64)
        if config.near_duplicates:
            looks = looks_of_arrays(store)
        chunk = store.chunk(0, len(store)).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.array(chunk, order="C")), items, looks
    pixels = torch.empty(len(store), target.channels, *size, dtype=torch.uint8)
    kept, looks, good = _decode_all(items, target, config, pixels, progress)
    # Indexing copies, so not where all are there.
    if len(good) < len(store):
        pixels = pixels[good]
    return pixels, kept, looks


def with_digests(
    items: Items, target: Target, config: DataConfig, progress: Callable[[float], None] | None
) -> tuple[Items, np.ndarray]:
    """The items that can be decoded, with what they are told apart by.

    Their pixels are not kept.
    """
    kept, looks, good = _decode_all(items, target, config, None, progress)
    if len(good) < len(items.store):
        kept = dataclasses.replace(kept, store=PartStore(items.store, good))
    return kept, looks


def _decode_all(
    items: Items,
    target: Target,
    config: DataConfig,
    pixels: torch.Tensor | None,
    progress: Callable[[float], None] | None,
) -> tuple[Items, np.ndarray, list[int]]:
    """Decode every item once: into `pixels`, where given, and to digests, where there are none yet.

    Gives the items that can be decoded, their looks (empty if not wanted) and their places.
    """
    store = items.store
    digests = np.empty((len(store), DIGEST_BYTES), np.uint8)
    looks = np.empty(len(store), np.uint64)

    def one(index: int) -> BadFile | None:
        try:
            decoded = _identified(items, index, target, config, pixels is not None)
        except BROKEN_IMAGE as error:
            return BadFile(items.names[index], reason(error))
        if pixels is not None and decoded.pixels is not None:
            pixels[index] = torch.from_numpy(decoded.pixels).permute(2, 0, 1)
        digests[index] = np.frombuffer(decoded.content, np.uint8)
        looks[index] = decoded.look
        return None

    good: list[int] = []
    bad: list[BadFile] = []
    with pillow_warnings(), ThreadPoolExecutor(NUM_THREADS) as pool:
        for index, failure in enumerate(pool.map(one, range(len(store)))):
            if failure is None:
                good.append(index)
            else:
                bad.append(failure)
            done = index + 1
            if progress and (done % _TOLD == 0 or done == len(store)):
                progress(done / len(store))
    if items.digests is None:
        items = dataclasses.replace(items, digests=digests)
    if bad:
        items = dataclasses.replace(items.kept(good), bad=items.bad + bad)
    return items, looks[good], good


def _identified(
    items: Items, index: int, target: Target, config: DataConfig, wants_pixels: bool
) -> Decoded:
    raw = items.store.raw(index)
    if isinstance(raw, np.ndarray):
        assert items.digests is not None
        look = look_of(raw) if config.near_duplicates else 0
        return Decoded(decode(raw, target), items.digests[index].tobytes(), look)
    full = items.full is None or bool(items.full[index])
    return decode_with_content(
        raw, target, full=full, looks=config.near_duplicates, pixels=wants_pixels
    )


def looks_of_arrays(store: Any) -> np.ndarray:  # (N,) uint64
    return np.array([look_of(store.raw(index)) for index in range(len(store))], dtype=np.uint64)
