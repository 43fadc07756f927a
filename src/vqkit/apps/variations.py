"""Items like a given one: some of its codes are drawn again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..artifact.model import Model
from ..errors import VqkitError
from ..prior.prior import Drawing, following, uniform_numbers


def variations(
    model: Model,
    values: Tensor,
    *,
    strength: float = 0.3,
    num: int = 8,
    drawing: Drawing = Drawing(),  # noqa: B008
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Values (num, C, *extent): versions of values (C, *extent) in which a share `strength` of the
    positions is new.

    Each version chooses its own positions, at random; all codes there are drawn given all others. 0
    is the reconstruction, 1 an item that has nothing to do with it. Errors: VqkitError as in
    `generate`, and for a strength outside of [0, 1].
    """
    if not 0 <= strength <= 1:
        raise VqkitError(f"strength={strength} must lie between 0 (nothing new) and 1 (all new)")
    prior = model.wanted_prior()
    codes = model.tokenizer.encode(values[None])
    codes = codes.expand(num, *codes.shape[1:])  # (num, Q, *grid)
    positions = codes[0, 0].numel()
    count = round(strength * positions)
    unknown = torch.zeros(num, positions, dtype=torch.bool)
    for index in range(num):
        # Not the numbers of the drawing itself: places and codes are to be independent.
        numbers = uniform_numbers(drawing.seed + 1, index, positions)
        unknown[index, numbers.argsort()[:count]] = True
    known = ~unknown.reshape(num, 1, *codes.shape[2:]).expand_as(codes)
    if count:
        codes = prior.complete(codes, known, drawing, following(progress, 0.0, 1.0, num))
    return model.tokenizer.decode(codes, values.shape[1:], double=True)
