"""Codes to bytes and back under an integer network, one for each stage.

Shapes: N items, Q stages (codebooks), h w the grid of codes, C context codes of a slot, e the length of a code's
vector, K codes of a stage. Slots are coded row by row, from the left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .integer_network import (
    BIAS_LIMIT,
    HEAD,
    MAX_FAN_IN,
    MAX_LAYERS,
    STRIDE,
    Array,
    Ints,
    Layer,
    Memory,
    Network,
    frequencies,
)
from .rangecoder import BatchDecoder, check_position, encode_batch

REACH = 3
"""rows and columns that a context code is away at most"""
MAX_STAGES, MAX_CODES, MAX_POSITIONS = 64, 1 << 14, 1 << 20
MAX_COSTS = 1 << 18
"""distances of slots to codes that are in memory at once for one item"""
MAX_FREQUENCIES = 1 << 20
"""that are in memory at once, of one item at least"""


Distances = Callable[[slice, Ints, slice], Array]
"""items and slots, and the codes (n, q, h, w) of the stages before of these items -> (n, slots, K) what codes cost"""


@dataclass(frozen=True)
class IntegerPrior:
    """Stages in coding order, and vectors (K + 1, e) int8 of the codes of each; the last is for what is not there.

    grid: (h, w) of training; positions of another grid are scaled to it.
    """

    grid: tuple[int, int]
    vectors: list[Array]
    stages: list[Network]

    def tensors(self) -> dict[str, Array]:
        """Everything, by name, for a file; `from_tensors` takes it back."""
        found: dict[str, Array] = {"grid": np.array(self.grid, dtype=np.int32)}
        for number, stage in enumerate(self.stages):
            found[f"{number}.vectors"] = self.vectors[number]
            found[f"{number}.context"] = stage.context.astype(np.int8)
            found |= {f"{number}.{name}": getattr(stage, name) for name in ("first", "rows", "columns")}
            for depth, layer in enumerate(stage.layers):
                found |= {f"{number}.{depth}.{name}": value for name, value in vars(layer).items()}
            found |= {f"{number}.{name}": getattr(stage, name) for name in ("last", "last_bias")}
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> IntegerPrior:
        """ValueError for what breaks a bound that exactness or memory rests on."""
        height, width = (int(side) for side in _checked(tensors, "grid", np.int32, (2,)))
        if not 1 <= height * width <= MAX_POSITIONS or height < 1:
            raise ValueError(f"a grid of {height} x {width} is out of bounds")
        vectors: list[Array] = []
        stages: list[Network] = []
        while f"{len(stages)}.vectors" in tensors and len(stages) < MAX_STAGES:
            length = vectors[0].shape[1] if vectors else -1
            vectors.append(_checked(tensors, f"{len(stages)}.vectors", np.int8, (-1, length)))
            stages.append(_read_stage(tensors, len(stages), (height, width), vectors[-1].shape))
        if len(tensors) != 1 + sum(7 + 4 * len(stage.layers) for stage in stages) or not stages:
            raise ValueError("there are tensors that no stage has")
        return cls((height, width), vectors, stages)

    def first(self, num_stages: int) -> IntegerPrior:
        """The same with the first stages alone, which need no other."""
        return IntegerPrior(self.grid, self.vectors[:num_stages], self.stages[:num_stages])

    def encode(self, codes: Ints) -> list[list[bytes]]:
        """Codes (N, Q, h, w) of the first stages -> the bytes of each, by item. ValueError for codes out of range."""
        found: list[list[bytes]] = [[] for _ in codes]
        count = codes.shape[2] * codes.shape[3]
        for number, stage in enumerate(self.stages[: codes.shape[1]]):
            wanted = codes[:, number].reshape(len(codes), count)
            if wanted.size and not 0 <= wanted.min() <= wanted.max() < stage.last.shape[1]:
                raise ValueError(f"codes of stage {number} must lie in [0, {stage.last.shape[1]})")
            for item, payload in enumerate(encode_batch(*self._intervals(codes, number, wanted))):
                found[item].append(payload)
        return found

    def _intervals(self, codes: Ints, number: int, wanted: Ints) -> tuple[Ints, Ints]:
        """Where the shares of the codes of a stage, wanted (N, n), start, and how large they are: (N, n) each."""
        starts, sizes, count = np.zeros_like(wanted), np.zeros_like(wanted), wanted.shape[1]
        compiled = _compiled_prior()
        if compiled:

            def weigh(item: int) -> None:
                around, walk = self._compiled_walk(compiled, codes[item : item + 1], number)
                compiled.weigh_slots(*walk, around.first, starts[item], sizes[item])

            _in_threads(weigh, len(codes))
            return starts, sizes
        stride, size = min(count, STRIDE), self.stages[number].last.shape[1]
        for rows in _parts(len(codes), max(1, MAX_FREQUENCIES // (stride * size))):
            around = _Surroundings(self, codes[rows], number)
            memory = self.stages[number].memory(rows.stop - rows.start, count)
            for slots in _parts(count, stride):
                table = self._frequencies(number, around, np.arange(slots.start, slots.stop), memory)
                chosen = wanted[rows, slots, None]
                sizes[rows, slots] = np.take_along_axis(table, chosen, 2)[..., 0]
                starts[rows, slots] = np.take_along_axis(table.cumsum(2), chosen, 2)[..., 0] - sizes[rows, slots]
        return starts, sizes

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: tuple[int, int]) -> Ints:
        """Bytes of the first stages of every item, as many for each -> codes (N, stages, h, w).

        With numba, items are decoded one by one in as many threads as there are cores, sooner and with the same codes;
        without, side by side. Wrong bytes give wrong codes, as
        the check sums of the container tell, or CorruptCodes where they end too soon. ValueError for items with
        different numbers of stages, or more than there are.
        """
        given = len(payloads[0]) if payloads else 0
        if any(len(item) != given for item in payloads) or given > len(self.stages):
            raise ValueError(f"items must have the same number of stages, at most {len(self.stages)}")
        codes = np.zeros((len(payloads), given, *grid), dtype=np.int64)
        compiled = _compiled_prior()
        if compiled:

            def decode_item(item: int) -> None:
                for number, data in enumerate(payloads[item]):
                    self._decode_compiled(compiled, codes[item : item + 1], number, data)

            _in_threads(decode_item, len(payloads))
            return codes
        for number in range(given):
            decoder = BatchDecoder([item[number] for item in payloads])

            def choose(slot: int, table: Ints, decoder: BatchDecoder = decoder) -> Ints:
                return _decoded(decoder, table)

            self._fill(codes, number, choose)
        return codes

    def assign(self, distances: Distances, count: int, grid: tuple[int, int], num_stages: int, weight: float) -> Ints:
        """Codes (N, num_stages, h, w) of N items, each the one with the least distance + weight * bits.

        One after the other in the order of coding, so that a choice pays for itself alone (Chou et al. 1989, entropy-
        constrained vector quantisation).
        """
        codes = np.zeros((count, num_stages, *grid), dtype=np.int64)
        compiled = _compiled_prior()
        if compiled:

            def choose_item(item: int) -> None:
                for number in range(num_stages):
                    self._choose_compiled(compiled, codes, slice(item, item + 1), number, distances, weight)

            _in_threads(choose_item, count)
            return codes
        for number in range(num_stages):

            def choose(slot: int, table: Ints, before: Ints = codes[:, :number]) -> Ints:
                far = distances(slice(0, count), before, slice(slot, slot + 1))[:, 0]
                return (far - weight * np.log2(table)).argmin(1)

            self._fill(codes, number, choose)
        return codes

    def _decode_compiled(self, compiled: Any, codes: Ints, number: int, data: bytes) -> None:
        """Set a stage of the codes (1, Q, h, w) of one item."""
        around, walk = self._compiled_walk(compiled, codes, number)
        decoder = np.array([1 << 32, int.from_bytes(data[:4].ljust(4, b"\0")), 4])
        compiled.decode_slots(*walk, around.first, np.frombuffer(data, np.uint8), decoder)
        check_position(decoder[2], len(data))
        codes[0, number] = around.codes()

    def _choose_compiled(
        self, compiled: Any, codes: Ints, item: slice, number: int, distances: Distances, weight: float
    ) -> None:
        """Set a stage of one of the items whose codes are (N, Q, h, w)."""
        around, walk = self._compiled_walk(compiled, codes[item], number)
        for slots in _parts(around.grid[0] * around.grid[1], max(1, MAX_COSTS // len(self.stages[number].last_bias))):
            costs = distances(item, codes[item, :number], slots)[0].astype(np.float64)
            compiled.choose_slots(*walk, around.first, slots.start, costs, weight)
        codes[item, number] = around.codes()

    def _compiled_walk(self, compiled: Any, codes: Ints, number: int) -> tuple[_Surroundings, tuple[Any, ...]]:
        """Of a stage of one item, codes (1, Q, h, w): what compiled walks over its slots take first."""
        around, stage = _Surroundings(self, codes, number), self.stages[number]
        (height, width), (rows, columns) = around.grid, self.grid
        y, x = np.divmod(np.arange(height * width), width)
        where = (
            around.flat[0], around.slots(y, x), around.distances, around.table, y * rows // height, x * columns // width
        )  # fmt: skip
        network = (*compiled.flattened(stage), stage.last_bias, stage.rows, stage.columns)
        return around, (where, network, compiled.workspace(stage, around.distances, around.table.shape[1], len(y)))

    def _fill(self, codes: Ints, number: int, choose: Callable[[int, Ints], Ints]) -> None:
        """Set a stage of codes (N, Q, h, w), slot by slot: what `choose` makes of slot and frequencies (N, K)."""
        around, (height, width) = _Surroundings(self, codes, number), codes.shape[2:]
        memory = self.stages[number].memory(len(codes), height * width)
        for slot, (y, x) in enumerate(np.ndindex(height, width)):
            chosen = choose(slot, self._frequencies(number, around, np.array([slot]), memory)[:, 0])
            codes[:, number, y, x] = chosen
            around.set(y, x, chosen)

    def _frequencies(self, number: int, around: _Surroundings, slots: Ints, memory: list[Memory]) -> Ints:
        """Frequencies (N, S, K) of the next slots (S,) of all items."""
        height, width = around.grid
        y, x = slots // width, slots % width
        places = y * self.grid[0] // height, x * self.grid[1] // width
        logits = self.stages[number].logits(around.vectors(y, x), *places, memory)
        return frequencies(logits.reshape(-1, logits.shape[2])).reshape(logits.shape).astype(np.int64)


@cache
def _compiled_prior() -> Any:
    """The module that needs numba, of the extra [fast], which takes a second to load; None without it."""
    try:
        from . import compiled_prior
    except (ImportError, RuntimeError):  # the latter where numba finds no folder to keep what it compiled
        return None
    return compiled_prior


class _Surroundings:
    """Codes of stages 0 .. number with a border of codes that are not there, as rows of one table of vectors.

    One look-up for all context codes of a slot, which are this far from it in the flat codes of an item.
    """

    def __init__(self, prior: IntegerPrior, codes: Ints, number: int) -> None:
        self.grid = height, width = codes.shape[2:]
        sides, sizes = ((0, 0), (REACH, REACH), (REACH, REACH)), [len(table) for table in prior.vectors[: number + 1]]
        self.table = np.concatenate(prior.vectors[: number + 1]).astype(np.float32)
        self.first = sum(sizes[:-1])  # row of the stage's code 0
        rows = [
            np.pad(codes[:, stage], sides, constant_values=size - 1) + sum(sizes[:stage])
            for stage, size in enumerate(sizes)
        ]
        self._padded = np.stack(rows, 1)
        self.flat = self._padded.reshape(len(codes), -1)
        self._width = width + 2 * REACH
        self._start = number * (height + 2 * REACH) * self._width
        steps = np.array([(height + 2 * REACH) * self._width, self._width, 1])
        self.distances = prior.stages[number].context @ steps

    def slots(self, y: Ints, x: Ints) -> Ints:
        """Where slots (S,) of the last stage are in the flat codes of an item."""
        return self._start + (y + REACH) * self._width + x + REACH

    def vectors(self, y: Ints, x: Ints) -> Array:
        """Of the context codes of slots (S,), (N, S, C * e) float32."""
        rows = self.flat[:, self.slots(y, x)[:, None] + self.distances]
        return self.table[rows].reshape(*rows.shape[:2], -1)

    def codes(self) -> Ints:
        """Codes (N, h, w) of the last stage."""
        return self._padded[:, -1, REACH:-REACH, REACH:-REACH] - self.first

    def set(self, y: int, x: int, codes: Ints) -> None:
        """Codes (N,) of the last stage that are known from now on."""
        self._padded[:, -1, y + REACH, x + REACH] = self.first + codes


def _decoded(decoder: BatchDecoder, table: Ints) -> Ints:
    """The next code of every string, of frequencies (N, K)."""
    ends, items = table.cumsum(1), np.arange(len(table))
    chosen = (ends <= decoder.targets()[:, None]).sum(1)
    sizes = table[items, chosen]
    decoder.advance(ends[items, chosen] - sizes, sizes)
    return chosen


def _in_threads(work: Callable[[int], None], count: int) -> None:
    """work(0) .. work(count - 1), which spend their time in compiled code without the interpreter's lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(max(1, min(count, cores))) as pool:
        list(pool.map(work, range(count)))


def _parts(count: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def _read_stage(tensors: Mapping[str, Array], number: int, grid: tuple[int, int], vectors: tuple[int, ...]) -> Network:
    size, length = vectors[0] - 1, vectors[1]
    context = _checked(tensors, f"{number}.context", np.int8, (-1, 3)).astype(np.int64)
    for back, down, right in context.tolist():
        if not (
            -number <= back <= 0 and abs(down) <= REACH and abs(right) <= REACH and (back, down, right) < (0, 0, 0)
        ):
            raise ValueError(f"stage {number} looks at codes that are not decoded yet")
    first = _checked(tensors, f"{number}.first", np.int8, (len(context) * length, -1))
    channels = first.shape[1]
    if not 2 <= size <= MAX_CODES or max(first.shape) > MAX_FAN_IN or not first.size or channels % HEAD:
        raise ValueError(f"the sizes of stage {number} are out of bounds")
    layers: list[Layer] = []
    while f"{number}.{len(layers)}.qkv" in tensors and len(layers) < MAX_LAYERS:
        layers.append(_read_layer(tensors, f"{number}.{len(layers)}", channels))
    rows, columns = (
        _checked(tensors, f"{number}.{name}", np.int32, (side, channels))
        for name, side in zip(("rows", "columns"), grid, strict=True)
    )
    last = _checked(tensors, f"{number}.last", np.int8, (channels, size))
    last_bias = _checked(tensors, f"{number}.last_bias", np.int32, (size,))
    return Network(context, first, rows, columns, tuple(layers), last, last_bias)


def _read_layer(tensors: Mapping[str, Array], name: str, channels: int) -> Layer:
    up = _checked(tensors, f"{name}.up", np.int8, (channels, -1))
    if not 1 <= up.shape[1] <= MAX_FAN_IN:
        raise ValueError(f"{name} has {up.shape[1]} hidden channels")
    return Layer(
        _checked(tensors, f"{name}.qkv", np.int8, (channels, 3 * channels)),
        _checked(tensors, f"{name}.out", np.int8, (channels, channels)),
        up,
        _checked(tensors, f"{name}.down", np.int8, (up.shape[1], channels)),
    )


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
    """Context of a slot of a stage: nearest of its own stage before it, the stage below around it, all others at it.

    Attention sees the rest.
    """
    before = [(0, down, right) for down in (-1, 0) for right in (-1, 0, 1) if (down, right) < (0, 0)]
    below = [(-1, down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)] if stage else []
    return before + below + [(-back, 0, 0) for back in range(2, min(stage, 8) + 1)]
