"""Sets whose items have numbers, in memory or streamed: seed and step alone decide the order."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ..errors import VqkitError
from ..shapes import Shape
from .blocks import BlockOrder
from .dataset import Batch
from .names import BadFile
from .normalisation import Normalisation
from .splits import derive_seed

# Batches that each worker keeps ready; memory is bounded by workers * prefetch * batch.
PREFETCH = 2


class Found(NamedTuple):
    """What could be read of some items: their numbers (B,), values (B, C, *extent), the mask, the
    bad files, and which values are known as `Batch` has it.
    """

    ids: np.ndarray
    values: Tensor
    mask: Tensor | None
    bad: list[BadFile]
    known: Tensor | None = None


class IndexedDataset(ABC):
    """See `data.dataset.Dataset`. A signal says how items are read, and how they are changed while
    training.

    bad: files that are left out; more may come while a streamed set is read. in_memory: False for
    streamed sets.
    """

    def __init__(
        self,
        name: str,
        names: Sequence[str],
        shape: Shape,
        *,
        captions: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        bad: list[BadFile] | None = None,
        num_workers: int | None = None,
    ) -> None:
        self.name = name
        self.names = names
        self.shape = shape
        self.captions = captions
        self.groups = groups
        self.bad = [] if bad is None else bad
        self.num_workers = num_workers
        self.splits: dict[str, np.ndarray] = {}
        self.normalisation = Normalisation((0.0,) * shape.channels, (1.0,) * shape.channels)

    def __len__(self) -> int:
        return len(self.names)

    # ------------------------------------------------------------------------ what a signal defines

    @property
    @abstractmethod
    def in_memory(self) -> bool: ...

    @abstractmethod
    def read_good(self, ids: np.ndarray) -> Found:
        """What can be read of some items."""

    @abstractmethod
    def describe(self) -> dict[str, Any]: ...

    def remarks(self) -> list[str]:
        """What a user should know before training, a sentence each."""
        skipped = [f"skipped {bad.name}: {bad.reason}" for bad in self.bad]
        return self.notes_in_words() + skipped

    def notes_in_words(self) -> list[str]:
        """How the source was read, a sentence each."""
        return []

    def augmented(
        self, values: Tensor, size: int, generator: torch.Generator, rows: slice
    ) -> Tensor:
        """Items changed at random. They are the `rows` of a batch of `size`, for all of which
        numbers are drawn, so that several ranks together see what one would.
        """
        return values

    def noisy(self, values: Tensor, names: Sequence[tuple[Any, ...]]) -> Tensor | None:
        """Items with noise that is to be removed, each from its own name alone.

        None where there shall be none.
        """
        return None

    @property
    def is_unchanged(self) -> bool:
        """False unless a signal knows that it changes nothing."""
        return False

    def for_codes(self, augment: Mapping[str, Any]) -> Self:
        """A copy without noise; a signal that changes its items takes `augment` for how."""
        return copy.copy(self)

    # -------------------------------------------------------------------------------------- batches

    @property
    def fingerprint(self) -> dict[str, Any]:
        description = self.describe()
        keys = ("images", "size", "channels", "splits", "normalisation")
        return {key: description[key] for key in keys}

    def read(self, ids: Sequence[int] | np.ndarray | Tensor) -> Batch:
        """The items of these numbers.

        VqkitError naming the file if one cannot be decoded (streamed sets only).
        """
        wanted = np.asarray(ids, dtype=np.int64)
        found = self.read_good(wanted)
        if found.bad:
            raise VqkitError(f"cannot read {found.bad[0].name}: {found.bad[0].reason}")
        return Batch(found.values, found.ids, mask=found.mask, known=found.known)

    def train(
        self, step: int, size: int, seed: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """Endless batches of size // ranks items, changed at random, from a step on.

        Step s is the same whether one starts at 0 or resumes at s, and the batches of all ranks one
        after another are the batch of a single rank. The global random number generator is never
        touched. Errors: VqkitError if size is not a multiple of ranks; a file that cannot be
        decoded is replaced by the next one of the training split and noted in `bad`, until they are
        more than 5 %.
        """
        if size % ranks:
            raise VqkitError(f"train.batch_size={size} must be a multiple of the {ranks} processes")
        rows = slice(rank * (size // ranks), (rank + 1) * (size // ranks))
        order = self.order(seed)

        def wanted() -> Iterator[np.ndarray]:
            at = step
            while True:
                yield order.positions(at * size + rows.start, at * size + rows.stop)
                at += 1

        for at, found in enumerate(self._fetch(wanted(), "train"), step):
            generator = torch.Generator().manual_seed(derive_seed("augment", seed, at))
            values = self.augmented(found.values, size, generator, rows)
            names = [("noise", seed, at, rows.start + row) for row in range(len(values))]
            yield _with_noise(found, values, self.noisy(values, names))

    def order(self, seed: int) -> Order | BlockOrder:
        """Which training item is seen when."""
        return Order(self.splits["train"], seed)

    def validation(self, size: int, seed: int) -> Iterator[Batch]:
        """The validation split once, with noise if any is to be removed."""
        for batch in self._split("validation", size):
            names = [("validation noise", seed, index) for index in batch.ids.tolist()]
            yield _with_noise(batch, batch.values, self.noisy(batch.values, names))

    def apart(self, name: str) -> np.ndarray:
        """Numbers of items that hold all of a split once: not those that overlap with others."""
        return self.splits[name]

    def firsts(self) -> np.ndarray:
        """Numbers of the items that files begin with, where one may be cut into several."""
        return np.arange(len(self))

    def files(self) -> Sequence[str]:
        """The file of each item, below the source; its name where there are none."""
        return self.names

    def split(self, name: str, size: int) -> Iterator[Batch]:
        """All of a split once, in its order, as it is.

        A file that cannot be decoded is left out, so that a batch may be smaller, and noted in
        `bad`.
        """
        for found in self._split(name, size):
            yield Batch(found.values, found.ids, mask=found.mask, known=found.known)

    def report_bad(self, found: BadFile) -> None:
        """Note a file that failed while it was streamed."""
        if found not in self.bad:
            self.bad.append(found)

    def _split(self, name: str, size: int) -> Iterator[Found]:
        ids = self.apart(name)
        parts = [ids[start : start + size] for start in range(0, len(ids), size)]
        return (found for found in self._fetch(parts, None) if len(found.ids))

    def _fetch(self, wanted: Iterable[np.ndarray], replace_from: str | None) -> Iterator[Found]:
        if self.in_memory:
            yield from map(self.read_good, wanted)
            return
        with warnings.catch_warnings():
            # More workers than cores, or a fork next to threads (Python 3.12): the number is the
            # user's choice, and the workers run no code of those threads.
            warnings.simplefilter("ignore")
            workers = self._num_workers()
            loader = DataLoader(
                _Reader(self, replace_from),
                sampler=_Lists(wanted),
                # A batch is one item: the sampler hands out whole lists of numbers.
                batch_size=None,
                num_workers=workers,
                prefetch_factor=PREFETCH if workers else None,
                collate_fn=_unchanged,
                # Without one, the global generator would be drawn from.
                generator=torch.Generator().manual_seed(0),
            )
            batches = iter(loader)
        for found in batches:
            # Workers have a copy of the set; the parent's is the one that counts.
            for bad in found.bad:
                self.report_bad(bad)
            yield found

    def _num_workers(self) -> int:
        """Beside a GPU processes read ahead; where training needs all cores itself they are faster
        when it waits (docs/benchmarks/tokens-at-scale.md).
        """
        if self.num_workers is not None:
            return self.num_workers
        return 2 if torch.cuda.is_available() else 0


class Order:
    """Which training item is seen when: one permutation per epoch, seeded by (seed, epoch).

    Epochs follow one another without a gap, so that a batch may end one and begin the next, or hold
    several.
    """

    def __init__(self, ids: np.ndarray, seed: int) -> None:
        self._ids = ids
        self._seed = seed
        self._epoch = -1
        self._permutation = ids

    def positions(self, start: int, stop: int) -> np.ndarray:  # (stop - start,) int64
        """Numbers of the items start..stop since the beginning of training."""
        count = len(self._ids)
        parts = []
        while start < stop:
            epoch, offset = divmod(start, count)
            if epoch != self._epoch:
                generator = torch.Generator().manual_seed(derive_seed("order", self._seed, epoch))
                self._epoch = epoch
                self._permutation = self._ids[torch.randperm(count, generator=generator).numpy()]
            taken = min(stop - start, count - offset)
            parts.append(self._permutation[offset : offset + taken])
            start += taken
        return np.concatenate(parts)


def _with_noise(found: Found | Batch, values: Tensor, noisy: Tensor | None) -> Batch:
    if noisy is None:
        return Batch(values, found.ids, mask=found.mask, known=found.known)
    return Batch(noisy, found.ids, target=values, mask=found.mask, known=found.known)


def _unchanged(batch: object) -> object:
    return batch


class _Lists:
    """A sampler, as DataLoader sees it, of lists of numbers."""

    def __init__(self, wanted: Iterable[np.ndarray]) -> None:
        self._wanted = wanted

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._wanted)


class _Reader(TorchDataset):
    """Reads lists of items; runs in the workers."""

    def __init__(self, data: IndexedDataset, replace_from: str | None) -> None:
        self._data = data
        self._ring = data.splits[replace_from] if replace_from else None

    def __getitem__(self, ids: np.ndarray) -> Found:
        found = self._data.read_good(ids)
        if not found.bad or self._ring is None:
            return found
        bad = list(found.bad)
        replaced = np.array([self._good_from(index, bad) for index in ids.tolist()], dtype=np.int64)
        batch = self._data.read(replaced)
        return Found(replaced, batch.values, batch.mask, bad, batch.known)

    def _good_from(self, index: int, bad: list[BadFile]) -> int:
        """The number, or the next one of the split that can be decoded.

        Failures are added to `bad`.
        """
        assert self._ring is not None
        place = int(np.flatnonzero(self._ring == index)[0])
        for step in range(len(self._ring)):
            chosen = self._ring[(place + step) % len(self._ring)]
            failures = self._data.read_good(np.array([chosen])).bad
            if not failures:
                return int(chosen)
            bad += failures
        raise VqkitError(f"no item of {self._data.name} can be decoded any more")
