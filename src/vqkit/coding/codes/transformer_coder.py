"""Coder 0: codes to bytes and back, with the frequencies of an integer-only transformer for each
stage.

Shapes: N items, Q stages (codebooks), n slots, C context codes of a slot, E the length of a code's
vector, K codes of a stage. Slots are coded in row-major order.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product
from typing import Any

import numpy as np

from .. import kernels
from ..grids import beside, join, split
from ..rangecoder import BatchRangeDecoder, check_position, encode_batch
from .transformer import (
    BIAS_LIMIT,
    HEAD,
    MAX_FAN_IN,
    MAX_LAYERS,
    STRIDE,
    Array,
    Ints,
    KeyValueCache,
    StageTransformer,
    TransformerLayer,
    frequencies,
)

# Rows and columns that a context code is away at most.
REACH = 3
MAX_STAGES = 64
MAX_CODES = 1 << 14
MAX_POSITIONS = 1 << 20
# Distances of slots to codes that are in memory at once for one item.
MAX_COSTS = 1 << 18
# Frequencies that are in memory at once; more, if one item needs them.
MAX_FREQUENCIES = 1 << 20

# Items and slots, and the codes (N, q, n) of the stages before of these items, on the grid of the
# slots -> (N, S, K) what codes of the slots cost beside their bits.
Distances = Callable[[slice, Ints, slice], Array]


@dataclass(frozen=True)
class TransformerCoder:
    """An entropy coder of codes.

    grid: rows and columns of the grid of training, to which positions of another grid are scaled.
    vectors: for each stage (K + 1, E) int8, one for each code; the last is for what is not there.
    stages: their transformers, in coding order. sides: of each stage, see grids; none for stages
    that all lie on the grid of the codes. A stage sees those before it on its own grid.
    """

    grid: tuple[int, int]
    vectors: list[Array]
    stages: list[StageTransformer]
    sides: tuple[int, ...] = ()

    @cached_property
    def all_sides(self) -> tuple[int, ...]:
        """Of every stage; they never fall."""
        return self.sides or (1,) * len(self.stages)

    def first(self, num_stages: int) -> TransformerCoder:
        """The same with the first stages alone, which need no other."""
        return TransformerCoder(
            self.grid,
            self.vectors[:num_stages],
            self.stages[:num_stages],
            self.all_sides[:num_stages],
        )

    # ----------------------------------------------------------------------------- codes and bytes

    def encode(self, codes: Ints) -> list[list[bytes]]:
        """Codes (N, Q, *grid) of the first stages -> the bytes of every item and stage.

        ValueError for codes out of range.
        """
        stages = split(codes, self.all_sides)
        payloads: list[list[bytes]] = [[] for _ in codes]
        for number, one in enumerate(stages):
            wanted = one.reshape(len(one), math.prod(one.shape[1:]))
            num_codes = self.stages[number].last.shape[1]
            if wanted.size and not 0 <= wanted.min() <= wanted.max() < num_codes:
                raise ValueError(f"codes of stage {number} must lie in [0, {num_codes})")
            intervals = self._intervals(self._seen(stages, number), number, wanted)
            for item, payload in enumerate(encode_batch(*intervals)):
                payloads[item].append(payload)
        return payloads

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: Sequence[int]) -> Ints:
        """Bytes of the first stages of every item, as many for each -> codes (N, stages, *grid).

        With numba, items are decoded one by one in as many threads as there are cores, sooner and
        with the same codes; without, side by side. Wrong bytes give wrong codes, as the check sums
        of the file tell, or CorruptCodes where they end too soon. ValueError for items with
        different numbers of stages, or more than there are.
        """
        given = len(payloads[0]) if payloads else 0
        if any(len(item) != given for item in payloads) or given > len(self.stages):
            raise ValueError(
                f"items must have the same number of stages, at most {len(self.stages)}"
            )
        stages = self._empty(len(payloads), grid, given)
        kernel = _kernel()
        if kernel:

            def decode_item(item: int) -> None:
                one = [codes[item : item + 1] for codes in stages]
                for number, data in enumerate(payloads[item]):
                    walk = _Walk(kernel, self, self._seen(one, number), number)
                    one[number].reshape(-1)[:] = walk.decode(data).ravel()

            _in_threads(decode_item, len(payloads))
        else:
            for number in range(given):
                data = [item[number] for item in payloads]
                self._decode_stage(stages, number, data)
        if not stages:
            return np.zeros((len(payloads), 0, *grid), np.int64)
        return join(stages, self.all_sides, grid)

    def assign(
        self, distances: Distances, count: int, grid: Sequence[int], num_stages: int, weight: float
    ) -> Ints:
        """Codes (N, num_stages, *grid) of N items, each the one with the least distance + weight *
        bits.

        One after the other in the order of coding, so that a choice pays for itself alone (Chou et
        al. 1989, entropy-constrained vector quantisation).
        """
        stages = self._empty(count, grid, num_stages)
        kernel = _kernel()
        if kernel:

            def choose_item(item: int) -> None:
                one = slice(item, item + 1)
                own = [codes[one] for codes in stages]
                for number in range(num_stages):
                    seen = self._seen(own, number)
                    earlier = _flat(seen)

                    def costs(slots: slice, before: Ints = earlier) -> Array:
                        return distances(one, before, slots)[0]

                    walk = _Walk(kernel, self, seen, number)
                    own[number].reshape(-1)[:] = walk.choose(costs, weight).ravel()

            _in_threads(choose_item, count)
        else:
            for number in range(num_stages):
                before = _flat(self._seen(stages, number))

                def choose(slot: int, table: Ints, before: Ints = before) -> Ints:
                    costs = distances(slice(0, count), before, slice(slot, slot + 1))[:, 0]
                    return (costs - weight * np.log2(table)).argmin(1)

                self._fill(stages, number, choose)
        return join(stages, self.all_sides, grid)

    def _empty(self, count: int, grid: Sequence[int], num_stages: int) -> list[Ints]:
        """Codes of the first stages, each on its own grid (N, *grid), which are to be set."""
        stages = []
        for side in self.all_sides[:num_stages]:
            own = [length * side for length in grid]
            stages.append(np.zeros((count, *own), np.int64))
        return stages

    def _seen(self, stages: Sequence[Ints], number: int) -> Ints:
        """Codes of a stage and those before it on its grid (N, number + 1, rows, columns)."""
        return beside(stages[: number + 1], self.all_sides)

    @cached_property
    def _flattened(self) -> list[Any]:
        """The transformer of every stage as its kernel takes it."""
        kernel = _kernel()
        return [kernel.flattened(stage) for stage in self.stages]

    def _intervals(self, codes: Ints, number: int, wanted: Ints) -> tuple[Ints, Ints]:
        """Intervals of the codes of a stage, wanted (N, n), in codes (N, stages, rows, columns) on
        its grid: starts and frequencies, (N, n) each.
        """
        starts = np.zeros_like(wanted)
        sizes = np.zeros_like(wanted)
        kernel = _kernel()
        if kernel:

            def weigh(item: int) -> None:
                walk = _Walk(kernel, self, codes[item : item + 1], number)
                walk.weigh(starts[item], sizes[item])

            _in_threads(weigh, len(codes))
            return starts, sizes
        for items, slots, table in self._tables(codes, number):
            chosen = wanted[items, slots, None]
            sizes[items, slots] = np.take_along_axis(table, chosen, 2)[..., 0]
            ends = np.take_along_axis(table.cumsum(2), chosen, 2)[..., 0]
            starts[items, slots] = ends - sizes[items, slots]
        return starts, sizes

    def tables(self, codes: Ints, stage: int) -> Iterator[tuple[slice, slice, Ints]]:
        """Frequencies of all codes (N, Q, *grid) of a stage where those before are known, with
        NumPy.

        Part by part, so that memory stays within MAX_FREQUENCIES: items, slots, and their (N, S,
        K).
        """
        yield from self._tables(self._seen(split(codes, self.all_sides), stage), stage)

    def _tables(self, codes: Ints, stage: int) -> Iterator[tuple[slice, slice, Ints]]:
        """As `tables`, of codes (N, stage + 1, rows, columns) on the grid of the stage."""
        num_slots = codes.shape[2] * codes.shape[3]
        stride = min(num_slots, STRIDE)
        num_codes = self.stages[stage].last.shape[1]
        together = max(1, MAX_FREQUENCIES // max(1, stride * num_codes))
        for items in _parts(len(codes), together):
            around = _Surroundings(self, codes[items], stage)
            caches = self.stages[stage].caches(items.stop - items.start, num_slots)
            for slots in _parts(num_slots, stride):
                numbers = np.arange(slots.start, slots.stop)
                yield items, slots, self._frequencies(stage, around, numbers, caches)

    def _decode_stage(self, stages: Sequence[Ints], number: int, payloads: Sequence[bytes]) -> None:
        """Set a stage of all items side by side."""
        decoder = BatchRangeDecoder(payloads)

        def choose(slot: int, table: Ints) -> Ints:
            return _decode_symbols(decoder, table)

        self._fill(stages, number, choose)

    def _fill(
        self, stages: Sequence[Ints], number: int, choose: Callable[[int, Ints], Ints]
    ) -> None:
        """Set a stage, slot by slot, to what `choose` makes of the slot's number and frequencies
        (N, K).
        """
        codes = stages[number]
        around = _Surroundings(self, self._seen(stages, number), number)
        rows, columns = around.grid
        caches = self.stages[number].caches(len(codes), rows * columns)
        for slot, (y, x) in enumerate(np.ndindex(rows, columns)):
            table = self._frequencies(number, around, np.array([slot]), caches)[:, 0]
            around.set(y, x, choose(slot, table))
        codes[:] = around.codes().reshape(codes.shape)

    def _frequencies(
        self, number: int, around: _Surroundings, slots: Ints, caches: list[KeyValueCache]
    ) -> Ints:
        """Frequencies (N, S, K) of the next slots (S,) of all items."""
        rows, columns = around.grid
        y, x = np.divmod(slots, columns)
        positions = (y * self.grid[0] // rows, x * self.grid[1] // columns)
        logits = self.stages[number].logits(around.vectors(y, x), *positions, caches)
        found = frequencies(logits.reshape(-1, logits.shape[2]))
        return found.reshape(logits.shape).astype(np.int64)

    # ------------------------------------------------------------------------------------- tensors

    def tensors(self) -> dict[str, Array]:
        """Everything, by name, for a file; `from_tensors` takes it back."""
        found: dict[str, Array] = {"grid": np.array(self.grid, dtype=np.int32)}
        for number, stage in enumerate(self.stages):
            found[f"{number}.vectors"] = self.vectors[number]
            found[f"{number}.context"] = stage.context.astype(np.int8)
            for name in ("first", "rows", "columns"):
                found[f"{number}.{name}"] = getattr(stage, name)
            for depth, layer in enumerate(stage.layers):
                found |= {f"{number}.{depth}.{name}": value for name, value in vars(layer).items()}
            for name in ("last", "last_bias"):
                found[f"{number}.{name}"] = getattr(stage, name)
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> TransformerCoder:
        """Without sides, which the model knows. ValueError for what breaks a bound that exactness
        or memory rests on.
        """
        rows, columns = _checked(tensors, "grid", np.int32, (2,)).tolist()
        if not 1 <= rows * columns <= MAX_POSITIONS or rows < 1:
            raise ValueError(f"a grid of {rows} x {columns} is out of bounds")
        vectors: list[Array] = []
        stages: list[StageTransformer] = []
        while f"{len(stages)}.vectors" in tensors and len(stages) < MAX_STAGES:
            length = vectors[0].shape[1] if vectors else -1
            name = f"{len(stages)}.vectors"
            vectors.append(_checked(tensors, name, np.int8, (-1, length)))
            stages.append(_read_stage(tensors, len(stages), (rows, columns), vectors[-1].shape))
        if len(tensors) != 1 + sum(7 + 4 * len(stage.layers) for stage in stages) or not stages:
            raise ValueError("there are tensors that no stage has")
        return cls((rows, columns), vectors, stages)


def context_offsets(stage: int) -> list[tuple[int, int, int]]:
    """Context of a slot of a stage: stages, rows and columns further.

    The nearest codes of its own stage before it, the stage below around it, and all others at its
    place. Attention sees the rest.
    """
    offsets = [(0, -1, -1), (0, -1, 0), (0, -1, 1), (0, 0, -1)]
    if stage:
        for down, right in product((-1, 0, 1), repeat=2):
            offsets.append((-1, down, right))
    for back in range(2, min(stage, 8) + 1):
        offsets.append((-back, 0, 0))
    return offsets


# --------------------------------------------------------------------------------- slots of an item


class _Surroundings:
    """Codes of stages 0 .. number with a border of codes that are not there, as rows of one table.

    The table has the vectors of all these stages, so that one look-up gives those of all context
    codes of a slot, which lie at fixed distances from it in the flat codes of an item.
    """

    def __init__(self, coder: TransformerCoder, codes: Ints, number: int) -> None:
        self.grid = rows, columns = codes.shape[2:]
        self.table = np.concatenate(coder.vectors[: number + 1]).astype(np.float32)
        border = ((0, 0), (REACH, REACH), (REACH, REACH))
        sizes = [len(vectors) for vectors in coder.vectors[: number + 1]]
        # Rows in the table of each stage's code 0; its last code is the one that is not there.
        first_rows = [0, *accumulate(sizes)]
        self.first = first_rows[number]
        stages = []
        for stage, size in enumerate(sizes):
            padded = np.pad(codes[:, stage], border, constant_values=size - 1)
            stages.append(padded + first_rows[stage])
        self._padded = np.stack(stages, 1)
        self.flat = self._padded.reshape(len(codes), -1)
        self._width = columns + 2 * REACH
        area = (rows + 2 * REACH) * self._width
        self._start = number * area
        self.distances = coder.stages[number].context @ np.array([area, self._width, 1])

    def slots(self, y: Ints, x: Ints) -> Ints:
        """Where slots (S,) of the last stage are in the flat codes of an item."""
        return self._start + (y + REACH) * self._width + x + REACH

    def vectors(self, y: Ints, x: Ints) -> Array:
        """Of the context codes of slots (S,), (N, S, C * E) float32."""
        rows = self.flat[:, self.slots(y, x)[:, None] + self.distances]
        return self.table[rows].reshape(*rows.shape[:2], -1)

    def codes(self) -> Ints:
        """Codes (N, rows, columns) of the last stage."""
        return self._padded[:, -1, REACH:-REACH, REACH:-REACH] - self.first

    def set(self, y: int, x: int, codes: Ints) -> None:
        """Codes (N,) of the last stage that are known from now on."""
        self._padded[:, -1, y + REACH, x + REACH] = self.first + codes


def _kernel() -> Any:
    """The walk over the slots of one item compiled, None without numba."""
    return kernels.load("codes.transformer_kernel")


class _Walk:
    """One stage of one item, of codes (1, stages, rows, columns) on its grid, slot by slot in
    compiled code.
    """

    def __init__(self, kernel: Any, coder: TransformerCoder, codes: Ints, number: int) -> None:
        around = _Surroundings(coder, codes, number)
        stage = coder.stages[number]
        rows, columns = around.grid
        y, x = np.divmod(np.arange(rows * columns), columns)
        self._kernel = kernel
        self._around = around
        self._num_codes = len(stage.last_bias)
        self._slots = kernel.Slots(
            rows=around.flat[0],
            places=around.slots(y, x),
            distances=around.distances,
            vectors=around.table,
            y=y * coder.grid[0] // rows,
            x=x * coder.grid[1] // columns,
            first_row=around.first,
        )
        self._weights = coder._flattened[number]
        length = around.table.shape[1]
        self._workspace = kernel.workspace(stage, length, len(y))

    def decode(self, data: bytes) -> Ints:
        """Codes (rows, columns). CorruptCodes where the bytes end too soon."""
        state = (self._slots, self._weights, self._workspace)
        position = self._kernel.decode_slots(*state, data)
        check_position(position, len(data))
        return self._around.codes()[0]

    def choose(self, costs: Callable[[slice], Array], weight: float) -> Ints:
        """Codes (rows, columns), those with the least costs (S, K) of slots + weight * bits."""
        state = (self._slots, self._weights, self._workspace)
        together = max(1, MAX_COSTS // self._num_codes)
        for slots in _parts(len(self._slots.places), together):
            of_slots = costs(slots).astype(np.float64)
            self._kernel.choose_slots(*state, slots.start, of_slots, weight)
        return self._around.codes()[0]

    def weigh(self, starts: Ints, sizes: Ints) -> None:
        """Set starts and frequencies (n,) of the codes."""
        state = (self._slots, self._weights, self._workspace)
        self._kernel.weigh_slots(*state, starts, sizes)


def _flat(seen: Ints) -> Ints:
    """Codes (N, stages, rows, columns) of a stage and those before it -> (N, those before, n)."""
    return seen[:, :-1].reshape(len(seen), seen.shape[1] - 1, seen.shape[2] * seen.shape[3])


def _decode_symbols(decoder: BatchRangeDecoder, table: Ints) -> Ints:
    """The next code of every string, of frequencies (N, K)."""
    ends = table.cumsum(1)
    items = np.arange(len(table))
    chosen = (ends <= decoder.targets()[:, None]).sum(1)
    sizes = table[items, chosen]
    decoder.advance(ends[items, chosen] - sizes, sizes)
    return chosen


def _in_threads(work: Callable[[int], None], count: int) -> None:
    """work(0) .. work(count - 1), which spend their time in compiled code without the lock."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    with ThreadPoolExecutor(max(1, min(count, cores))) as pool:
        list(pool.map(work, range(count)))


def _parts(count: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


# ---------------------------------------------------------------------------------- checked tensors


def _read_stage(
    tensors: Mapping[str, Array], number: int, grid: tuple[int, int], vectors: tuple[int, ...]
) -> StageTransformer:
    num_codes = vectors[0] - 1
    length = vectors[1]
    context = _checked(tensors, f"{number}.context", np.int8, (-1, 3)).astype(np.int64)
    for offset in context.tolist():
        if not _is_decoded_before(number, *offset):
            raise ValueError(f"stage {number} looks at codes that are not decoded yet")
    first = _checked(tensors, f"{number}.first", np.int8, (len(context) * length, -1))
    channels = first.shape[1]
    fits = 2 <= num_codes <= MAX_CODES and max(first.shape) <= MAX_FAN_IN
    if not fits or not first.size or channels % HEAD:
        raise ValueError(f"the sizes of stage {number} are out of bounds")
    layers: list[TransformerLayer] = []
    while f"{number}.{len(layers)}.qkv" in tensors and len(layers) < MAX_LAYERS:
        layers.append(_read_layer(tensors, f"{number}.{len(layers)}", channels))
    return StageTransformer(
        context,
        first,
        _checked(tensors, f"{number}.rows", np.int32, (grid[0], channels)),
        _checked(tensors, f"{number}.columns", np.int32, (grid[1], channels)),
        tuple(layers),
        _checked(tensors, f"{number}.last", np.int8, (channels, num_codes)),
        _checked(tensors, f"{number}.last_bias", np.int32, (num_codes,)),
    )


def _is_decoded_before(number: int, back: int, down: int, right: int) -> bool:
    near = abs(down) <= REACH and abs(right) <= REACH
    return near and -number <= back <= 0 and (back, down, right) < (0, 0, 0)


def _read_layer(tensors: Mapping[str, Array], name: str, channels: int) -> TransformerLayer:
    up = _checked(tensors, f"{name}.up", np.int8, (channels, -1))
    hidden = up.shape[1]
    if not 1 <= hidden <= MAX_FAN_IN:
        raise ValueError(f"{name} has {hidden} hidden channels")
    return TransformerLayer(
        _checked(tensors, f"{name}.qkv", np.int8, (channels, 3 * channels)),
        _checked(tensors, f"{name}.out", np.int8, (channels, channels)),
        up,
        _checked(tensors, f"{name}.down", np.int8, (hidden, channels)),
    )


def _checked(tensors: Mapping[str, Array], name: str, dtype: type, shape: tuple[int, ...]) -> Array:
    """A tensor of that type and shape, -1 for any length, int32 within BIAS_LIMIT, int8 above
    -128.
    """
    if name not in tensors:
        raise ValueError(f"tensor {name} is missing")
    tensor = tensors[name]
    fits = tensor.ndim == len(shape)
    for wanted, length in zip(shape, tensor.shape, strict=False):
        fits = fits and wanted in (-1, length)
    if tensor.dtype != dtype or not fits:
        raise ValueError(f"tensor {name} is {tensor.dtype} {tensor.shape}")
    limit = 127 if dtype is np.int8 else BIAS_LIMIT
    if tensor.size and not -limit <= int(tensor.min()) <= int(tensor.max()) <= limit:
        raise ValueError(f"tensor {name} holds numbers beyond {limit}")
    return tensor
