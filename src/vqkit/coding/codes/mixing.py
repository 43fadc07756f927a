"""Coder 1, context mixing: codes of any kind to bytes and back, with what the file itself teaches.

Shapes: N items, Q stages (codebooks, or channels of values), C contexts of a slot, n slots, K codes
of a stage. Every number is an integer.

A code is a few bits, the highest first. Each of C contexts, which are the neighbours of a slot seen
in different ways, has a table that says how likely a bit is where the context and the bits before
it were the same; the logits are weighed and added (Mahoney 2005, "Adaptive weighing of context
models", section 3.2), and tables and weights learn from every bit. For values, a network gives one
logit more, so that an item is coded well from its first value, and a linear prediction that learns
from the item another one. docs/file-format.md has it in full. With
numba, of the extra [fast], the same bytes come sooner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..grids import finer, join, rows_and_columns, split
from ..rangecoder import TOTAL, StringEncoder, check_position
from .mixing_state import (
    BORDER,
    TABLES,
    Learnt,
    Rows,
    Stream,
    Tables,
    first_linear,
    first_state,
    neighbours,
)

Ints = NDArray[np.int64]
Codes = NDArray[np.integer[Any]]

# Slots that are coded by one call, at least a row where there are several: their symbols take 16
# bytes a bit of memory.
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

    def encode(
        self, codes: Codes, progress: Callable[[float], None] | None = None
    ) -> list[list[bytes]]:
        """Codes (N, Q, *grid) -> the bytes of every item and stage. Each item is coded alone.

        progress: called with the share of the stages that is done.
        """
        grid = codes.shape[2:]
        stages = split(codes, self.all_sides)
        payloads: list[list[bytes]] = []
        for number in range(len(codes)):
            item = _Item(self, grid, len(stages), [stage[number] for stage in stages])
            payloads.append([])
            for stage in range(len(stages)):
                payloads[number].append(item.encode(stage))
                if progress:
                    progress((number + (stage + 1) / len(stages)) / len(codes))
        return payloads

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: Sequence[int]) -> Codes:
        """Bytes of the first stages of every item, as many for each -> codes (N, stages, *grid)
        uint16, uint32 where there are more of them.

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
            return np.zeros((0, 0, *grid), np.uint16)
        return codes[0] if len(codes) == 1 else np.concatenate(codes)


class _Part(NamedTuple):
    """What is coded by one call: rows and columns of a grid, first and end."""

    rows: tuple[int, int]
    columns: tuple[int, int]


class _Item:
    """One item on its way in or out: the codes of its stages as far as they are known, each on its
    own grid, and what they have taught so far.

    The stage that is coded is laid with all those before it on its grid, with a border; so are
    those behind it that have the same grid. Of a single row, which may be of any length, no more is
    laid at once than one call codes.
    """

    def __init__(
        self, coder: MixingCoder, grid: Sequence[int], num_stages: int, stages: list[Codes]
    ) -> None:
        """stages: all of them where they are encoded, none where they are decoded."""
        self.stages = stages
        self._coder = coder
        self._cells = grid
        self._sides = coder.all_sides[:num_stages]
        self._side = 0
        finest = math.prod(grid) * coder.all_sides[-1] ** len(grid)
        self._learnt = first_state(finest, coder.network is not None)

    def _enter(self, stage: int) -> None:
        """Begin a stage."""
        if self._sides[stage] != self._side:
            self._lay_all(stage)
        if self._coder.network:
            linear = first_linear(neighbours(stage), self._grid[1])
            self._learnt = self._learnt._replace(linear=linear)

    def _lay_all(self, stage: int) -> None:
        """Lay out the codes on the grid of a stage."""
        self._side = self._sides[stage]
        self._grid = rows_and_columns(self._extent())
        rows, columns = self._grid
        # A network takes whole rows.
        self._is_laid_in_parts = rows == 1 and self._coder.network is None
        if self._is_laid_in_parts:
            columns = min(columns, TOGETHER)
        num_laid = stage + self._sides[stage:].count(self._side)
        shape = (num_laid, rows + 2 * BORDER, columns + 2 * BORDER)
        self._padded = np.zeros(shape, np.int64)
        if self._is_laid_in_parts:
            return
        inside = self._padded[:, BORDER:-BORDER, BORDER:-BORDER]
        for number, codes in enumerate(self.stages[:num_laid]):
            laid = finer(codes[None], self._side // self._sides[number])
            inside[number] = laid.reshape(rows, columns)

    def _extent(self) -> list[int]:
        """The grid of the stage that is coded."""
        return [length * self._side for length in self._cells]

    def encode(self, stage: int) -> bytes:
        """The bytes of a stage."""
        self._enter(stage)
        nothing = np.frombuffer(b"", np.uint8)
        no_decoder = np.zeros(0, np.int64)
        encoder = StringEncoder()
        for part in self._parts():
            rows = self._laid(stage, part)
            encoder.put(self._code(rows, nothing, no_decoder))
        return encoder.finish()

    def decode(self, stage: int, data: bytes) -> None:
        """Set a stage. CorruptCodes where its bytes end too soon."""
        from ..rangecoder_kernel import begin_decoder

        self._enter(stage)
        decoder = begin_decoder(data)
        given = np.frombuffer(data, np.uint8)
        kind = np.uint16 if self._coder.sizes[stage] <= 1 << 16 else np.uint32
        self.stages.append(np.zeros(self._extent(), kind))
        found = self.stages[stage].reshape(self._grid)
        for part in self._parts():
            rows = self._laid(stage, part)
            self._code(rows, given, decoder)
            check_position(decoder[2], len(data))
            here = self._padded[stage, rows.top : rows.bottom, rows.first : rows.end]
            found[slice(*part.rows), slice(*part.columns)] = here

    def _parts(self) -> Iterator[_Part]:
        """What is coded by one call after the other."""
        rows, columns = self._grid
        if self._is_laid_in_parts:
            for first in range(0, columns, TOGETHER):
                yield _Part((0, 1), (first, min(first + TOGETHER, columns)))
            return
        together = max(1, TOGETHER // columns)
        for top in range(0, rows, together):
            yield _Part((top, min(top + together, rows)), (0, columns))

    def _laid(self, stage: int, part: _Part) -> Rows:
        """A part of a stage, where it is laid."""
        top, bottom = part.rows
        first, end = part.columns
        if self._is_laid_in_parts:
            self._lay(first, end)
            first, end = 0, end - first
        return Rows(
            padded=self._padded,
            stage=stage,
            top=top + BORDER,
            bottom=bottom + BORDER,
            first=first + BORDER,
            end=end + BORDER,
            num_codes=self._coder.sizes[stage],
        )

    def _lay(self, first: int, end: int) -> None:
        """Lay columns of a single row, and those beside them in the place of the border."""
        columns = np.arange(max(0, first - BORDER), min(self._grid[1], end + BORDER))
        places = slice(columns[0] - first + BORDER, columns[-1] + 1 - first + BORDER)
        self._padded[:, BORDER] = 0
        for number, codes in enumerate(self.stages[: len(self._padded)]):
            coarser = columns * self._sides[number] // self._side
            self._padded[number, BORDER, places] = codes.reshape(-1)[coarser]

    def _code(self, rows: Rows, data: Any, decoder: Any) -> Ints:
        """Rows of a stage, from bytes or to symbols (n * bits * 2,): see
        `mixing_kernel.code_rows`.
        """
        from . import mixing_kernel

        num_slots = (rows.bottom - rows.top) * (rows.end - rows.first)
        num_bits = num_slots * (rows.num_codes - 1).bit_length()
        symbols = np.zeros((0 if len(decoder) else num_bits, 2), np.int64)
        symbols[:, 1] = TOTAL
        stream = Stream(data, decoder, symbols.reshape(-1))
        if self._coder.network:
            self._coder.network.code_rows(rows, TABLES, self._learnt, stream)
        else:
            nothing = np.zeros(0, np.int64)
            mixing_kernel.run(rows, nothing, TABLES, self._learnt, stream)
        return stream.symbols
