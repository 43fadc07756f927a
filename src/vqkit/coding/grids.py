"""How grids of any number of dimensions lie before the coders, which know rows and columns
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]


def rows_and_columns(grid: Sequence[int]) -> tuple[int, int]:
    """A grid as rows x columns, of which codes are taken row by row.

    Columns are its last side, rows all others multiplied: a sequence is one row, and of a volume
    the rows of each slice follow those of the slice before. Codes stay in row-major order.
    """
    if not grid:
        raise ValueError("a grid has at least one side")
    return math.prod(grid[:-1]), grid[-1]


# ------------------------------------------------------------------------- grids of several stages
#
# Codes of an item lie on one grid, along whose Q a cell has all codes of its stages. A stage whose
# `side` is above 1 has a grid that is so many times finer along each side: its codes are side^n
# numbers in succession along Q, which are the positions of a cell, row by row.


def split(codes: Ints, sides: Sequence[int]) -> list[Ints]:
    """Codes (N, Q, *grid) of the first stages -> those of each of them on its own grid (N, *grid *
    side).

    ValueError for a part of a stage.
    """
    grid = codes.shape[2:]
    stages = []
    place = 0
    for side in sides:
        if place == codes.shape[1]:
            break
        count = side ** len(grid)
        part = codes[:, place : place + count]
        if part.shape[1] != count:
            raise ValueError(f"{codes.shape[1]} codes a cell are no whole number of stages")
        place += count
        cells = part.reshape(len(part), *(side,) * len(grid), *grid)
        # The sides of the grid, each with that of the cell behind it.
        order: list[int] = []
        for dim in range(1, 1 + len(grid)):
            order += (dim + len(grid), dim)
        own = [length * side for length in grid]
        stages.append(cells.transpose(0, *order).reshape(len(part), *own))
    if place != codes.shape[1]:
        raise ValueError(f"{codes.shape[1]} codes a cell are more than those of all stages")
    return stages


def join(stages: Sequence[Ints], sides: Sequence[int], grid: Sequence[int]) -> Ints:
    """The inverse of `split`: codes (N, q, *grid) of the first stages."""
    parts = []
    for codes, side in zip(stages, sides, strict=False):
        apart: list[int] = []
        for length in grid:
            apart += (length, side)
        cells = codes.reshape(len(codes), *apart)
        inside = range(2, 2 + 2 * len(grid), 2)
        outside = range(1, 1 + 2 * len(grid), 2)
        place = cells.transpose(0, *inside, *outside)
        parts.append(place.reshape(len(codes), side ** len(grid), *grid))
    return np.concatenate(parts, 1)


def finer(codes: Ints, factor: int) -> Ints:
    """Codes (N, *grid) at all positions of a grid that is so many times finer: (N, *grid *
    factor).
    """
    if factor > 1:
        for axis in range(1, codes.ndim):
            codes = codes.repeat(factor, axis)
    return codes


def beside(stages: Sequence[Ints], sides: Sequence[int]) -> Ints:
    """Codes of stages, each on its own grid (N, *), the last the finest -> all of them on that one
    as rows and columns (N, stages, rows, columns).
    """
    last = sides[len(stages) - 1]
    found = []
    for codes, side in zip(stages, sides, strict=False):
        found.append(finer(codes, last // side))
    together = np.stack(found, 1)
    return together.reshape(*together.shape[:2], *rows_and_columns(together.shape[2:]))
