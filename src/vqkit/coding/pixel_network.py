"""An integer network that says how a pixel is distributed: the starting state of lossless files.

Shapes: n slots, C neighbours of a slot, H hidden channels, M logistics that are mixed, P planes of an image.

Neighbours that are decoded before a slot go through three hidden layers of int16 weights, which make a mixture of
logistic distributions of them (Salimans et al. 2017, arXiv 1701.05517, eq. 2), in base 2: a weight, a mean relative to
an anchor that is guessed from the neighbours, and a scale for each. Everything is an integer and every sum of products
below 2^53, so that a float64 matrix product of them is exact. docs/file-format.md has it in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[np.int64]

LEVELS = 256
REACH = 3
"""rows and columns that a neighbour is away at most"""
MAX_HIDDEN, MAX_SIDE, MAX_PLANES = 1024, 1024, 4
BIAS_LIMIT = 1 << 28
MIXED = 4
"""logistics of a mixture, one for each anchor"""
STEP = 256
"""steps of a logit in which odds double"""
LIMIT = 16 * STEP
"""logits lie in -LIMIT .. LIMIT - 1"""
FLAG = 64
"""what stands for a black neighbour among the inputs"""
WEIGHT_BITS, INPUT_BITS, HIDDEN_BITS, OUTPUT_BITS = 10, 6, 7, 9
"""behind the point of weights, of inputs (1 is 64 pixels), of hidden channels and of what comes out"""
MOST = 1023
"""largest value of a hidden channel"""
ARRAYS = {
    "first": np.int16, "rows": np.int32, "columns": np.int32, "second": np.int16, "second_bias": np.int32,
    "third": np.int16, "third_bias": np.int32, "last": np.int16, "last_bias": np.int32,
}  # fmt: skip


def _power(eighths: int) -> int:
    """floor(2^(eighths / 256)): eight square roots, each of which may be rounded down."""
    value = 1 << eighths
    for _ in range(8):
        value = math.isqrt(value)
    return value


_HALVES = np.array([_power(30 * STEP - step) for step in range(STEP)], np.int64)
_BELOW = np.arange(LIMIT + 1)
POWERS = _HALVES[_BELOW % STEP] >> (_BELOW // STEP)
"""2^30 times 2^(-i / 256), rounded down, for i up to LIMIT"""
SQUASH = np.concatenate(
    [(POWERS[:0:-1] << 16) // ((1 << 30) + POWERS[:0:-1]), (1 << 46) // ((1 << 30) + POWERS[:LIMIT])]
).clip(1, 65535)
"""probability, of 65536, at logit l - LIMIT: odds of 2^(l / 256)"""
STRETCH = np.searchsorted(SQUASH, np.arange(1 << 16)).clip(0, 2 * LIMIT - 1) - LIMIT
"""the lowest logit at which SQUASH reaches a probability"""


def neighbours(plane: int) -> list[tuple[int, int, int]]:
    """Planes back, rows down and columns right of the C neighbours: nearest of its own plane, 3 x 3 of those before."""
    own = [(0, y, x) for y in range(-REACH, 1) for x in range(-REACH, REACH + 1) if (y, x) < (0, 0)]
    return own + [(-back, y, x) for back in range(1, plane + 1) for y in (-1, 0, 1) for x in (-1, 0, 1)]


def num_inputs(plane: int) -> int:
    """Inputs of the network of a plane: C differences, C flags, and the level that the differences are from."""
    return 2 * len(neighbours(plane)) + 1


def inputs(values: Ints, plane: int) -> tuple[Ints, Ints]:
    """Neighbours (n, C) in the order of `neighbours` -> inputs (n, 2 C + 1), anchors (n, MIXED) in pixels.

    Anchors: mean of west and north; west; north; their plane through north-west, or from the plane before, west and
    north moved as that one moves.
    """
    at = {place: values[:, number] for number, place in enumerate(neighbours(plane))}
    west, north, corner = at[0, 0, -1], at[0, -1, 0], at[0, -1, -1]
    level = (west + north) >> 1
    last = west + north - corner
    if plane:
        here = at[-1, 0, 0]
        west, north = west + here - at[-1, 0, -1], north + here - at[-1, -1, 0]
    anchors = np.stack([level, west, north, last], 1)
    return np.concatenate([values - level[:, None], FLAG * (values == 0), level[:, None]], 1), anchors


@dataclass(frozen=True)
class Layers:
    """The network of one plane.

    first (2 C + 1, H), second (H, H), third (H, H), last (H, 3 MIXED): int16. rows (GH, H), columns (GW, H),
    second_bias (H,), third_bias (H,), last_bias (3 MIXED,): int32 within BIAS_LIMIT; rows and columns are of the size
    of training.
    """

    first: Array
    rows: Array
    columns: Array
    second: Array
    second_bias: Array
    third: Array
    third_bias: Array
    last: Array
    last_bias: Array

    def outputs(self, values: Ints, rows: Ints, columns: Ints) -> Ints:
        """Inputs (n, 2 C + 1) at rows and columns (n,) of the size of training -> (n, 3 MIXED)."""
        hidden = _activate(_product(values, self.first) + self.rows[rows] + self.columns[columns], INPUT_BITS)
        hidden = _activate(_product(hidden, self.second) + self.second_bias, HIDDEN_BITS)
        hidden = _activate(_product(hidden, self.third) + self.third_bias, HIDDEN_BITS)
        return _shifted(_product(hidden, self.last) + self.last_bias, HIDDEN_BITS, OUTPUT_BITS)


def _shifted(sums: Ints, given: int, wanted: int) -> Ints:
    """Products of weights with numbers that have `given` bits behind the point, to so many bits, halves up."""
    shift = given + WEIGHT_BITS - wanted
    return (sums + (1 << shift >> 1)) >> shift


def _product(left: Array, right: Array) -> Ints:
    return (left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)


def _activate(sums: Ints, given: int) -> Ints:
    return np.clip(_shifted(sums, given, HIDDEN_BITS), 0, MOST)


def cumulative(outputs: Ints, anchors: Ints) -> Ints:
    """(n, 3 MIXED), (n, MIXED) -> of 2^24, what lies below each level and below LEVELS: (n, LEVELS + 1), rising.

    Outputs are logits of weights, means and scales, in this order, in 512ths of an octave, of 64 pixels, of an octave.
    """
    logits, means, scales = (outputs[:, part : part + MIXED] for part in range(0, 3 * MIXED, MIXED))
    weights = POWERS[np.minimum((logits.max(1, keepdims=True) - logits) >> 1, LIMIT)]
    weights = (weights << 16) // weights.sum(1, keepdims=True)
    scales = np.clip(scales >> 1, -8 * STEP, 4 * STEP)  # sixteen pixels where they are 0
    edges = 8 * np.arange(1, LEVELS) - 4  # in eighths of a pixel
    distance = edges - (8 * anchors + means)[:, :, None]
    # POWERS[scale + 8 octaves] is 2^(22 - scale): logits are 16 pixels = 2^7 eighths = 256 steps where scales are 0
    logits = (distance * POWERS[scales + 8 * STEP][:, :, None]) >> 21
    below = (weights[:, :, None] * SQUASH[np.clip(logits, -LIMIT, LIMIT - 1) + LIMIT]).sum(1) >> 8
    ends = np.zeros((len(below), 1), np.int64)
    below = np.concatenate([ends, below, ends + (1 << 24)], 1)
    return (below * 255 >> 8) + (np.arange(LEVELS + 1) << 8)


@dataclass(frozen=True)
class PixelNetwork:
    """Networks of all planes, P of them."""

    planes: list[Layers]

    def distribution(self, values: Ints, plane: int, rows: Ints, columns: Ints, size: tuple[int, int]) -> Ints:
        """Neighbours (n, C) at rows and columns (n,) of an image of that size -> (n, LEVELS + 1), see `cumulative`."""
        layers = self.planes[plane]
        given, anchors = inputs(values, plane)
        rows, columns = rows * len(layers.rows) // size[0], columns * len(layers.columns) // size[1]
        return cumulative(layers.outputs(given, rows, columns), anchors)

    def tensors(self) -> dict[str, Array]:
        """Everything, by name, for a file; `from_tensors` takes it back."""
        return {f"{n}.{name}": getattr(layers, name) for n, layers in enumerate(self.planes) for name in ARRAYS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> PixelNetwork:
        """ValueError for what breaks a bound that exactness or memory rests on."""
        planes = len(tensors) // len(ARRAYS)
        names = {f"{plane}.{name}" for plane in range(planes) for name in ARRAYS}
        if set(tensors) != names or not 1 <= planes <= MAX_PLANES:
            raise ValueError("these are not the tensors of the networks of 1 to 4 planes")
        return cls([_read_layers(tensors, plane) for plane in range(planes)])


def _read_layers(tensors: Mapping[str, Array], plane: int) -> Layers:
    found = {name: tensors[f"{plane}.{name}"] for name in ARRAYS}
    hidden = found["second_bias"].size
    sides = [len(found[name]) if found[name].ndim else 0 for name in ("rows", "columns")]
    if not (1 <= hidden <= MAX_HIDDEN and all(1 <= side <= MAX_SIDE for side in sides)):
        raise ValueError(f"the sizes of plane {plane} are out of bounds")
    last = (hidden, 3 * MIXED), (3 * MIXED,)
    square = (hidden, hidden), (hidden,)
    shapes = (num_inputs(plane), hidden), (sides[0], hidden), (sides[1], hidden), *square, *square, *last
    for (name, values), shape in zip(found.items(), shapes, strict=True):
        limit = (1 << 15) - 1 if ARRAYS[name] is np.int16 else BIAS_LIMIT
        if values.dtype != ARRAYS[name] or values.shape != shape:
            raise ValueError(f"tensor {plane}.{name} is {values.dtype} {values.shape}")
        if not -limit <= int(values.min()) <= int(values.max()) <= limit:
            raise ValueError(f"tensor {plane}.{name} holds numbers beyond {limit}")
    return Layers(**found)
