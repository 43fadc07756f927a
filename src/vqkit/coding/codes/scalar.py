"""Coder 2, of scalar codes: signed numbers of many channels, most of which are zero.

Shapes: N items, S stages, C channels, codes (N, S * C, *grid) with K levels each, of which the
middle one stands for zero. Every number is an integer.

A stage is one string: position by position, of each all channels. A code is a few decisions:
whether its magnitude is beyond 0, 1, 2, ..., and its sign. What the magnitude is expected to be is
a weighed sum of those of neighbours: in its channel, in the channels that go with it, and in the
stage before. Six tables, each of which sees that and the neighbours in its own way, say how likely
a decision is; their logits are weighed and added (Mahoney 2005, "Adaptive weighing of context
models", section 3.2), and tables and weights learn from every decision. Which channels go with
which, how much each neighbour counts and what tables and weights start from is fitted to items.
docs/file-format.md has it in full. With
numba, of the extra [fast], the same bytes come sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grids import rows_and_columns
from ..rangecoder import RangeEncoder, check_position
from .scalar_codes import ScalarCodes
from .scalar_relations import first_relations, fitted_relations
from .scalar_state import (
    BEHIND_GROUPS,
    BORDER,
    COMPACT,
    FITTED_COUNT,
    GROUP,
    LEVELS,
    LOWEST,
    MAX_CHANNELS,
    MAX_CODES,
    MAX_COUNT,
    MAX_FACTOR,
    MAX_LEVELS,
    MAX_STAGES,
    MAX_WEIGHT,
    MOST_DECISIONS,
    NUM_DECISIONS,
    NUM_SETS,
    NUM_SITES,
    PRICES,
    SIZES,
    UNITS,
    Choice,
    Item,
    Learning,
    Relations,
    ScalarState,
    Stream,
    Work,
    first_state,
    relation_shapes,
    scratch,
    state_shapes,
)

Ints = NDArray[np.int64]
# A channel is coded as differences where that makes its codes so much smaller.
_GAIN = 0.9
# Codes that are coded by one call, at least a position: their bytes take 80 times as much memory.
_TOGETHER = 1 << 14
# Codes of the rows that go through all stages together: they take three bytes of memory each.
_WINDOW = 1 << 22


@dataclass(frozen=True)
class ScalarCoder:
    """An entropy coder.

    num_stages and channels: of the codes. levels: K. state: what it starts from. relations: what
    tells of a number. predicted (C,) bool: channels of the first stage that are coded as
    differences to what their neighbours say, none behind the first GROUP.
    """

    num_stages: int
    channels: int
    levels: int
    state: ScalarState
    relations: Relations
    predicted: NDArray[np.bool_]

    @classmethod
    def new(cls, num_stages: int, channels: int, levels: int) -> ScalarCoder:
        """One that was not fitted. ValueError for sizes that no coder has."""
        _check_sizes(num_stages, channels, levels)
        state = first_state(num_stages, channels)
        relations = first_relations(num_stages, channels)
        predicted = np.zeros(channels, np.bool_)
        return cls(num_stages, channels, levels, state, relations, predicted)

    def fitted(
        self, items: Sequence[Ints], in_time: Callable[[], bool] = lambda: True
    ) -> ScalarCoder:
        """One that starts from what codes (S * C, *grid) of items have taught.

        in_time: items are learnt from only while it says so; what goes with what is fitted to the
        first of them all the same.
        """
        learning = self._related(items)
        for codes in items:
            if not in_time():
                break
            learning._encode_item(codes, learning.state)
        state = learning.state
        counts = np.minimum(state.entries & 255, FITTED_COUNT)
        entries = (state.entries >> 8 << 8) | counts
        weights = state.weights.clip(-MAX_WEIGHT, MAX_WEIGHT)
        return replace(learning, state=ScalarState(entries, weights))

    def encode(
        self, items: Sequence[ScalarCodes | NDArray[Any]] | NDArray[Any]
    ) -> list[list[bytes]]:
        """Codes (S * C, *grid) of items -> bytes of every item and stage, each item alone.

        ValueError for codes that are not from 0 to K - 1.
        """
        return [self._encode_item(one, self.state.copy()) for one in items]

    def _encode_item(self, codes: ScalarCodes | NDArray[Any], state: ScalarState) -> list[bytes]:
        """The bytes of codes (S * C, *grid), from which the state learns."""
        if not isinstance(codes, ScalarCodes):
            codes = ScalarCodes.of(codes, self.levels)
        return _Item(self, self.num_stages, state, codes.grid).encode(codes)

    def choose(
        self, codes: ScalarCodes, wanted: NDArray[np.floating], weight: float
    ) -> ScalarCodes:
        """Codes (S * C, *grid) whose last stage costs less: squared error in steps + weight * bits.

        wanted (C, *grid): the values of the last stage that would be right, in steps. Position by
        position, the tables of that moment price the nearest value, the next toward zero, and zero,
        and a group of zeros against its values: rate-distortion optimised quantisation (Karczewicz
        et al. 2008, ITU-T VCEG-AH21). It sees what a code costs itself, not what it does to those
        that follow.
        """
        item = _Item(self, self.num_stages, self.state.copy(), codes.grid)
        return item.choose(codes, wanted, weight)

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: Sequence[int]) -> list[ScalarCodes]:
        """Bytes of the first stages of every item, as many for each -> codes (stages * C, *grid) of
        each.

        Every code is below K. Wrong bytes give wrong codes, as the check sums of the file tell, or
        CorruptCodes where they end too soon.
        """
        items = []
        for parts in payloads:
            codes = ScalarCodes(len(parts) * self.channels, grid, self.levels)
            _Item(self, len(parts), self.state.copy(), grid).decode(parts, codes)
            items.append(codes)
        return items

    def first(self, num_stages: int) -> ScalarCoder:
        """The coder of the first stages alone."""
        state = self.state.first(num_stages, self.channels)
        relations = self.relations.first(num_stages)
        return replace(self, num_stages=num_stages, state=state, relations=relations)

    def tensors(self) -> dict[str, np.ndarray]:
        """All of it, by name."""
        return {
            "levels": np.array([self.levels], np.int32),
            "predicted": self.predicted.astype(np.uint8),
            "probabilities": (self.state.entries >> 8).astype(np.int32),
            "counts": (self.state.entries & 255).astype(np.uint8),
            "weights": self.state.weights.astype(np.int32),
            **self.relations._asdict(),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> ScalarCoder:
        """ValueError for what `tensors` does not give."""
        num_stages, channels = _sizes(tensors)
        entries, sets = state_shapes(num_stages, channels)
        _check_kind(tensors, "probabilities", np.int32, entries)
        _check_kind(tensors, "counts", np.uint8, entries)
        _check_kind(tensors, "weights", np.int32, sets)
        relations = _relations(tensors, num_stages, channels)
        _check_range(tensors, "predicted", 0, 1)
        _check_range(tensors, "probabilities", LOWEST, (1 << 16) - LOWEST)
        _check_range(tensors, "counts", 0, MAX_COUNT)
        _check_range(tensors, "weights", -MAX_WEIGHT, MAX_WEIGHT)
        predicted = tensors["predicted"].astype(np.bool_)
        if predicted[GROUP:].any():
            raise ValueError(f"a channel behind the first {GROUP} is predicted")
        state = ScalarState(
            entries=tensors["probabilities"].astype(np.int32) << 8 | tensors["counts"],
            weights=tensors["weights"].astype(np.int64),
        )
        levels = int(tensors["levels"][0])
        return cls(num_stages, channels, levels, state, relations, predicted)

    @staticmethod
    def can_code(num_stages: int, channels: int) -> bool:
        """Whether there is a coder of so many channels."""
        return num_stages * channels <= MAX_CODES

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of every codebook."""
        return (self.levels,) * (self.num_stages * self.channels)

    @property
    def _half(self) -> int:
        return (self.levels - 1) // 2

    def _signed(self, codes: Ints) -> NDArray[np.int16]:
        """Codes (S * C, *grid) -> (S, C, rows, columns), zero in the middle."""
        if codes.min() < 0 or codes.max() >= self.levels:
            raise ValueError(f"a code is not from 0 to {self.levels - 1}")
        rows, columns = rows_and_columns(codes.shape[1:])
        signed = (codes - self._half).astype(np.int16)
        return signed.reshape(self.num_stages, self.channels, rows, columns)

    def _related(self, items: Sequence[Ints]) -> ScalarCoder:
        """The same, with relations and predicted channels of items."""
        values = [self._signed(codes) for codes in items]
        predicted = _predicted([one[0].astype(np.int64) for one in values])
        numbers = [one.astype(np.int64) for one in values]
        for one in numbers:
            one[0, predicted] -= _guesses(one[0, predicted])
        return replace(
            self,
            state=self.state.copy(),
            relations=fitted_relations(values, numbers),
            predicted=predicted,
        )


def _guesses(values: Ints) -> Ints:
    """What neighbours say of values (C, rows, columns), as in the kernel."""
    west = np.zeros_like(values)
    west[:, :, 1:] = values[:, :, :-1]
    north = np.zeros_like(values)
    north[:, 1:] = values[:, :-1]
    corner = np.zeros_like(values)
    corner[:, 1:, 1:] = values[:, :-1, :-1]
    plane = west + north - corner
    guesses = np.maximum(np.minimum(west, north), np.minimum(np.maximum(west, north), plane))
    guesses[:, :, 0] = north[:, :, 0]
    guesses[:, 0] = west[:, 0]
    return guesses


def _predicted(stages: Sequence[Ints]) -> NDArray[np.bool_]:
    """Channels of first stages (C, rows, columns) whose differences are much smaller than they
    are, but at the borders.
    """
    channels = len(stages[0])
    bits = np.zeros(channels)
    bits_of_rest = np.zeros(channels)
    for values in stages:
        inside = values[:, 1:, 1:]
        bits += np.log2(1 + abs(inside)).sum((1, 2))
        bits_of_rest += np.log2(1 + abs(inside - _guesses(values)[:, 1:, 1:])).sum((1, 2))
    smaller = bits_of_rest < _GAIN * bits
    smaller[GROUP:] = False
    return smaller


def _check_sizes(num_stages: int, channels: int, levels: int) -> None:
    """ValueError for sizes that no coder has."""
    if not (1 <= num_stages <= MAX_STAGES and 1 <= channels <= MAX_CHANNELS):
        raise ValueError(f"{num_stages} stages of {channels} channels are too many, or none")
    if num_stages * channels > MAX_CODES:
        raise ValueError(f"{num_stages} stages of {channels} channels are more than {MAX_CODES}")
    if not 3 <= levels <= MAX_LEVELS or levels % 2 == 0:
        raise ValueError(f"{levels} levels are no odd number from 3 to {MAX_LEVELS}")


def _sizes(tensors: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Stages and channels of a coder, of which these are as they should be, and so is its number
    of levels. ValueError.
    """
    names = {"levels", "predicted", "probabilities", "counts", "weights", *Relations._fields}
    if set(tensors) != names:
        raise ValueError(f"a scalar coder has {sorted(names)}, not {sorted(tensors)}")
    _check_kind(tensors, "levels", np.int32, (1,))
    _check_kind(tensors, "predicted", np.uint8, tensors["predicted"].shape[:1])
    channels = len(tensors["predicted"])
    sets = NUM_DECISIONS * (channels + NUM_SETS)
    num_stages, rest = divmod(len(np.atleast_1d(tensors["weights"])), sets)
    if rest:
        raise ValueError("weights are of no whole number of stages")
    _check_sizes(num_stages, channels, int(tensors["levels"][0]))
    return num_stages, channels


def _relations(tensors: Mapping[str, np.ndarray], num_stages: int, channels: int) -> Relations:
    """Relations whose numbers are within bounds. ValueError."""
    largest = {
        "partners": channels - 1,
        "signs": NUM_SITES * channels - 1,
        "magnitudes": MAX_FACTOR,
        "groups": MAX_FACTOR,
    }
    for name, shape in relation_shapes(num_stages, channels).items():
        _check_kind(tensors, name, np.int32, shape)
        _check_range(tensors, name, 0, largest[name])
    return Relations(*(tensors[name].copy() for name in Relations._fields))


def _check_kind(
    tensors: Mapping[str, np.ndarray], name: str, dtype: type, shape: tuple[int, ...]
) -> None:
    given = tensors[name]
    if given.dtype != dtype or given.shape != shape or given.ndim == 0:
        raise ValueError(f"{name} has type {given.dtype} and shape {given.shape}")


def _check_range(tensors: Mapping[str, np.ndarray], name: str, low: int, high: int) -> None:
    given = tensors[name]
    if given.min() < low or given.max() > high:
        raise ValueError(f"{name} are not from {low} to {high}")


class _Item:
    """One item on its way in or out, some rows at a time, and what they have taught so far.

    A stage looks at the row above and below in the stage before, so that every stage may be one row
    behind the one before it: rows go through all stages together, and only those in a window and
    above it that others look at are kept.
    """

    def __init__(
        self, coder: ScalarCoder, num_stages: int, state: ScalarState, grid: Sequence[int]
    ) -> None:
        rows, columns = rows_and_columns(grid)
        self._grid = tuple(grid)
        self._rows = rows
        self._columns = columns
        self._step = _rows_together(grid, num_stages * coder.channels)
        # Rows that the last stage is behind the first.
        self._behind = num_stages - 1
        # Positions of one call, and bytes of them at most, two for each decision.
        self._together = max(1, min(_TOGETHER // coder.channels, rows * columns))
        self._most = 2 * MOST_DECISIONS * coder.channels * self._together
        at_hand = self._step + self._behind + 2 * BORDER
        across = columns + 2 * BORDER
        positions = num_stages * at_hand * across
        groups = coder.relations.groups.shape[2]
        self._item = Item(
            values=np.zeros(positions * coder.channels, np.int16),
            magnitudes=np.zeros(positions * coder.channels, np.int8),
            sums=np.zeros(positions * (groups + BEHIND_GROUPS), np.int8),
            totals=np.zeros(positions, np.int16),
            expected=np.zeros(coder.channels, np.int64),
            expected_sums=np.zeros(groups, np.int64),
            predicted=coder.predicted,
            limit=(coder.levels - 1) // 2,
            channels=coder.channels,
            groups=groups,
            rows=at_hand,
            columns=across,
            first=BORDER + self._behind,
        )
        self._choice = Choice(-1, np.zeros(0, np.int16), 0, 0, PRICES, np.zeros(1, np.int64))
        self._num_stages = num_stages
        shaped = self._item.values.reshape(num_stages, at_hand, across, coder.channels)
        # (S, C, rows at hand, columns)
        self._inside = shaped[:, :, BORDER:-BORDER].transpose(0, 3, 1, 2)
        self._state = state
        self._relations = coder.relations.flat()
        self._notes = scratch()

    def encode(
        self,
        codes: ScalarCodes,
        wanted: NDArray[np.floating] | None = None,
        chosen: ScalarCodes | None = None,
    ) -> list[bytes]:
        """The bytes of each stage. wanted, chosen: of `choose`, what it shall be and becomes."""
        no_data = np.frombuffer(b"", np.uint8)
        no_decoder = np.zeros(0, np.int64)
        streams = []
        for _ in range(self._num_stages):
            encoder = np.array([0, 1 << 32, 0])
            streams.append(Stream(no_data, no_decoder, encoder, np.zeros(0, np.uint8)))
        for top in range(0, self._rows, self._step):
            if top:
                self._move()
            bottom = min(top + self._step, self._rows)
            given = codes.numbers(self._spans(top, bottom))
            start = self._item.first + top
            self._inside[:, :, start : start + bottom - top] = given.reshape(
                self._num_stages, self._item.channels, bottom - top, self._columns
            )
            if wanted is not None:
                self._want(wanted, top, bottom)
            for stage, part in self._parts(top):
                streams[stage] = self._with_room(streams[stage])
                self._code(stage, part, streams[stage])
            if chosen is not None:
                self._give(chosen, top)
        found = []
        for stream in streams:
            low, width, count = stream.encoder.tolist()
            found.append(RangeEncoder(low, width, stream.out[:count].tobytes()).finish())
        return found

    def choose(
        self, codes: ScalarCodes, wanted: NDArray[np.floating], weight: float
    ) -> ScalarCodes:
        """See `ScalarCoder.choose`."""
        positions = self._item.rows * self._item.columns * self._item.channels
        self._choice = self._choice._replace(
            stage=self._behind,
            wanted=np.zeros(positions, np.int16),
            first=self._behind * positions,
            weight=round(weight * UNITS**2),
        )
        chosen = ScalarCodes(len(codes), codes.grid, codes.levels)
        self.encode(codes, wanted, chosen)
        return chosen

    def _want(self, wanted: NDArray[np.floating], top: int, bottom: int) -> None:
        """Note what values are wanted in rows of the item."""
        item = self._item
        window = self._choice.wanted.reshape(item.rows, item.columns, item.channels)
        rows = wanted.reshape(item.channels, self._rows, self._columns)[:, top:bottom]
        most = np.iinfo(np.int16).max
        units = np.round(rows * UNITS).clip(-most, most).astype(np.int16)
        start = item.first + top
        window[start : start + bottom - top, BORDER:-BORDER] = units.transpose(1, 2, 0)

    def decode(self, payloads: Sequence[bytes], codes: ScalarCodes) -> None:
        """Set codes from the bytes of each stage. CorruptCodes where some end too soon."""
        from ..rangecoder_kernel import begin_decoder

        streams = []
        for data in payloads:
            given = np.frombuffer(data, np.uint8)
            no_encoder = np.zeros(0, np.int64)
            streams.append(Stream(given, begin_decoder(data), no_encoder, np.zeros(0, np.uint8)))
        for top in range(0, self._rows, self._step):
            if top:
                self._move()
            for stage, part in self._parts(top):
                self._code(stage, part, streams[stage])
                check_position(streams[stage].decoder[2], len(payloads[stage]))
            self._give(codes, top)

    def _give(self, codes: ScalarCodes, top: int) -> None:
        """Set the codes of the rows that the last stage has got to, while the first one codes those
        from `top` on.
        """
        first, end = self._of_stage(top, self._behind)
        if first < end:
            start = self._item.first + first
            found = self._inside[:, :, start : start + end - first]
            spans = self._spans(first, end)
            sides = [stop - begin for begin, stop in spans]
            codes.put_numbers(spans, found.reshape(len(codes), *sides))

    def _spans(self, top: int, bottom: int) -> list[tuple[int, int]]:
        """Those cells of the grid that are rows from `top` up to `bottom`."""
        if len(self._grid) == 2:
            return [(top, bottom), (0, self._columns)]
        return [(0, side) for side in self._grid]

    def _of_stage(self, top: int, stage: int) -> tuple[int, int]:
        """First row of the item and end of those that a stage codes while the first one codes those
        from `top` on.
        """
        bottom = top + self._step
        if bottom >= self._rows:
            return max(0, top - stage), self._rows
        return max(0, top - stage), max(0, bottom - stage)

    def _parts(self, top: int) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
        """Every stage with first row, end of rows, first column and end of columns of what one call
        codes, in the padded rows at hand: whole rows, or a part of one.
        """
        end = BORDER + self._columns
        rows_together = max(1, self._together // self._columns)
        for stage in range(self._num_stages):
            start, stop = self._of_stage(top, stage)
            for row in range(start, stop, rows_together):
                high = self._item.first + row
                low = self._item.first + min(row + rows_together, stop)
                for left in range(BORDER, end, self._together):
                    yield stage, (high, low, left, min(left + self._together, end))

    def _with_room(self, stream: Stream) -> Stream:
        """The stream of an encoder with room for the bytes of one more call."""
        count = int(stream.encoder[2])
        room = count + self._most
        if len(stream.out) >= room:
            return stream
        return stream._replace(out=np.concatenate([stream.out[:count], np.zeros(room, np.uint8)]))

    def _move(self) -> None:
        """Let the rows that come next take the place of the first ones at hand."""
        item = self._item
        kept = item.rows - self._step
        for array in (item.values, item.magnitudes, item.sums, item.totals):
            for stage in array.reshape(self._num_stages, item.rows, -1):
                stage[:kept] = stage[self._step :].copy()
                stage[kept:] = 0
        if len(self._choice.wanted):
            wanted = self._choice.wanted.reshape(item.rows, -1)
            wanted[:kept] = wanted[self._step :].copy()
        self._item = item._replace(first=item.first - self._step)

    def _code(self, stage: int, part: tuple[int, int, int, int], stream: Stream) -> None:
        from . import scalar_kernel

        learning = Learning(self._state, self._notes, stream, COMPACT)
        work = Work(self._item, learning, self._choice, self._relations, SIZES, LEVELS)
        scalar_kernel.run(stage, *part, work)


def _rows_together(grid: Sequence[int], codes_per_position: int) -> int:
    """Rows of an item that go through all stages together; all but of two dimensions."""
    rows, columns = rows_and_columns(grid)
    if len(grid) != 2:
        return rows
    return min(rows, max(1, _WINDOW // (columns * codes_per_position)))
