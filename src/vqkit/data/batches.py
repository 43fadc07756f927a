"""Batches whose order is a pure function of seed and step, from memory or streamed by worker processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..config import DataConfig
from ..errors import VqkitError
from .augment import apply, draw
from .sources import ImageData
from .splits import derive_seed
from .stores import BadFile

Batch: TypeAlias = "tuple[np.ndarray, torch.Tensor]"
"""indices (B,) int64 and images (B, C, H, W) uint8"""

_PREFETCH = 2
"""batches that each worker keeps ready; memory is bounded by workers * prefetch * batch"""


class Order:
    """Which training image is seen when: one permutation per epoch, seeded by (seed, epoch).

    Epochs follow one another without a gap, so that a batch may end one and begin the next, or hold several.
    """

    def __init__(self, indices: np.ndarray, seed: int) -> None:
        self._indices, self._seed = indices, seed
        self._epoch, self._permutation = -1, indices

    def positions(self, start: int, stop: int) -> np.ndarray:  # (stop - start,) int64
        """Indices of the images number start..stop since the beginning of training."""
        count, parts = len(self._indices), []
        while start < stop:
            epoch, offset = divmod(start, count)
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed(derive_seed("order", self._seed, epoch))
                self._epoch = epoch
                self._permutation = self._indices[torch.randperm(count, generator=generator).numpy()]
            taken = min(stop - start, count - offset)
            parts.append(self._permutation[offset : offset + taken])
            start += taken
        return np.concatenate(parts)


def training_batches(
    data: ImageData,
    config: DataConfig,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Endless batches of batch_size // world_size augmented images, with their indices, from step `start_step` on.

    Step s is the same whether one starts at 0 or resumes at s, and the batches of all ranks one after another are the
    batch of a single rank. The global random number generator is never touched.
    Errors: VqkitError if batch_size is not a multiple of world_size; a file that cannot be decoded is replaced by the
    next one of the train split and noted in data.bad, until they are more than 5 %.
    """
    if batch_size % world_size:
        raise VqkitError(f"train.batch_size={batch_size} must be a multiple of the {world_size} processes")
    local = batch_size // world_size
    first, last = rank * local, (rank + 1) * local
    order = Order(data.splits["train"], seed)

    def wanted() -> Iterator[np.ndarray]:
        step = start_step
        while True:
            yield order.positions(step * batch_size + first, step * batch_size + last)
            step += 1

    for step, (indices, images) in enumerate(_fetch(data, wanted(), config.num_workers, "train"), start_step):
        generator = torch.Generator().manual_seed(derive_seed("augment", seed, step))
        yield indices, apply(images, draw(batch_size, config.augment, generator).rows(first, last))


def split_batches(data: ImageData, split: str, batch_size: int, num_workers: int = 2) -> Iterator[Batch]:
    """All images of a split once, in its order, not augmented: indices (B,) int64 and uint8 (B, C, H, W).

    A file that cannot be decoded is left out, so that a batch may be smaller, and noted in data.bad.
    """
    indices = data.splits[split]
    parts = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    for found, images in _fetch(data, parts, num_workers, None):
        if len(found):
            yield found, images


# ----------------------------------------------------------------------------------------------------- streaming


def _fetch(
    data: ImageData, wanted: Iterable[np.ndarray], num_workers: int, replace_from: str | None
) -> Iterator[Batch]:
    if data.pixels is not None:
        for indices in wanted:
            yield indices, data.pixels.index_select(0, torch.from_numpy(indices))
        return
    with warnings.catch_warnings():
        # More workers than cores, or a fork next to threads (Python 3.12): the number is the user's choice, and the
        # workers run no code of those threads.
        warnings.simplefilter("ignore")
        batches = iter(
            DataLoader(
                _Reader(data, replace_from),
                sampler=_Lists(wanted),
                batch_size=None,  # a batch is one item: the sampler hands out whole lists of indices
                num_workers=num_workers,
                prefetch_factor=_PREFETCH if num_workers else None,
                collate_fn=_unchanged,
                generator=torch.Generator().manual_seed(0),  # without one, the global generator would be drawn from
            )
        )
    for indices, images, bad in batches:
        for found in bad:
            data.report_bad(found)  # workers have a copy of `data`; the parent's is the one that counts
        yield indices, images


def _unchanged(batch: object) -> object:
    return batch


class _Lists:
    """A sampler, as DataLoader sees it, of lists of indices."""

    def __init__(self, wanted: Iterable[np.ndarray]) -> None:
        self._wanted = wanted

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._wanted)


class _Reader(Dataset):
    """Decodes lists of indices; runs in the workers."""

    def __init__(self, data: ImageData, replace_from: str | None) -> None:
        self._data = data
        self._ring = data.splits[replace_from] if replace_from else None

    def __getitem__(self, indices: np.ndarray) -> tuple[np.ndarray, torch.Tensor, list[BadFile]]:
        used, images, bad = self._data.read_good(indices)
        if not bad or self._ring is None:
            return used, images, bad
        replaced = np.array([self._good_from(index, bad) for index in indices.tolist()], dtype=np.int64)
        return replaced, self._data.read(replaced), bad

    def _good_from(self, index: int, bad: list[BadFile]) -> int:
        """The index, or the next one of the split that can be decoded; failures are added to `bad`."""
        assert self._ring is not None
        place = int(np.flatnonzero(self._ring == index)[0])
        for step in range(len(self._ring)):
            chosen = self._ring[(place + step) % len(self._ring)]
            failures = self._data.read_good(np.array([chosen]))[2]
            if not failures:
                return int(chosen)
            bad += failures
        raise VqkitError(f"no image of {self._data.name} can be decoded any more")
