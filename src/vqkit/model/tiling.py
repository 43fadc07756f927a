"""Tiles: cutting signals into them, and going through large signals part by part.

Shapes: B batch, C channels, then any number of dimensions; a tile is the smallest extent that a
model takes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor
from torch.nn import functional as F

from ..machine import give_back_memory

# Positions of an item that are computed at once, without the margin around them, where a network
# asks for no other number.
PART_POSITIONS = 1 << 16
# Margins that a part is wide at least, so that they add at most 1.25 times what the part itself
# takes.
NUM_MARGINS = 4


class Reach(NamedTuple):
    """Tiles that a network sees around a tile along every dimension, upper bounds: so many back,
    before it, and so many ahead, behind its end.
    """

    back: int
    ahead: int

    def before(self, other: Reach) -> Reach:
        """Of this network and one that takes what it gives."""
        return Reach(self.back + other.back, self.ahead + other.ahead)


class Tiled(Protocol):
    """What `by_parts` needs to know of a model."""

    @property
    def tile(self) -> tuple[int, ...]: ...

    @property
    def reach(self) -> Reach: ...

    @property
    def part_positions(self) -> int: ...


def pad_to_multiple(x: Tensor, multiple: Sequence[int]) -> Tensor:
    """(B, C, *extent) with its last positions repeated until every side is a multiple.

    Crop to undo.
    """
    missing = [-side % step for side, step in zip(x.shape[2:], multiple, strict=True)]
    if not any(missing):
        return x
    # F.pad takes the amounts before and behind, from the last dimension to the first.
    padding: list[int] = []
    for behind in reversed(missing):
        padding += (0, behind)
    return F.pad(x, padding, mode="replicate")


def crop(x: Tensor, extent: Sequence[int]) -> Tensor:
    """The first positions of (B, C, *at least extent) along every dimension: (B, C, *extent)."""
    for axis, side in enumerate(extent, 2):
        x = x.narrow(axis, 0, side)
    return x


def tile(x: Tensor, sides: Sequence[int]) -> Tensor:
    """(B, C, n * side, m * side, ...) -> (B * n * m ..., C, *sides), in row-major order."""
    dims = len(sides)
    interleaved: list[int] = []
    for full, side in zip(x.shape[2:], sides, strict=True):
        interleaved += (full // side, side)
    cells = range(2, 2 + 2 * dims, 2)
    inside = range(3, 3 + 2 * dims, 2)
    x = x.reshape(*x.shape[:2], *interleaved)
    return x.permute(0, *cells, 1, *inside).reshape(-1, x.shape[1], *sides)


def untile(tiles: Tensor, counts: Sequence[int]) -> Tensor:
    """The inverse of `tile`: (B * n * m ..., C, *sides) -> (B, C, n * side, m * side, ...)."""
    dims = len(counts)
    channels, *sides = tiles.shape[1:]
    x = tiles.reshape(-1, *counts, channels, *sides)
    # The count and the side of one dimension belong together: (B, C, n, side, m, side, ...).
    pairs: list[int] = []
    for dim in range(dims):
        pairs += (1 + dim, 2 + dims + dim)
    return x.permute(0, 1 + dims, *pairs).reshape(-1, channels, *_times(counts, sides))


def by_parts(
    model: Tiled,
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    before: Sequence[int],
    after: Sequence[int],
    progress: Callable[[float], None] | None = None,
    *,
    reach: Reach | None = None,
) -> Tensor:
    """function(x), for a function made of networks of the model, in memory that does not grow with
    x.

    What a network makes of a part with a margin as wide as it sees is, there, what it makes of the
    whole: margins end at the edges, where the networks pad as they would, and what the other cuts
    change lies in them.

    x: (B, C, n * before[0], m * before[1], ...) -> (B, D, n * after[0], m * after[1], ...), with n,
    m, ... tiles of the model along each dimension. progress: receives the share that is done.
    reach: tiles that the function looks around; None = as far as all networks of the model.
    ValueError for what is no whole tiles.
    """
    counts = []
    for side, step in zip(x.shape[2:], before, strict=True):
        if side % step:
            raise ValueError(
                f"the extent must be a multiple of {tuple(before)}, got {tuple(x.shape[2:])}"
            )
        counts.append(side // step)
    return from_parts(
        model, counts, lambda seen: function(cut(x, before, seen)), after, progress, reach=reach
    )


def from_parts(
    model: Tiled,
    counts: Sequence[int],
    function: Callable[[Sequence[tuple[int, int]]], Tensor],
    after: Sequence[int],
    progress: Callable[[float], None] | None = None,
    *,
    reach: Reach | None = None,
    share: int = 1,
) -> Tensor:
    """What `by_parts` gives, of whatever the function knows of tiles.

    counts: tiles of all along each dimension. function: first and end of the tiles that are seen ->
    (B, D, *their extent). after, progress, reach as there; share as in `parts_of`.
    """
    out: Tensor | None = None
    whole = math.prod(counts)
    done = 0
    for part in parts_of(model, counts, reach, share):
        result = function(part.seen)
        if out is None:
            out = result.new_empty(*result.shape[:2], *_times(counts, after))
        cut(out, after, part.inside).copy_(cut(result, after, part.inner))
        del result
        if progress:
            done += math.prod(stop - start for start, stop in part.inside)
            progress(done / whole)
    assert out is not None, "there are no tiles"
    return out


class Part(NamedTuple):
    """First tile and end along each dimension: of a part, of what a network has to see for it, and
    of the part counted from the first tile that is seen.
    """

    inside: list[tuple[int, int]]
    seen: list[tuple[int, int]]
    inner: list[tuple[int, int]]


def parts_of(
    model: Tiled, counts: Sequence[int], reach: Reach | None = None, share: int = 1
) -> Iterator[Part]:
    """The parts that an item of so many tiles along each dimension is computed in, in row-major
    order; reach as in `by_parts`. What one of a large item has taken of memory is free for the
    next.

    share: where one part does not hold all, parts are so many times smaller.
    """
    margin = model.reach if reach is None else reach
    widest = max(margin)
    size = math.prod(_times(counts, model.tile))
    positions = model.part_positions
    if size > positions:
        positions //= share
    part_side = round(positions ** (1 / len(counts)))
    steps = [max(1, part_side // side, NUM_MARGINS * widest) for side in model.tile]
    for inside in itertools.product(*map(spans, counts, steps)):
        seen = []
        inner = []
        for (start, stop), count in zip(inside, counts, strict=True):
            # Where there is no whole margin around a part, it ends at the edge.
            edge = max(0, start - margin.back)
            seen.append((edge, min(stop + margin.ahead, count)))
            inner.append((start - edge, stop - edge))
        yield Part(list(inside), seen, inner)
        # What a small item has taken the next one takes again, a third sooner than from the system.
        if size > PART_POSITIONS:
            give_back_memory()


def spans(count: int, step: int) -> list[tuple[int, int]]:
    """Start and stop of the parts of `step` tiles each that `count` tiles fall into."""
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _times(counts: Sequence[int], sides: Sequence[int]) -> list[int]:
    """The extent of so many tiles along each dimension."""
    return [count * side for count, side in zip(counts, sides, strict=True)]


def cut(x: Tensor, sides: Sequence[int], spans: Sequence[tuple[int, int]]) -> Tensor:
    """A view of the tiles from start to stop along each dimension.

    At the end there may be fewer than are asked for.
    """
    for axis, (side, (start, stop)) in enumerate(zip(sides, spans, strict=True), 2):
        end = min(stop * side, x.shape[axis])
        x = x.narrow(axis, start * side, end - start * side)
    return x
