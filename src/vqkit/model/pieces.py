"""Large images piece by piece, so that memory does not grow with the image.

What a network makes of a piece with a margin as wide as it sees is, there, what it makes of the whole: margins end at
the edges of the image, where the networks pad as they would, and what the other cuts change lies in them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .autoencoder import Autoencoder

PIECE = 256
"""side in pixels of what is computed at once, without the margin around it"""
NUM_MARGINS = 4
"""margins that a piece is wide at least, so that they add no more than 1.25 times what the piece itself takes"""


def by_pieces(
    model: Autoencoder,
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    before: tuple[int, int],
    after: tuple[int, int],
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """function(x), for a function made of networks of the model.

    x: (B, C, rows * before[0], columns * before[1]) -> (B, D, rows * after[0], columns * after[1]), with rows and
    columns of the model's tiles. progress: told the share that is done. ValueError for what is no whole tiles.
    """
    if x.shape[2] % before[0] or x.shape[3] % before[1]:
        raise ValueError(f"height and width must be multiples of {before[0]} and {before[1]}, got {tuple(x.shape[2:])}")
    rows, columns = x.shape[2] // before[0], x.shape[3] // before[1]
    steps = [max(1, PIECE // side, NUM_MARGINS * model.reach) for side in model.tile]
    corners = [(top, left) for top in range(0, rows, steps[0]) for left in range(0, columns, steps[1])]
    out: Tensor | None = None
    for number, (top, left) in enumerate(corners):
        bottom, right = min(top + steps[0], rows), min(left + steps[1], columns)
        first, start = max(0, top - model.reach), max(0, left - model.reach)
        part = function(_cut(x, before, first, bottom + model.reach, start, right + model.reach))
        if out is None:
            out = part.new_empty(len(x), part.shape[1], rows * after[0], columns * after[1])
        kept = _cut(part, after, top - first, bottom - first, left - start, right - start)
        _cut(out, after, top, bottom, left, right).copy_(kept)
        if progress:
            progress((number + 1) / len(corners))
    assert out is not None, "there are no tiles"
    return out


def _cut(x: Tensor, side: tuple[int, int], top: int, bottom: int, left: int, right: int) -> Tensor:
    """A view of some tiles; there may be fewer than are asked for at the end."""
    return x[:, :, top * side[0] : bottom * side[0], left * side[1] : right * side[1]]
