"""Coder 0: codes to bytes and back, with the frequencies of an integer-only transformer for each
stage.

Shapes: N items, Q stages (codebooks), n slots, C context codes of a slot, E the length of a code's
vector, K codes of a stage. Slots are coded in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product
from typing import Any

import numpy as np

from ...machine import num_cores
from .. import kernels
from ..grids import beside, join, rows_and_columns, split
from ..rangecoder import BatchRangeDecoder, StringEncoder, check_position, encode_batch
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
# Slots of a grid of one row that are laid out at once: a recording has any number of them.
WINDOW_SLOTS = 1 << 12
# Of codes that are kept: there are at most MAX_CODES.
KEPT = np.uint16

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

    def encode(
        self, codes: Ints, progress: Callable[[float], None] | None = None
    ) -> list[list[bytes]]:
        """Codes (N, Q, *grid) of the first stages -> the bytes of every item and stage.

        progress: called with the share of the stages that is done. ValueError for codes out of
        range.
        """
        stages = split(codes, self.all_sides)
        for number, one in enumerate(stages):
            num_codes = self.stages[number].last.shape[1]
            if one.size and not 0 <= one.min() <= one.max() < num_codes:
                raise ValueError(f"codes of stage {number} must lie in [0, {num_codes})")
        payloads: list[list[bytes]] = [[] for _ in codes]

        def tell() -> None:
            if progress:
                progress(sum(map(len, payloads)) / (len(codes) * len(stages)))

        kernel = _kernel()
        if kernel:

            def encode_item(item: int) -> None:
                one = [codes[item : item + 1] for codes in stages]
                for number in range(len(one)):
                    payloads[item].append(_Walk(kernel, self, one, number).encode())
                    tell()

            _in_threads(encode_item, len(codes))
            return payloads
        for number in range(len(stages)):
            for item, payload in enumerate(encode_batch(*self._intervals(stages, number))):
                payloads[item].append(payload)
            tell()
        return payloads

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: Sequence[int]) -> Array:
        """Bytes of the first stages of every item, as many for each -> codes (N, stages, *grid)
        uint16.

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
                    _Walk(kernel, self, one, number).decode(data)

            _in_threads(decode_item, len(payloads))
        else:
            for number in range(given):
                data = [item[number] for item in payloads]
                self._decode_stage(stages, number, data)
        if not stages:
            return np.zeros((len(payloads), 0, *grid), KEPT)
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
                    earlier = self._earlier(own, number)

                    def costs(slots: slice, before: Ints = earlier) -> Array:
                        return distances(one, before, slots)[0]

                    _Walk(kernel, self, own, number).choose(costs, weight)

            _in_threads(choose_item, count)
        else:
            for number in range(num_stages):
                before = self._earlier(stages, number)

                def choose(slot: int, table: Ints, before: Ints = before) -> Ints:
                    costs = distances(slice(0, count), before, slice(slot, slot + 1))[:, 0]
                    return (costs - weight * np.log2(table)).argmin(1)

                self._fill(stages, number, choose)
        return join(stages, self.all_sides, grid).astype(np.int64)

    def _empty(self, count: int, grid: Sequence[int], num_stages: int) -> list[Array]:
        """Codes of the first stages, each on its own grid (N, *grid), which are to be set."""
        stages: list[Array] = []
        for side in self.all_sides[:num_stages]:
            own = [length * side for length in grid]
            stages.append(np.zeros((count, *own), KEPT))
        return stages

    def _earlier(self, stages: Sequence[Array], number: int) -> Ints:
        """Codes of the stages before one on its grid, flat (N, number, n) int64."""
        seen = beside(stages[: number + 1], self.all_sides)[:, :-1]
        return seen.reshape(len(seen), number, math.prod(seen.shape[2:])).astype(np.int64)

    def _surroundings(self, stages: Sequence[Array], number: int, window: slice) -> _Surroundings:
        """Of the slots of a window, with the codes of stages, each on its own grid (N, *)."""
        own = stages[number]
        rows, columns = rows_and_columns(own.shape[1:])
        if window == slice(0, rows * columns):
            return _Surroundings(self, beside(stages[: number + 1], self.all_sides), number)
        # A single row; what lies beside the window is seen as well.
        first = max(0, window.start - REACH)
        end = min(columns, window.stop + REACH)
        places = np.arange(first, end)
        side = self.all_sides[number]
        seen = []
        for codes, coarser in zip(stages[: number + 1], self.all_sides, strict=False):
            seen.append(codes.reshape(len(codes), -1)[:, places * coarser // side])
        together = np.stack(seen, 1)[:, :, None]
        return _Surroundings(self, together, number, window.start - first, end - window.stop)

    def _positions(self, grid: tuple[int, int], slots: Ints) -> tuple[Ints, Ints]:
        """Rows and columns on the grid of training of slots of another."""
        y, x = np.divmod(slots, grid[1])
        return y * self.grid[0] // grid[0], x * self.grid[1] // grid[1]

    @cached_property
    def _flattened(self) -> list[Any]:
        """The transformer of every stage as its kernel takes it."""
        kernel = _kernel()
        return [kernel.flattened(stage) for stage in self.stages]

    def _intervals(self, stages: Sequence[Array], number: int) -> tuple[Ints, Ints]:
        """Intervals of the codes of a stage: starts and frequencies, (N, n) each; with NumPy."""
        own = stages[number]
        wanted = own.reshape(len(own), math.prod(own.shape[1:])).astype(np.int64)
        starts = np.zeros_like(wanted)
        sizes = np.zeros_like(wanted)
        for items, slots, table in self._tables(stages, number):
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
        yield from self._tables(split(codes, self.all_sides), stage)

    def _tables(self, stages: Sequence[Array], number: int) -> Iterator[tuple[slice, slice, Ints]]:
        """As `tables`, of codes of stages, each on its own grid (N, *)."""
        grid = rows_and_columns(stages[number].shape[1:])
        num_slots = math.prod(grid)
        stride = min(num_slots, STRIDE)
        num_codes = self.stages[number].last.shape[1]
        together = max(1, MAX_FREQUENCIES // max(1, stride * num_codes))
        for items in _parts(len(stages[number]), together):
            some = [codes[items] for codes in stages]
            caches = self.stages[number].caches(items.stop - items.start, num_slots)
            for window in _windows(grid):
                around = self._surroundings(some, number, window)
                for first in range(window.start, window.stop, stride):
                    slots = np.arange(first, min(first + stride, window.stop))
                    table = self._frequencies(number, around, grid, slots, window.start, caches)
                    yield items, slice(first, first + len(slots)), table

    def _decode_stage(
        self, stages: Sequence[Array], number: int, payloads: Sequence[bytes]
    ) -> None:
        """Set a stage of all items side by side."""
        decoder = BatchRangeDecoder(payloads)

        def choose(slot: int, table: Ints) -> Ints:
            return _decode_symbols(decoder, table)

        self._fill(stages, number, choose)

    def _fill(
        self, stages: Sequence[Array], number: int, choose: Callable[[int, Ints], Ints]
    ) -> None:
        """Set a stage, slot by slot, to what `choose` makes of the slot's number and frequencies
        (N, K).
        """
        codes = stages[number]
        grid = rows_and_columns(codes.shape[1:])
        caches = self.stages[number].caches(len(codes), math.prod(grid))
        for window in _windows(grid):
            around = self._surroundings(stages, number, window)
            for slot in range(window.start, window.stop):
                slots = np.array([slot])
                table = self._frequencies(number, around, grid, slots, window.start, caches)
                around.set(slot - window.start, choose(slot, table[:, 0]))
            codes.reshape(len(codes), -1)[:, window] = around.codes()

    def _frequencies(
        self,
        number: int,
        around: _Surroundings,
        grid: tuple[int, int],
        slots: Ints,
        first: int,
        caches: list[KeyValueCache],
    ) -> Ints:
        """Frequencies (N, S, K) of the next slots (S,) of all items, of which `first` is the first
        around.
        """
        positions = self._positions(grid, slots)
        vectors = around.vectors(slots - first)
        logits = self.stages[number].logits(vectors, *positions, caches)
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

    codes (N, stages, rows, columns), of which so many columns at either side are no slots but in
    the place of the border.
    """

    def __init__(
        self,
        coder: TransformerCoder,
        codes: Array,
        number: int,
        columns_before: int = 0,
        columns_behind: int = 0,
    ) -> None:
        rows, columns = codes.shape[2:]
        self._columns = columns - columns_before - columns_behind
        self.table = np.concatenate(coder.vectors[: number + 1]).astype(np.float32)
        border = ((0, 0), (REACH, REACH), (REACH - columns_before, REACH - columns_behind))
        sizes = [len(vectors) for vectors in coder.vectors[: number + 1]]
        # Rows in the table of each stage's code 0; its last code is the one that is not there.
        first_rows = [0, *accumulate(sizes)]
        self.first = first_rows[number]
        self._width = self._columns + 2 * REACH
        shape = (len(codes), number + 1, rows + 2 * REACH, self._width)
        self._padded = np.zeros(shape, np.int64)
        for stage, size in enumerate(sizes):
            padded = np.pad(codes[:, stage], border, constant_values=size - 1)
            self._padded[:, stage] = padded
            self._padded[:, stage] += first_rows[stage]
        self.flat = self._padded.reshape(len(codes), -1)
        area = (rows + 2 * REACH) * self._width
        self._start = number * area
        self.distances = coder.stages[number].context @ np.array([area, self._width, 1])

    def places(self, slots: Ints) -> Ints:
        """Where slots (S,), in order from 0, are in the flat codes of an item."""
        y, x = np.divmod(slots, self._columns)
        return self._start + (y + REACH) * self._width + x + REACH

    def vectors(self, slots: Ints) -> Array:
        """Of the context codes of slots (S,), (N, S, C * E) float32."""
        rows = self.flat[:, self.places(slots)[:, None] + self.distances]
        return self.table[rows].reshape(*rows.shape[:2], -1)

    def codes(self) -> Ints:
        """Codes (N, n) of the slots of the last stage."""
        inside = self._padded[:, -1, REACH:-REACH, REACH:-REACH] - self.first
        return inside.reshape(len(inside), -1)

    def set(self, slot: int, codes: Ints) -> None:
        """Codes (N,) of the last stage that are known from now on."""
        y, x = divmod(slot, self._columns)
        self._padded[:, -1, y + REACH, x + REACH] = self.first + codes


def _kernel() -> Any:
    """The walk over the slots of one item compiled, None without numba."""
    return kernels.load("codes.transformer_kernel")


class _Walk:
    """One stage of one item, of codes of stages, each on its own grid (1, *), slot by slot in
    compiled code.
    """

    def __init__(
        self, kernel: Any, coder: TransformerCoder, stages: Sequence[Array], number: int
    ) -> None:
        self._kernel = kernel
        self._coder = coder
        self._stages = stages
        self._number = number
        self._grid = rows_and_columns(stages[number].shape[1:])
        stage = coder.stages[number]
        self._num_codes = len(stage.last_bias)
        self._weights = coder._flattened[number]
        length = coder.vectors[0].shape[1]
        self._workspace = kernel.workspace(stage, length, math.prod(self._grid))

    def encode(self) -> bytes:
        """The bytes of the codes."""
        encoder = StringEncoder()
        for window, _, slots in self._windows():
            symbols = np.zeros(2 * (window.stop - window.start), np.int64)
            self._kernel.weigh_slots(slots, self._weights, self._workspace, symbols)
            encoder.put(symbols)
        return encoder.finish()

    def decode(self, data: bytes) -> None:
        """Set the codes. CorruptCodes where the bytes end too soon."""
        from ..rangecoder_kernel import begin_decoder

        decoder = begin_decoder(data)
        given = np.frombuffer(data, np.uint8)
        for window, around, slots in self._windows():
            self._kernel.decode_slots(slots, self._weights, self._workspace, given, decoder)
            check_position(int(decoder[2]), len(data))
            self._keep(window, around)

    def choose(self, costs: Callable[[slice], Array], weight: float) -> None:
        """Set the codes to those with the least costs (S, K) of slots + weight * bits."""
        together = max(1, MAX_COSTS // self._num_codes)
        for window, around, slots in self._windows():
            for first in range(window.start, window.stop, together):
                part = slice(first, min(first + together, window.stop))
                of_slots = costs(part).astype(np.float64)
                begin = first - window.start
                state = (slots, self._weights, self._workspace)
                self._kernel.choose_slots(*state, begin, of_slots, weight)
            self._keep(window, around)

    def _windows(self) -> Iterator[tuple[slice, _Surroundings, Any]]:
        """Windows in order, what is around their slots, and both as the kernel takes them."""
        for window in _windows(self._grid):
            around = self._coder._surroundings(self._stages, self._number, window)
            numbers = np.arange(window.start, window.stop)
            y, x = self._coder._positions(self._grid, numbers)
            slots = self._kernel.Slots(
                rows=around.flat[0],
                places=around.places(numbers - window.start),
                distances=around.distances,
                vectors=around.table,
                y=y,
                x=x,
                first_row=around.first,
                begin=window.start,
            )
            yield window, around, slots

    def _keep(self, window: slice, around: _Surroundings) -> None:
        self._stages[self._number].reshape(-1)[window] = around.codes()[0]


def _windows(grid: tuple[int, int]) -> list[slice]:
    """The slots of rows and columns that are laid out at once: all, but of a single row."""
    num_slots = math.prod(grid)
    return _parts(num_slots, WINDOW_SLOTS if grid[0] == 1 else max(1, num_slots))


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
    with ThreadPoolExecutor(max(1, min(count, num_cores()))) as pool:
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
