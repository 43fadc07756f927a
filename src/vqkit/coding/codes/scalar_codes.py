"""Scalar codes of one item in little memory: of a large photograph there are hundreds of millions.

Shapes: codes (Q, *grid) with K levels each, of which the middle one stands for zero. They are kept
as signed numbers, zero in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# First and end of cells of the grid, along each of its sides.
Spans = Sequence[tuple[int, int]]
Numbers = NDArray[np.int16]


class _Block(NamedTuple):
    """Numbers of a box of cells.

    spans: the box. channels (n,): those that have numbers other than zero. numbers (n, *sides):
    theirs, int8 where all of them fit.
    """

    spans: Spans
    channels: NDArray[np.int64]
    numbers: NDArray[np.integer]


class ScalarCodes:
    """Codes (Q, *grid) of an item, box by box, all zero before any are set.

    A number takes a byte where those of its box and channel fit, and none where they are zero. As a
    sequence it is that of the codes of every channel, (*grid) int16; `numpy.asarray` gives all of
    them, (Q, *grid).
    """

    def __init__(self, count: int, grid: Sequence[int], levels: int) -> None:
        """Q, the sides of the grid, and K."""
        self.grid = tuple(grid)
        self.levels = levels
        self.half = (levels - 1) // 2
        self._count = count
        self._blocks: list[_Block] = []

    @classmethod
    def of(cls, codes: NDArray[np.integer], levels: int) -> ScalarCodes:
        """Those of an array (Q, *grid). ValueError for codes that are not from 0 to K - 1."""
        found = cls(len(codes), codes.shape[1:], levels)
        found.put([(0, side) for side in found.grid], codes)
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """(Q, *grid)."""
        return (self._count, *self.grid)

    @property
    def size(self) -> int:
        """The number of codes."""
        return math.prod(self.shape)

    def put(self, spans: Spans, codes: NDArray[np.integer]) -> None:
        """Set the codes (Q, *sides) of a box of cells, of which none was set before.

        ValueError for codes that are not from 0 to K - 1.
        """
        if codes.min() < 0 or codes.max() >= self.levels:
            raise ValueError(f"a code is not from 0 to {self.levels - 1}")
        self.put_numbers(spans, codes.astype(np.int16) - np.int16(self.half))

    def put_numbers(self, spans: Spans, numbers: Numbers) -> None:
        """Set the codes of a box, given as signed numbers (Q, *sides) within their bounds."""
        flat = numbers.reshape(len(numbers), -1)
        largest = np.maximum(flat.max(1), -flat.min(1))
        for dtype, first, last in ((np.int8, 1, 127), (np.int16, 128, self.half)):
            (channels,) = np.nonzero((largest >= first) & (largest <= last))
            if len(channels):
                self._blocks.append(_Block(tuple(spans), channels, numbers[channels].astype(dtype)))

    def numbers(self, spans: Spans) -> Numbers:
        """The signed numbers of a box of cells, (Q, *sides)."""
        sides = [end - start for start, end in spans]
        found = np.zeros((self._count, *sides), np.int16)
        for block in self._blocks:
            both = _both(block.spans, spans)
            if both:
                theirs, ours = both
                found[(block.channels, *ours)] = block.numbers[(slice(None), *theirs)]
        return found

    def codes(self, spans: Spans) -> Numbers:
        """The codes of a box of cells, (Q, *sides)."""
        found = self.numbers(spans)
        found += np.int16(self.half)
        return found

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, channel: int) -> Numbers:
        if not 0 <= channel < self._count:
            raise IndexError(channel)
        found = np.full(self.grid, self.half, np.int16)
        for block in self._blocks:
            place = int(np.searchsorted(block.channels, channel))
            if place < len(block.channels) and block.channels[place] == channel:
                box = tuple(slice(start, end) for start, end in block.spans)
                found[box] += block.numbers[place]
        return found

    def __iter__(self) -> Iterator[Numbers]:
        return map(self.__getitem__, range(self._count))

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> NDArray[np.integer]:
        if copy is False:
            raise ValueError("packed codes have no array of their own; ask for a copy")
        found = self.codes([(0, side) for side in self.grid])
        return found if dtype is None else found.astype(dtype)


def _both(theirs: Spans, ours: Spans) -> tuple[Any, Any] | None:
    """Where two boxes overlap, counted from the first cell of each; None where they do not."""
    in_theirs: list[slice] = []
    in_ours: list[slice] = []
    for (first, end), (own_first, own_end) in zip(theirs, ours, strict=True):
        low = max(first, own_first)
        high = min(end, own_end)
        if low >= high:
            return None
        in_theirs.append(slice(low - first, high - first))
        in_ours.append(slice(low - own_first, high - own_first))
    return in_theirs, in_ours
