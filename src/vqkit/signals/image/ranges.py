"""Values of more than 8 bits to uint8: one scale for a whole set, found from the set, saved with
the model.

8-bit values are never scaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

# Share of the values of an image that may lie outside a range that was found, as a hot pixel or an
# outlier does.
MAX_CLIPPED = 0.01


@dataclass(frozen=True)
class ValueRange:
    """Values that become 0 and 255. What lies outside is clipped.

    chosen: by the user, who then wants what is outside to be clipped. A range that was found from a
    set refuses images of which more than MAX_CLIPPED lies outside: they are of another kind.
    """

    low: float
    high: float
    chosen: bool = False


UNIT = ValueRange(0, 1)
SIXTEEN_BITS = ValueRange(0, 65535)


class Extent:
    """Smallest and largest of the values that were added, kept as running totals."""

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.are_whole = True

    def add(self, values: np.ndarray) -> None:
        """Take in an array of numbers. ValueError for NaN or infinite ones, which change
        nothing.
        """
        low = float(values.min())
        high = float(values.max())
        _check_finite(low, high)
        self.merge(low, high, _are_whole(values.dtype))

    def merge(self, low: float, high: float, are_whole: bool) -> None:
        """Take in the extent of other values."""
        self.low = min(self.low, low)
        self.high = max(self.high, high)
        self.are_whole = self.are_whole and are_whole

    @property
    def is_empty(self) -> bool:
        return self.low > self.high

    def range(self) -> ValueRange:
        """Black and white for a set with these values.

        Floats in [0, 1]: 0 and 1. Whole numbers from 0 on: 0 and the largest value of as many bits
        as the largest of them has, 4095 for 12-bit values. Everything else: the smallest and the
        largest value.
        """
        if self.are_whole and self.low >= 0:
            return ValueRange(0, 2 ** max(8, int(self.high).bit_length()) - 1)
        if self.low >= 0 and self.high <= 1:
            return UNIT
        if self.high == self.low:
            return ValueRange(self.low, self.low + 1)
        return ValueRange(self.low, self.high)


def _are_whole(dtype: np.dtype) -> bool:
    return dtype.kind in "iu"


def to_bytes(values: np.ndarray[Any, np.dtype[Any]], value_range: ValueRange | None) -> np.ndarray:
    """Numbers as uint8, rounded to the nearest level and clipped; the same shape.

    value_range None: the one of the dtype, [0, 1] for floats and [0, 65535] for whole numbers;
    nothing may lie outside. ValueError for NaN, infinity and what the range refuses.
    """
    low = float(values.min())
    high = float(values.max())
    _check_finite(low, high)
    used = value_range
    if used is None:
        used = SIXTEEN_BITS if _are_whole(values.dtype) else UNIT
    if (low < used.low or high > used.high) and not used.chosen:
        _check_clipped(values, used, value_range is not None)
    # In single precision where that is exact enough; float32 images of 8-bit values come back as
    # they were. Python's numbers take the precision of the array.
    precise: np.ndarray = values.astype(np.float32 if used == UNIT else np.float64)
    scaled = (precise - used.low) * (255 / (used.high - used.low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _check_finite(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(high - low)):
        raise ValueError("holds NaN or infinite values")


def _check_clipped(values: np.ndarray, used: ValueRange, is_known: bool) -> None:
    seen = f"its values go from {float(values.min()):g} to {float(values.max()):g}"
    if not is_known:
        kind = "whole numbers" if _are_whole(values.dtype) else "floats"
        raise ValueError(
            f"{seen}, and without a known range {kind} must lie in [{used.low:g}, {used.high:g}]"
        )
    outside = float(((values < used.low) | (values > used.high)).mean())
    if outside > MAX_CLIPPED:
        raise ValueError(
            f"{seen}, and {outside:.0%} of them lie outside of the range {used.low:g} to "
            f"{used.high:g} of the training images; scale them to it first"
        )
