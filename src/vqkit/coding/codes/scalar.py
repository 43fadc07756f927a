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

import numpy as np
from numpy.typing import NDArray

from ..grids import rows_and_columns
from ..rangecoder import RangeEncoder, check_position
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
    SIZES,
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

    def encode(self, codes: Ints) -> list[list[bytes]]:
        """Codes (N, S * C, *grid) -> bytes of every item and stage, each item alone.

        ValueError for codes that are not from 0 to K - 1.
        """
        return [self._encode_item(one, self.state.copy()) for one in codes]

    def _encode_item(self, codes: Ints, state: ScalarState) -> list[bytes]:
        """The bytes of codes (S * C, *grid), from which the state learns."""
        item = _Item(self, self.num_stages, state, codes.shape[1:])
        item.inside[:] = self._signed(codes)
        return [item.encode(stage) for stage in range(self.num_stages)]

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: Sequence[int]) -> Ints:
        """Bytes of the first stages of every item, as many for each -> codes (N, stages * C,
        *grid).

        Every code is below K. Wrong bytes give wrong codes, as the check sums of the file tell, or
        CorruptCodes where they end too soon.
        """
        num_stages = len(payloads[0]) if payloads else 0
        codes = np.zeros((len(payloads), num_stages * self.channels, *grid), np.int64)
        for one, parts in zip(codes, payloads, strict=True):
            item = _Item(self, num_stages, self.state.copy(), grid)
            for stage, data in enumerate(parts):
                item.decode(stage, data)
            np.add(item.inside, self._half, out=one.reshape(item.inside.shape))
        return codes

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
    """One item on its way in or out: its codes with a border, and what they have taught so far."""

    def __init__(
        self, coder: ScalarCoder, num_stages: int, state: ScalarState, grid: Sequence[int]
    ) -> None:
        rows, columns = rows_and_columns(grid)
        self._grid = (rows, columns)
        # Positions of one call, and bytes of them at most, two for each decision.
        self._together = max(1, min(_TOGETHER // coder.channels, rows * columns))
        self._most = 2 * MOST_DECISIONS * coder.channels * self._together
        across = columns + 2 * BORDER
        positions = num_stages * (rows + 2 * BORDER) * across
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
            rows=rows + 2 * BORDER,
            columns=across,
        )
        shaped = self._item.values.reshape(num_stages, -1, across, coder.channels)
        # (S, C, rows, columns)
        self.inside = shaped[:, BORDER:-BORDER, BORDER:-BORDER].transpose(0, 3, 1, 2)
        self._coder = coder
        self._state = state
        self._relations = coder.relations.flat()
        self._notes = scratch()

    def encode(self, stage: int) -> bytes:
        """The bytes of a stage."""
        no_data = np.frombuffer(b"", np.uint8)
        no_decoder = np.zeros(0, np.int64)
        encoder = np.array([0, 1 << 32, 0])
        out = np.zeros(0, np.uint8)
        for part in self._parts():
            room = int(encoder[2]) + self._most
            if len(out) < room:
                out = np.concatenate([out[: encoder[2]], np.zeros(room, np.uint8)])
            self._code(stage, part, Stream(no_data, no_decoder, encoder, out))
        low, width, count = encoder.tolist()
        return RangeEncoder(low, width, out[:count].tobytes()).finish()

    def decode(self, stage: int, data: bytes) -> None:
        """Set a stage. CorruptCodes where its bytes end too soon."""
        from ..rangecoder_kernel import begin_decoder

        decoder = begin_decoder(data)
        given = np.frombuffer(data, np.uint8)
        stream = Stream(given, decoder, np.zeros(0, np.int64), np.zeros(0, np.uint8))
        for part in self._parts():
            self._code(stage, part, stream)
            check_position(decoder[2], len(data))

    def _parts(self) -> Iterator[tuple[int, int, int, int]]:
        """First row, end of rows, first column and end of columns of what one call codes, in the
        padded codes: whole rows, or a part of one.
        """
        rows, columns = self._grid
        end = BORDER + columns
        bottom = BORDER + rows
        rows_together = max(1, self._together // columns)
        for top in range(BORDER, bottom, rows_together):
            for left in range(BORDER, end, self._together):
                right = min(left + self._together, end)
                yield top, min(top + rows_together, bottom), left, right

    def _code(self, stage: int, part: tuple[int, int, int, int], stream: Stream) -> None:
        from . import scalar_kernel

        learning = Learning(self._state, self._notes, stream, COMPACT)
        work = Work(self._item, learning, self._relations, SIZES, LEVELS)
        scalar_kernel.run(stage, *part, work)
