"""Coder 2, of scalar codes: signed numbers of many channels, most of which are zero.

Shapes: N items, S stages, C channels, codes (N, S * C, *grid) with K levels each, of which the
middle one stands for zero. Every number is an integer.

A stage is one string: row by row, of each position all channels. A code is a few decisions: whether
it is zero, whether it is beyond 1, 2, 3, ..., and its sign. Seven tables, each of which sees the
neighbours in its own way (in its channel, in the channels beside it, at its position, and in the
stage before), say how likely a decision is; their logits are weighed and added (Mahoney 2005,
"Adaptive weighing of context models"), and tables and weights learn from every decision. What they
start from may be fitted to items. docs/file-format.md has it in full. With numba, of the extra
[fast], the same bytes come sooner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grids import rows_and_columns
from ..rangecoder import RangeEncoder, check_position
from .mixing_state import TABLES
from .scalar_state import (
    BORDER,
    FITTED_COUNT,
    GROUP,
    HALF_OCTAVES,
    LOWEST,
    MAX_COUNT,
    MAX_LENGTH,
    MOST_COUNTED,
    ScalarState,
    first_state,
    scratch,
)

Ints = NDArray[np.int64]
# Decisions of a code at most, each of which may take two bytes.
_MOST_DECISIONS = MOST_COUNTED + 2 * MAX_LENGTH + 3
# Weights of a file are within this, of 65536.
MAX_WEIGHT = 1 << 24
# A channel is told as differences where that makes its codes so much smaller.
_GAIN = 0.9


@dataclass(frozen=True)
class ScalarCoder:
    """An entropy coder.

    num_stages and channels: of the codes. levels: K. state: what it starts from. predicted (C,)
    bool: channels of the first stage that are told as differences to what their neighbours say.
    """

    num_stages: int
    channels: int
    levels: int
    state: ScalarState
    predicted: NDArray[np.bool_]

    @classmethod
    def new(cls, num_stages: int, channels: int, levels: int) -> ScalarCoder:
        """One that knows nothing."""
        state = first_state(num_stages, channels)
        return cls(num_stages, channels, levels, state, np.zeros(channels, np.bool_))

    def fitted(self, items: Iterable[Ints]) -> ScalarCoder:
        """One that starts from what codes (S * C, *grid) of items have taught."""
        items = list(items)
        predicted = self._predicted(items)
        learning = replace(self, state=self.state.copy(), predicted=predicted)
        for codes in items:
            item = _Item(learning, learning.state, codes.shape[1:])
            item.inside[:] = self._signed(codes, codes.shape[1:])
            for stage in range(self.num_stages):
                item.encode(stage)
        state = learning.state
        counts = np.minimum(state.counts, FITTED_COUNT).astype(np.uint8)
        weights = state.weights.clip(-MAX_WEIGHT, MAX_WEIGHT)
        return replace(learning, state=state._replace(counts=counts, weights=weights))

    def encode(self, codes: Ints) -> list[list[bytes]]:
        """Codes (N, S * C, *grid) -> bytes of every item and stage, each item alone."""
        payloads = []
        for one in codes:
            item = _Item(self, self.state.copy(), one.shape[1:])
            item.inside[:] = self._signed(one, one.shape[1:])
            payloads.append([item.encode(stage) for stage in range(self.num_stages)])
        return payloads

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: Sequence[int]) -> Ints:
        """Bytes of the first stages of every item, as many for each -> codes (N, stages * C,
        *grid).

        Every code is below K. Wrong bytes give wrong codes, as the check sums of the file tell, or
        CorruptCodes where they end too soon.
        """
        num_stages = len(payloads[0]) if payloads else 0
        found = np.zeros((len(payloads), num_stages * self.channels, *grid), np.int64)
        for number, parts in enumerate(payloads):
            item = _Item(self, self.state.copy(), grid)
            for stage, data in enumerate(parts):
                item.decode(stage, data)
            codes = item.inside[:num_stages].astype(np.int64) + self._half
            found[number] = codes.reshape(found.shape[1:])
        return found

    def first(self, num_stages: int) -> ScalarCoder:
        """The coder of the first stages alone."""
        return replace(self, num_stages=num_stages)

    def tensors(self) -> dict[str, np.ndarray]:
        """All of it, by name."""
        return {
            "levels": np.array([self.levels], np.int32),
            "predicted": self.predicted.astype(np.uint8),
            "probabilities": self.state.probabilities.astype(np.int32),
            "counts": self.state.counts,
            "weights": self.state.weights.astype(np.int32),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> ScalarCoder:
        """ValueError for what `tensors` does not give."""
        names = {"levels", "predicted", "probabilities", "counts", "weights"}
        if set(tensors) != names:
            raise ValueError(f"a scalar coder has {sorted(names)}, not {sorted(tensors)}")
        channels = len(tensors["predicted"]) if tensors["predicted"].ndim == 1 else 0
        num_sets = len(tensors["weights"]) if tensors["weights"].ndim == 2 else 0
        per_stage = first_state(1, 1).weights.shape[0]
        num_stages, rest = divmod(num_sets, per_stage)
        if not (1 <= channels <= 1024 and 1 <= num_stages <= 64) or rest:
            raise ValueError("its tensors have shapes that do not belong together")
        wanted = cls.new(num_stages, channels, 3).tensors()
        for name, like in wanted.items():
            given = tensors[name]
            if given.dtype != like.dtype or given.shape != like.shape:
                raise ValueError(f"{name} has type {given.dtype} and shape {given.shape}")
        levels = int(tensors["levels"][0])
        probabilities = tensors["probabilities"]
        if not 3 <= levels <= 1023 or levels % 2 == 0:
            raise ValueError(f"{levels} levels are no odd number from 3 to 1023")
        if probabilities.min() < LOWEST or probabilities.max() > (1 << 16) - LOWEST:
            raise ValueError("a probability is out of range")
        if tensors["counts"].max() > MAX_COUNT or abs(tensors["weights"]).max() > MAX_WEIGHT:
            raise ValueError("a count or a weight is out of range")
        state = ScalarState(
            probabilities=probabilities.astype(np.uint16),
            counts=tensors["counts"],
            weights=tensors["weights"].astype(np.int64),
        )
        return cls(num_stages, channels, levels, state, tensors["predicted"].astype(np.bool_))

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of every codebook."""
        return (self.levels,) * (self.num_stages * self.channels)

    @property
    def _half(self) -> int:
        return (self.levels - 1) // 2

    def _signed(self, codes: Ints, grid: Sequence[int]) -> Any:
        """Codes (Q, *grid) -> (S, C, rows, columns) int16, zero in the middle."""
        shape = (self.num_stages, self.channels, *rows_and_columns(grid))
        return (codes - self._half).astype(np.int16).reshape(shape)

    def _predicted(self, items: Sequence[Ints]) -> NDArray[np.bool_]:
        """Channels of the first stage whose differences are much smaller than they are."""
        whole = np.zeros(self.channels)
        rest = np.zeros(self.channels)
        for codes in items:
            signed = self._signed(codes, codes.shape[1:])[0].astype(np.int64)
            west = signed[:, 1:, :-1]
            north = signed[:, :-1, 1:]
            plane = west + north - signed[:, :-1, :-1]
            guess = np.maximum(np.minimum(west, north), np.minimum(np.maximum(west, north), plane))
            inside = signed[:, 1:, 1:]
            whole += np.log2(1 + abs(inside)).sum((1, 2))
            rest += np.log2(1 + abs(inside - guess)).sum((1, 2))
        smaller = rest < _GAIN * whole
        smaller[GROUP:] = False
        return smaller


class _Item:
    """One item on its way in or out: its codes with a border, and what they have taught so far."""

    def __init__(self, coder: ScalarCoder, state: ScalarState, grid: Sequence[int]) -> None:
        from . import scalar_kernel

        self._kernel = scalar_kernel
        rows, columns = rows_and_columns(grid)
        self._rows = range(BORDER, BORDER + rows)
        shape = (coder.num_stages, coder.channels, rows + 2 * BORDER, columns + 2 * BORDER)
        codes = np.zeros(shape, np.int16)
        self.inside = codes[:, :, BORDER:-BORDER, BORDER:-BORDER]
        limit = (coder.levels - 1) // 2
        self._item = scalar_kernel.Item(codes, coder.predicted, HALF_OCTAVES, limit)
        self._state = state
        self._notes = scratch()
        self._row_bytes = 2 * _MOST_DECISIONS * coder.channels * columns

    def encode(self, stage: int) -> bytes:
        """The bytes of a stage."""
        encoder = np.array([0, 1 << 32, 0])
        nothing = np.zeros(0, np.int64)
        out = np.zeros(0, np.uint8)
        activity = self._activity()
        for y in self._rows:
            room = int(encoder[2]) + self._row_bytes
            if len(out) < room:
                out = np.concatenate([out[: encoder[2]], np.zeros(room, np.uint8)])
            stream = self._kernel.Stream(np.zeros(0, np.uint8), nothing, encoder, out)
            self._code(stage, y, activity, stream)
        low, width, count = encoder.tolist()
        return RangeEncoder(low, width, out[:count].tobytes()).finish()

    def decode(self, stage: int, data: bytes) -> None:
        """Set a stage. CorruptCodes where its bytes end too soon."""
        from ..rangecoder_kernel import begin_decoder

        decoder = begin_decoder(data)
        given = np.frombuffer(data, np.uint8)
        nothing = np.zeros(0, np.int64)
        stream = self._kernel.Stream(given, decoder, nothing, np.zeros(0, np.uint8))
        activity = self._activity()
        for y in self._rows:
            self._code(stage, y, activity, stream)
            check_position(decoder[2], len(data))

    def _activity(self) -> Any:
        return np.zeros(self._item.codes.shape[2:], np.int64)

    def _code(self, stage: int, y: int, activity: Any, stream: Any) -> None:
        self._kernel.run(stage, y, self._item, activity, TABLES, self._state, self._notes, stream)
