"""Pictures like a given one: some of its codes are drawn again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..artifact import Artifact
from ..errors import VqkitError
from ..model.prior import Drawing
from ..model.prior.prior import following, uniform_numbers


def variations(
    artifact: Artifact,
    image: np.ndarray,
    *,
    strength: float = 0.3,
    num: int = 8,
    drawing: Drawing = Drawing(),  # noqa: B008
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """uint8 (num, H, W, C): versions of `image` uint8 (H, W, C) in which a share `strength` of the positions is new.

    Each version chooses its own positions, at random; all codes there are drawn given all others. 0 is the
    reconstruction, 1 an image that has nothing to do with it. Errors: VqkitError as in `generate`, and for a strength
    outside of [0, 1].
    """
    if not 0 <= strength <= 1:
        raise VqkitError(f"strength={strength} must lie between 0 (nothing new) and 1 (all new)")
    prior = artifact.wanted_prior()
    size = image.shape[0], image.shape[1]
    codes = artifact.encode(image).expand(num, -1, -1, -1)  # (num, Q, h, w)
    positions = codes.shape[2] * codes.shape[3]
    count = round(strength * positions)
    chosen = torch.stack(
        [uniform_numbers(drawing.seed + 1, index, positions).argsort()[:count] for index in range(num)]
    )
    unknown = torch.zeros(num, positions, dtype=torch.bool).scatter_(1, chosen, True)
    known = ~unknown.reshape(num, 1, *codes.shape[2:]).expand_as(codes)
    if count:
        codes = prior.complete(codes, known, drawing, following(progress, 0.0, 1.0, num))
    return artifact.decode(codes, size, exact=True)
