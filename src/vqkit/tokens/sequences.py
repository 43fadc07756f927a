"""The codes of an item one after another, as a language model reads them, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .vocabulary import Vocabulary

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
    """

    vocabulary: Vocabulary
    order: str

    def length(self, grid: Sequence[int]) -> int:
        """L, tokens of an item of that grid."""
        positions = math.prod(grid)
        num_codebooks = len(self.vocabulary.groups)
        if self.order == "delay":
            return 2 + num_codebooks * (positions + num_codebooks - 1)
        return 2 + num_codebooks * positions

    def tokens(self, codes: NDArray[Any]) -> NDArray[np.int64]:
        """Codes (B, Q, *grid) of items of one grid -> tokens (B, L)."""
        flat = codes.reshape(len(codes), codes.shape[1], -1).astype(np.int64)  # (B, Q, P)
        flat += self.vocabulary.offsets[:, None]
        special = self.vocabulary.special
        found = np.empty((len(codes), self.length(codes.shape[2:])), np.int64)
        found[:, 0] = special["bos"]
        found[:, -1] = special["eos"]
        if self.order == "raster":
            found[:, 1:-1] = flat.transpose(0, 2, 1).reshape(len(codes), -1)
        elif self.order == "coarse-first":
            found[:, 1:-1] = flat.reshape(len(codes), -1)
        else:
            columns = self._columns(flat.shape[2])
            delayed = np.full((len(codes), *columns.shape), special["pad"])
            is_there = columns >= 0
            delayed[:, is_there] = flat.reshape(len(codes), -1)[:, columns[is_there]]
            found[:, 1:-1] = delayed.reshape(len(codes), -1)
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
        if self.order == "raster":
            flat = inside.reshape(-1, num_codebooks).T
        elif self.order == "coarse-first":
            flat = inside.reshape(num_codebooks, -1)
        else:
            flat = self._undelayed(inside, math.prod(grid))
        return self._checked(flat).reshape(num_codebooks, *grid)

    def _columns(self, positions: int) -> NDArray[np.int64]:
        """Of a delayed item the slot of each token, (positions + Q - 1, Q); -1 for pad."""
        num_codebooks = len(self.vocabulary.groups)
        places = np.arange(num_codebooks)
        position = np.arange(positions + num_codebooks - 1)[:, None] - places
        slots = places * positions + position
        return np.where((position >= 0) & (position < positions), slots, -1)

    def _undelayed(self, inside: NDArray[np.int64], positions: int) -> NDArray[np.int64]:
        columns = self._columns(positions).reshape(-1)
        pad = self.vocabulary.special["pad"]
        wrong = np.flatnonzero((columns < 0) & (inside != pad))
        if len(wrong):
            raise BadTokens(f"token {wrong[0] + 1} is {inside[wrong[0]]}, where pad ({pad}) stands")
        flat = np.empty(len(self.vocabulary.groups) * positions, np.int64)
        flat[columns[columns >= 0]] = inside[columns >= 0]
        return flat.reshape(-1, positions)

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
