"""The codes of an item one after another, as a language model reads them, and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import VqkitError
from .vocabulary import ROW_END, Vocabulary

ORDERS = ("raster", "coarse-first", "delay")


class BadTokens(ValueError):
    """Tokens that are no item; the message says where and why."""


@dataclass(frozen=True)
class Sequences:
    """Codes (Q, *grid) <-> tokens (L,): bos, the codes, eos.

    order: `raster`, position by position row by row, the Q codes of one together, coarse to fine;
    `coarse-first`, all positions of one place after those of the place before; `delay`, column s
    of Q tokens has the code of place q of position s - q (Copet et al. 2023, arXiv 2306.05284,
    section 2.1), and pad where there is no such position.

    With a vocabulary that has row ends, `raster` has one behind every row, and one more for each
    further axis that ends there (behind the planes of a volume), but for the first: tokens alone
    then say their grid. VqkitError for row ends in another order.
    """

    vocabulary: Vocabulary
    order: str

    def __post_init__(self) -> None:
        if self.vocabulary.has_row_ends and self.order != "raster":
            raise VqkitError(f"row ends are of the order raster alone, not of {self.order}")

    def length(self, grid: Sequence[int]) -> int:
        """L, tokens of an item of that grid."""
        positions = math.prod(grid)
        num_codebooks = len(self.vocabulary.groups)
        if self.order == "delay":
            return 2 + num_codebooks * (positions + num_codebooks - 1)
        return 2 + num_codebooks * positions + self._num_row_ends(grid)

    def grid_of(self, tokens: NDArray[Any], num_axes: int) -> tuple[int, ...]:
        """The grid that the row ends of an item's tokens (L,) say. BadTokens for those of none."""
        inside = np.asarray(tokens, np.int64)[1:-1]
        is_end = inside == self.vocabulary.special[ROW_END]
        # Of every run of row ends the first one and the last.
        edges = np.diff(np.concatenate([[0], is_end.astype(np.int8), [0]]))
        firsts = np.flatnonzero(edges == 1)
        runs = np.flatnonzero(edges == -1) - firsts
        # A run has one for each axis that ends, so that axis k ends where a run is so long.
        ends = [1] + [int((runs >= num_axes - axis).sum()) for axis in range(1, num_axes)]
        first = int(firsts[0]) if len(firsts) else 0
        sides = [divmod(many, few) if few else (0, 0) for few, many in itertools.pairwise(ends)]
        sides.append(divmod(first, len(self.vocabulary.groups)))
        if any(side < 1 or rest for side, rest in sides):
            raise BadTokens("their row ends are not those of a grid")
        return tuple(side for side, _ in sides)

    def _num_row_ends(self, grid: Sequence[int]) -> int:
        if not self.vocabulary.has_row_ends:
            return 0
        return sum(math.prod(grid[:axis]) for axis in range(1, len(grid)))

    def tokens(self, codes: NDArray[Any]) -> NDArray[np.int64]:
        """Codes (B, Q, *grid) of items of one grid -> tokens (B, L)."""
        flat = codes.reshape(len(codes), codes.shape[1], -1).astype(np.int64)  # (B, Q, P)
        flat += self.vocabulary.offsets[:, None]
        special = self.vocabulary.special
        found = np.empty((len(codes), self.length(codes.shape[2:])), np.int64)
        found[:, 0] = special["bos"]
        found[:, -1] = special["eos"]
        if self._between is not None:
            slots = self._slots(codes.shape[2:])
            is_there = slots >= 0
            found[:, 1:-1][:, ~is_there] = special[self._between]
            found[:, 1:-1][:, is_there] = flat.reshape(len(codes), -1)[:, slots[is_there]]
        elif self.order == "raster":
            found[:, 1:-1] = flat.transpose(0, 2, 1).reshape(len(codes), -1)
        else:
            found[:, 1:-1] = flat.reshape(len(codes), -1)
        return found

    def codes(self, tokens: NDArray[Any], grid: Sequence[int]) -> NDArray[np.int64]:
        """Tokens (L,) of an item of that grid -> codes (Q, *grid).

        BadTokens for another number of them, and for ids that cannot stand where they do.
        """
        tokens = np.asarray(tokens, np.int64)
        if tokens.shape != (self.length(grid),):
            raise BadTokens(
                f"an item of the grid {'x'.join(map(str, grid))} has {self.length(grid)} tokens, "
                f"not {tokens.size}"
            )
        special = self.vocabulary.special
        for position, name in ((0, "bos"), (len(tokens) - 1, "eos")):
            if tokens[position] != special[name]:
                raise BadTokens(
                    f"token {position} is {tokens[position]}, where {name} ({special[name]}) stands"
                )
        num_codebooks = len(self.vocabulary.groups)
        inside = tokens[1:-1]
        if self._between is not None:
            flat = self._picked(inside, grid)
        elif self.order == "raster":
            flat = inside.reshape(-1, num_codebooks).T
        else:
            flat = inside.reshape(num_codebooks, -1)
        return self._checked(flat).reshape(num_codebooks, *grid)

    @property
    def _between(self) -> str | None:
        """What stands between codes, None for nothing."""
        if self.order == "delay":
            return "pad"
        return ROW_END if self.vocabulary.has_row_ends else None

    def _slots(self, grid: Sequence[int]) -> NDArray[np.int64]:
        """Of each token between bos and eos the place of its code in (Q, P), flat; -1 for what
        stands between codes.
        """
        positions = math.prod(grid)
        num_codebooks = len(self.vocabulary.groups)
        places = np.arange(num_codebooks)
        if self.order == "delay":
            position = np.arange(positions + num_codebooks - 1)[:, None] - places
            slots = places * positions + position
            return np.where((position >= 0) & (position < positions), slots, -1).reshape(-1)
        position = np.arange(positions)[:, None]
        spans = [math.prod(grid[axis:]) for axis in range(1, len(grid))]
        num_ends = sum((position[:, 0] + 1) % span == 0 for span in spans)
        starts = num_codebooks * position[:, 0] + np.cumsum(num_ends) - num_ends
        slots = np.full(num_codebooks * positions + self._num_row_ends(grid), -1)
        slots[starts[:, None] + places] = places * positions + position
        return slots

    def _picked(self, inside: NDArray[np.int64], grid: Sequence[int]) -> NDArray[np.int64]:
        """Ids (Q, P) out of those with something between them. BadTokens."""
        slots = self._slots(grid)
        name = str(self._between)
        between = self.vocabulary.special[name]
        wrong = np.flatnonzero((slots < 0) & (inside != between))
        if len(wrong):
            raise BadTokens(
                f"token {wrong[0] + 1} is {inside[wrong[0]]}, where {name} ({between}) stands"
            )
        flat = np.empty(len(self.vocabulary.groups) * math.prod(grid), np.int64)
        flat[slots[slots >= 0]] = inside[slots >= 0]
        return flat.reshape(len(self.vocabulary.groups), -1)

    def _checked(self, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        """Codes (Q, P) of ids. BadTokens for ids of another codebook, or of none."""
        codes = flat - self.vocabulary.offsets[:, None]
        sizes = np.array(self.vocabulary.codebook_sizes)[:, None]
        wrong = np.argwhere((codes < 0) | (codes >= sizes))
        if len(wrong):
            place, position = wrong[0]
            low = self.vocabulary.offsets[place]
            raise BadTokens(
                f"the token of place {place} at position {position} is {flat[place, position]}, "
                f"and lies outside of {low} to {low + sizes[place, 0] - 1}"
            )
        return codes
