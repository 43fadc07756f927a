"""What every set of items is to the layers above, whatever kind of signal it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from torch import Tensor

from ..shapes import Shape
from .normalisation import Normalisation


class Batch(NamedTuple):
    """Items that go through a model together.

    values: (B, C, *extent), as they come from files. ids: (B,) int64, their numbers in the set.
    target: what a model shall make of them, None = the same. mask: (B, *extent) bool, True where a
    position is real; None = everywhere. known: (B, C, *extent) bool, True where a value is there,
    of items that miss single channels of a real position; None = as mask says.
    """

    values: Tensor
    ids: np.ndarray
    target: Tensor | None = None
    mask: Tensor | None = None
    known: Tensor | None = None

    @property
    def counted(self) -> Tensor | None:
        """`known`, or else `mask`: what has a part in losses and measures."""
        return self.mask if self.known is None else self.known


class Dataset(Protocol):
    """Items that are found, split and measured.

    shape: of every item as training sees it. normalisation: what standardises the values. splits:
    numbers (int64) of the items of train, validation and test. names: one an item; captions and
    groups: likewise, or None. fingerprint: plain values that are equal for equal items in equal
    splits.
    """

    name: str
    shape: Shape
    normalisation: Normalisation
    splits: Mapping[str, np.ndarray]
    names: Sequence[str]
    captions: Sequence[str] | None
    groups: Sequence[str] | None

    @property
    def fingerprint(self) -> dict[str, Any]: ...

    @property
    def is_unchanged(self) -> bool:
        """Whether `train` is known to give items as they are, so that codes of one stay right."""

    def __len__(self) -> int: ...

    def train(
        self, step: int, size: int, seed: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[Batch]:
        """Endless batches of size // ranks training items, changed at random, from a step on.

        A pure function of step and seed; those of all ranks joined are the batch of one process.
        """

    def validation(self, size: int, seed: int) -> Iterator[Batch]:
        """The validation split once, as training is measured on it: unchanged, but for noise that
        is to go.
        """

    def split(self, name: str, size: int) -> Iterator[Batch]:
        """All of a split once, in its order, as it is: no items that overlap with others."""

    def firsts(self) -> np.ndarray:
        """Numbers of the items that files begin with, where one may be cut into several."""

    def files(self) -> Sequence[str]:
        """The file of each item, below the source; its name where there are none."""

    def read(self, ids: np.ndarray) -> Batch:
        """The items of these numbers. VqkitError naming the one that cannot be read."""

    def for_codes(self, augment: Mapping[str, Any]) -> Self:
        """The same items as a prior is trained on: changed in another way, without noise."""

    def describe(self) -> dict[str, Any]:
        """Counts, sizes, splits, bad files and the normalisation: plain values that JSON can
        hold.
        """
