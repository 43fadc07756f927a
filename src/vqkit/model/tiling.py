"""Tiles: cutting signals into them, and going through large signals part by part.

Shapes: B batch, C channels, then any number of dimensions; a tile is the smallest extent that a
model takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

# Positions of the input that are computed at once, without the margin around them.
PART_POSITIONS = 1 << 16
# Margins that a part is wide at least, so that they add at most 1.25 times what the part itself
# takes.
NUM_MARGINS = 4


class Tiled(Protocol):
    """What `by_parts` needs to know of a model."""

    @property
    def tile(self) -> tuple[int, ...]: ...

    @property
    def reach(self) -> int: ...


def pad_to_multiple(x: Tensor, multiple: Sequence[int]) -> Tensor:
    """(B, C, *extent) with its last positions repeated until every side is a multiple; crop to
    undo.
    """
    missing = [-side % step for side, step in zip(x.shape[2:], multiple, strict=True)]
    if not any(missing):
        return x
    padding = [amount for behind in reversed(missing) for amount in (0, behind)]
    return F.pad(x, padding, mode="replicate")


def crop(x: Tensor, extent: Sequence[int]) -> Tensor:
    """The first positions of (B, C, *at least extent) along every dimension: (B, C, *extent)."""
    for axis, side in enumerate(extent, 2):
        x = x.narrow(axis, 0, side)
    return x


def tile(x: Tensor, sides: Sequence[int]) -> Tensor:
    """(B, C, n * side, m * side, ...) -> (B * n * m ..., C, *sides), in row-major order."""
    dims = len(sides)
    counts = [full // side for full, side in zip(x.shape[2:], sides, strict=True)]
    interleaved = [size for pair in zip(counts, sides, strict=True) for size in pair]
    cells = range(2, 2 + 2 * dims, 2)
    inside = range(3, 3 + 2 * dims, 2)
    x = x.reshape(*x.shape[:2], *interleaved)
    return x.permute(0, *cells, 1, *inside).reshape(-1, x.shape[1], *sides)


def untile(tiles: Tensor, counts: Sequence[int]) -> Tensor:
    """The inverse of `tile`: (B * n * m ..., C, *sides) -> (B, C, n * side, m * side, ...)."""
    dims = len(counts)
    channels, *sides = tiles.shape[1:]
    x = tiles.reshape(-1, *counts, channels, *sides)
    pairs = [axis for dim in range(dims) for axis in (1 + dim, 2 + dims + dim)]
    extent = [count * side for count, side in zip(counts, sides, strict=True)]
    return x.permute(0, 1 + dims, *pairs).reshape(-1, channels, *extent)


def by_parts(
    model: Tiled,
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    before: Sequence[int],
    after: Sequence[int],
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """function(x), for a function made of networks of the model, in memory that does not grow with
    x.

    What a network makes of a part with a margin as wide as it sees is, there, what it makes of the
    whole: margins end at the edges, where the networks pad as they would, and what the other cuts
    change lies in them.

    x: (B, C, n * before[0], m * before[1], ...) -> (B, D, n * after[0], m * after[1], ...), with n,
    m, ... tiles of the model along each dimension. progress: receives the share that is done.
    ValueError for what is no whole tiles.
    """
    if any(side % step for side, step in zip(x.shape[2:], before, strict=True)):
        raise ValueError(
            f"the extent must be a multiple of {tuple(before)}, got {tuple(x.shape[2:])}"
        )
    counts = [side // step for side, step in zip(x.shape[2:], before, strict=True)]
    part_side = round(PART_POSITIONS ** (1 / len(counts)))
    steps = [max(1, part_side // side, NUM_MARGINS * model.reach) for side in model.tile]
    starts = list(
        itertools.product(
            *(range(0, count, step) for count, step in zip(counts, steps, strict=True))
        )
    )
    out: Tensor | None = None
    for number, start in enumerate(starts):
        stop = [
            min(first + step, count)
            for first, step, count in zip(start, steps, counts, strict=True)
        ]
        outer = [max(0, first - model.reach) for first in start]
        part = function(_cut(x, before, outer, [last + model.reach for last in stop]))
        if out is None:
            extent = [count * step for count, step in zip(counts, after, strict=True)]
            out = part.new_empty(len(x), part.shape[1], *extent)
        inner_start = [first - edge for first, edge in zip(start, outer, strict=True)]
        inner_stop = [last - edge for last, edge in zip(stop, outer, strict=True)]
        _cut(out, after, start, stop).copy_(_cut(part, after, inner_start, inner_stop))
        if progress:
            progress((number + 1) / len(starts))
    assert out is not None, "there are no tiles"
    return out


def _cut(x: Tensor, sides: Sequence[int], start: Sequence[int], stop: Sequence[int]) -> Tensor:
    """A view of some tiles; there may be fewer than are asked for at the end."""
    for axis, (side, first, last) in enumerate(zip(sides, start, stop, strict=True), 2):
        end = min(last * side, x.shape[axis])
        x = x.narrow(axis, first * side, end - first * side)
    return x
