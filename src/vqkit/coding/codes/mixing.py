"""Coder 1, context mixing: codes of any kind to bytes and back, with what the file itself teaches.

Shapes: N items, Q stages (codebooks, or channels of values), C contexts of a slot, n slots, K codes
of a stage. Every number is an integer.

A code is a few bits, the highest first. Each of C contexts, which are the neighbours of a slot seen
in different ways, has a table that says how likely a bit is where the context and the bits before
it were the same; the logits are weighed and added (Mahoney 2005, "Adaptive weighing of context
models", section 3.2), and tables and weights learn from every bit. A network can give one logit
more, so that an item is coded well from its first value. docs/file-format.md has it in full. With
numba, of the extra [fast], the same bytes come sooner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..grids import finer, join, rows_and_columns, split
from ..rangecoder import TOTAL, RangeEncoder, check_position
from .mixing_state import BORDER, TABLES, Learnt, Rows, Stream, Tables, first_state

Ints = NDArray[np.int64]

# Slots that are coded by one call, at least a row: their symbols take 16 bytes a bit of memory.
TOGETHER = 1 << 12


class RowsCoder(Protocol):
    """A network that codes rows: it says how codes are distributed, before the file has taught
    anything.
    """

    def code_rows(self, rows: Rows, tables: Tables, learnt: Learnt, stream: Stream) -> None:
        """The slots of whole rows, as `mixing_kernel.code_rows` with what the network says."""


@dataclass(frozen=True)
class MixingCoder:
    """An entropy coder.

    sizes: K of each stage, in coding order. network: one that knows the values. sides: of each
    stage, see grids; none for stages that all lie on the grid of the codes.
    """

    sizes: tuple[int, ...]
    network: RowsCoder | None = None
    sides: tuple[int, ...] = ()

    @cached_property
    def all_sides(self) -> tuple[int, ...]:
        """Of every stage; they never fall."""
        return self.sides or (1,) * len(self.sizes)

    def encode(self, codes: Ints) -> list[list[bytes]]:
        """Codes (N, Q, *grid) -> the bytes of every item and stage. Each item is coded alone."""
        grid = codes.shape[2:]
        stages = split(codes, self.all_sides)
        payloads = []
        for number in range(len(codes)):
            item = _Item(self, grid, len(stages), [stage[number] for stage in stages])
            payloads.append([item.encode(stage) for stage in range(len(stages))])
        return payloads

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: Sequence[int]) -> Ints:
        """Bytes of the first stages of every item, as many for each -> codes (N, stages, *grid).

        Every code is below its K. Wrong bytes give wrong codes, as the check sums of the file tell,
        or CorruptCodes where they end too soon.
        """
        num_stages = len(payloads[0]) if payloads else 0
        sides = self.all_sides[:num_stages]
        codes = []
        for parts in payloads:
            item = _Item(self, grid, num_stages, [])
            for stage, data in enumerate(parts):
                item.decode(stage, data)
            codes.append(join([stage[None] for stage in item.stages], sides, grid))
        if not codes:
            return np.zeros((0, 0, *grid), np.int64)
        return np.concatenate(codes)


class _Item:
    """One item on its way in or out: the codes of its stages as far as they are known, each on its
    own grid, and what they have taught so far.

    The stage that is coded is laid with all those before it on its grid, with a border; so are
    those behind it that have the same grid.
    """

    def __init__(
        self, coder: MixingCoder, grid: Sequence[int], num_stages: int, stages: list[Ints]
    ) -> None:
        """stages: all of them where they are encoded, none where they are decoded."""
        self.stages = stages
        self._coder = coder
        self._cells = grid
        self._num_stages = num_stages
        self._side = 0
        finest = math.prod(grid) * coder.all_sides[-1] ** len(grid)
        self._learnt = first_state(finest, coder.network is not None)

    def _enter(self, stage: int) -> None:
        """Lay out the codes for a stage, if its grid is not that of the one before."""
        sides = self._coder.all_sides[: self._num_stages]
        if sides[stage] == self._side:
            return
        self._side = sides[stage]
        self._grid = rows_and_columns(self._extent())
        rows, columns = self._grid
        num_laid = stage + sides[stage:].count(self._side)
        shape = (num_laid, rows + 2 * BORDER, columns + 2 * BORDER)
        self._padded = np.zeros(shape, np.int64)
        self._inside = self._padded[:, BORDER:-BORDER, BORDER:-BORDER]
        for number, codes in enumerate(self.stages[:num_laid]):
            laid = finer(codes[None], self._side // sides[number])
            self._inside[number] = laid.reshape(rows, columns)

    def _extent(self) -> list[int]:
        """The grid of the stage that is coded."""
        return [length * self._side for length in self._cells]

    def encode(self, stage: int) -> bytes:
        """The bytes of a stage."""
        self._enter(stage)
        nothing = np.frombuffer(b"", np.uint8)
        no_decoder = np.zeros(0, np.int64)
        parts = (self._code(stage, rows, nothing, no_decoder) for rows in self._bands())
        kernel = kernels.load("rangecoder_kernel")
        if not kernel:
            encoder = RangeEncoder()
            for symbols in parts:
                for start, frequency in symbols.reshape(-1, 2).tolist():
                    encoder.encode(start, frequency)
            return encoder.finish()
        state = np.array([0, 1 << 32, 0])
        out = np.zeros(0, np.uint8)
        for symbols in parts:
            out = np.concatenate([out[: state[2]], np.zeros(len(symbols), np.uint8)])
            kernel.encode_symbols(symbols, state, out)
        low, width, count = state.tolist()
        return RangeEncoder(low, width, out[:count].tobytes()).finish()

    def decode(self, stage: int, data: bytes) -> None:
        """Set a stage. CorruptCodes where its bytes end too soon."""
        from ..rangecoder_kernel import begin_decoder

        self._enter(stage)
        decoder = begin_decoder(data)
        given = np.frombuffer(data, np.uint8)
        for rows in self._bands():
            self._code(stage, rows, given, decoder)
            check_position(decoder[2], len(data))
        self.stages.append(self._inside[stage].reshape(self._extent()))

    def _bands(self) -> Iterator[range]:
        """Rows that are coded by one call."""
        rows, columns = self._grid
        together = max(1, TOGETHER // columns)
        for top in range(0, rows, together):
            yield range(top, min(top + together, rows))

    def _code(self, stage: int, band: range, data: Any, decoder: Any) -> Ints:
        """Rows of a stage, from bytes or to symbols (n * bits * 2,): see
        `mixing_kernel.code_rows`.
        """
        from . import mixing_kernel

        columns = self._grid[1]
        num_codes = self._coder.sizes[stage]
        num_bits = len(band) * columns * (num_codes - 1).bit_length()
        symbols = np.zeros((0 if len(decoder) else num_bits, 2), np.int64)
        symbols[:, 1] = TOTAL
        rows = Rows(
            padded=self._padded,
            stage=stage,
            top=band.start + BORDER,
            bottom=band.stop + BORDER,
            first=BORDER,
            end=BORDER + columns,
            num_codes=num_codes,
        )
        stream = Stream(data, decoder, symbols.reshape(-1))
        if self._coder.network:
            self._coder.network.code_rows(rows, TABLES, self._learnt, stream)
        else:
            nothing = np.zeros(0, np.int64)
            mixing_kernel.run(rows, nothing, TABLES, self._learnt, stream)
        return stream.symbols
