"""How grids of any number of dimensions lie before the coders, which know rows and columns
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def rows_and_columns(grid: Sequence[int]) -> tuple[int, int]:
    """A grid as rows x columns, of which codes are taken row by row.

    Columns are its last side, rows all others multiplied: a sequence is one row, and of a volume
    the rows of each slice follow those of the slice before. Codes stay in row-major order.
    """
    if not grid:
        raise ValueError("a grid has at least one side")
    return math.prod(grid[:-1]), grid[-1]
