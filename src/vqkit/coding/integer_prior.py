"""An integer network that says how likely each code is: the same numbers on every machine.

Shapes: N items or slots, Q stages (codebooks), h w the grid of codes, C context codes of a slot, e the length of a
code's vector, H hidden channels, K codes of a stage.

The codes around a slot that are decoded before it are looked up as vectors of int8; two hidden layers of int8 weights
make logits of them, in fractions of an octave, and a table makes frequencies of those. A product of int8 numbers over
at most MAX_FAN_IN terms stays below 2^24, so a float32 matrix product of them is exact in whatever order it is summed:
it runs on plain BLAS and gives the same bits with every instruction set and number of threads. docs/file-format.md has
it in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rangecoder import BatchDecoder, encode_batch

Array = NDArray[Any]
Ints = NDArray[np.int64]

MAX_FAN_IN = 1040
"""127 * 127 * 1040 < 2^24"""
BIAS_LIMIT = 1 << 21
TOTAL = 1 << 16
"""sum of the frequencies of a slot"""
OCTAVE = 32
"""steps of a logit in which the frequency doubles"""
REACH = 3
"""rows and columns that a context code is away at most"""
MAX_STAGES, MAX_CODES, MAX_POSITIONS = 64, 1 << 14, 1 << 20
WEIGHTS = ("first", "rows", "columns", "second", "second_bias", "last", "last_bias")
ROWS = 2048
"""slots whose frequencies are in memory at once"""


def _root(step: int) -> int:
    """floor(2^(30 - step / 32)): a 32nd root is five square roots, each of which may be rounded down."""
    value = 1 << (30 * OCTAVE - step)
    for _ in range(5):
        value = math.isqrt(value)
    return value


EXP2 = np.array([_root(step % OCTAVE) >> (step // OCTAVE) for step in range(24 * OCTAVE)] + [0], dtype=np.int64)
"""2^30 times 2^(-i / 32), rounded down; 0 behind the last"""


@dataclass(frozen=True)
class Stage:
    """The network of one stage.

    context: (C, 3) how many stages, rows and columns further a context code is, none of which lies behind the slot in
    coding order. first (C * e, H), second (H, H), last (H, K): int8. rows (h, H), columns (w, H), second_bias (H,),
    last_bias (K,): int32 below BIAS_LIMIT. shifts: (3,) bits that sums lose on their way to the next layer.
    """

    context: Ints
    first: Array
    rows: Array
    columns: Array
    second: Array
    second_bias: Array
    last: Array
    last_bias: Array
    shifts: tuple[int, int, int]

    def logits(self, vectors: Array, y: Ints, x: Ints) -> Ints:
        """Vectors (N, C * e) float32 of whole numbers, rows and columns (N,) of the grid of training -> (N, K)."""
        one, two, three = self.shifts
        hidden = _product(vectors, self.first) + self.rows[y] + self.columns[x]
        hidden = _product(_activate(hidden, one), self.second) + self.second_bias
        return (_product(_activate(hidden, two), self.last) + self.last_bias) >> three


def _product(left: Array, right: Array) -> Ints:
    return (left.astype(np.float32) @ right.astype(np.float32)).astype(np.int64)


def _activate(sums: Ints, shift: int) -> Ints:
    return np.clip((sums + (1 << shift >> 1)) >> shift, 0, 127)


def frequencies(logits: Ints) -> Ints:
    """(N, K) logits -> (N, K) frequencies of at least 1 that sum to TOTAL; the likeliest gets what rounding left."""
    best = logits.argmax(1)
    rows = np.arange(len(logits))
    weights = EXP2[np.minimum(logits[rows, best][:, None] - logits, len(EXP2) - 1)]
    found = 1 + weights * (TOTAL - logits.shape[1]) // weights.sum(1, keepdims=True)
    found[rows, best] += TOTAL - found.sum(1)
    return found


@dataclass(frozen=True)
class IntegerPrior:
    """Stages in coding order, and vectors (K + 1, e) int8 of the codes of each; the last is for what is not there.

    grid: (h, w) of training; positions of another grid are scaled to it.
    """

    grid: tuple[int, int]
    vectors: list[Array]
    stages: list[Stage]

    def tensors(self) -> dict[str, Array]:
        """Everything, by name, for a file; `from_tensors` takes it back."""
        found: dict[str, Array] = {"grid": np.array(self.grid, dtype=np.int32)}
        for number, stage in enumerate(self.stages):
            found[f"{number}.vectors"] = self.vectors[number]
            found[f"{number}.context"] = stage.context.astype(np.int8)
            found[f"{number}.shifts"] = np.array(stage.shifts, dtype=np.int8)
            found |= {f"{number}.{name}": getattr(stage, name) for name in WEIGHTS}
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> IntegerPrior:
        """ValueError for what breaks a bound that exactness or memory rests on."""
        height, width = (int(side) for side in _checked(tensors, "grid", np.int32, (2,)))
        if not 1 <= height * width <= MAX_POSITIONS or height < 1:
            raise ValueError(f"a grid of {height} x {width} is out of bounds")
        vectors: list[Array] = []
        stages: list[Stage] = []
        while f"{len(stages)}.vectors" in tensors and len(stages) < MAX_STAGES:
            length = vectors[0].shape[1] if vectors else -1
            vectors.append(_checked(tensors, f"{len(stages)}.vectors", np.int8, (-1, length)))
            stages.append(_read_stage(tensors, len(stages), (height, width), vectors[-1].shape))
        if len(tensors) != 1 + len(stages) * (3 + len(WEIGHTS)) or not stages:
            raise ValueError("there are tensors that no stage has")
        return cls((height, width), vectors, stages)

    def encode(self, codes: Ints) -> list[list[bytes]]:
        """Codes (N, Q, h, w) -> for each item the bytes of each stage. ValueError for codes that no stage has."""
        found: list[list[bytes]] = [[] for _ in codes]
        grid = codes.shape[2:]
        count = grid[0] * grid[1]
        for number, stage in enumerate(self.stages):
            wanted = codes[:, number].reshape(len(codes), count)
            if wanted.size and not 0 <= wanted.min() <= wanted.max() < stage.last.shape[1]:
                raise ValueError(f"codes of stage {number} must lie in [0, {stage.last.shape[1]})")
            padded = self._padded(codes, number)
            starts, sizes = np.zeros_like(wanted), np.zeros_like(wanted)
            for first in range(0, wanted.size, ROWS):
                flat = np.arange(first, min(first + ROWS, wanted.size))
                item, slot = flat // count, flat % count
                table = self._frequencies(number, padded, item, slot // grid[1], slot % grid[1])
                chosen = wanted[item, slot]
                rows = np.arange(len(flat))
                sizes[item, slot] = table[rows, chosen]
                starts[item, slot] = table.cumsum(1)[rows, chosen] - table[rows, chosen]
            for item, payload in enumerate(encode_batch(starts, sizes)):
                found[item].append(payload)
        return found

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: tuple[int, int]) -> Ints:
        """Bytes of the first stages of every item, as many for each -> codes (N, stages, h, w).

        Wrong bytes give wrong codes and never anything else: the check sums of the container tell. ValueError for items
        with different numbers of stages, or more than there are.
        """
        given = len(payloads[0]) if payloads else 0
        if any(len(item) != given for item in payloads) or given > len(self.stages):
            raise ValueError(f"items must have the same number of stages, at most {len(self.stages)}")
        codes = np.zeros((len(payloads), given, *grid), dtype=np.int64)
        items = np.arange(len(payloads))
        for number in range(given):
            decoder = BatchDecoder([item[number] for item in payloads])
            padded = self._padded(codes, number)
            for y, x in np.ndindex(*grid):
                table = self._frequencies(number, padded, items, *np.full((2, len(items)), [[y], [x]]))
                ends = table.cumsum(1)
                chosen = (ends <= decoder.targets()[:, None]).sum(1)
                sizes = table[items, chosen]
                decoder.advance(ends[items, chosen] - sizes, sizes)
                codes[:, number, y, x] = padded[number][:, y + REACH, x + REACH] = chosen
        return codes

    def _padded(self, codes: Ints, number: int) -> list[Ints]:
        """Codes of stages 0 .. number with a border of codes that are not there, (N, h + 2 REACH, w + 2 REACH) each."""
        sides = ((0, 0), (REACH, REACH), (REACH, REACH))
        return [
            np.pad(codes[:, stage], sides, constant_values=len(self.vectors[stage]) - 1) for stage in range(number + 1)
        ]

    def _frequencies(self, number: int, padded: list[Ints], item: Ints, y: Ints, x: Ints) -> Ints:
        """Frequencies (N, K) of slots: item, row and column (N,) each."""
        stage = self.stages[number]
        parts = [
            self.vectors[number + back][padded[number + back][item, y + down + REACH, x + right + REACH]]
            for back, down, right in stage.context
        ]
        height, width = (side - 2 * REACH for side in padded[0].shape[1:])
        logits = stage.logits(np.concatenate(parts, 1), y * self.grid[0] // height, x * self.grid[1] // width)
        return frequencies(logits)


def _read_stage(tensors: Mapping[str, Array], number: int, grid: tuple[int, int], vectors: tuple[int, ...]) -> Stage:
    size, length = vectors[0] - 1, vectors[1]
    context = _checked(tensors, f"{number}.context", np.int8, (-1, 3)).astype(np.int64)
    for back, down, right in context.tolist():
        if not (
            -number <= back <= 0 and abs(down) <= REACH and abs(right) <= REACH and (back, down, right) < (0, 0, 0)
        ):
            raise ValueError(f"stage {number} looks at codes that are not decoded yet")
    hidden = _checked(tensors, f"{number}.second_bias", np.int32, (-1,)).shape[0]
    shapes = {
        "first": (len(context) * length, hidden), "rows": (grid[0], hidden), "columns": (grid[1], hidden),
        "second": (hidden, hidden), "second_bias": (hidden,), "last": (hidden, size), "last_bias": (size,),
    }  # fmt: skip
    if not 2 <= size <= MAX_CODES or max(len(context) * length, hidden) > MAX_FAN_IN or not len(context) * hidden:
        raise ValueError(f"the sizes of stage {number} are out of bounds")
    weights = {
        name: _checked(tensors, f"{number}.{name}", np.int8 if name in ("first", "second", "last") else np.int32, shape)
        for name, shape in shapes.items()
    }
    one, two, three = (int(shift) for shift in _checked(tensors, f"{number}.shifts", np.int8, (3,)))
    if not all(0 <= shift < 24 for shift in (one, two, three)):
        raise ValueError(f"the shifts of stage {number} are out of bounds")
    return Stage(context, **weights, shifts=(one, two, three))


def _checked(tensors: Mapping[str, Array], name: str, dtype: type, shape: tuple[int, ...]) -> Array:
    """A tensor of that type and shape, -1 standing for any length, int32 within BIAS_LIMIT and int8 above -128."""
    if name not in tensors:
        raise ValueError(f"tensor {name} is missing")
    found = tensors[name]
    fits = found.ndim == len(shape) and all(want in (-1, got) for want, got in zip(shape, found.shape, strict=True))
    if found.dtype != dtype or not fits:
        raise ValueError(f"tensor {name} is {found.dtype} {found.shape}")
    limit = 127 if dtype is np.int8 else BIAS_LIMIT
    if found.size and not -limit <= int(found.min()) <= int(found.max()) <= limit:
        raise ValueError(f"tensor {name} holds numbers beyond {limit}")
    return found


def context_offsets(stage: int) -> list[tuple[int, int, int]]:
    """Context of a slot of a stage: nearest of its own stage before it, the stage below around it, all others at it."""
    before = [
        (0, down, right) for down in range(-REACH, 1) for right in range(-REACH, REACH + 1) if (down, right) < (0, 0)
    ]
    below = [(-1, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)] if stage else []
    return before + below + [(-back, 0, 0) for back in range(2, min(stage, 8) + 1)]
