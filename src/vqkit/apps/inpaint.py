"""Parts of a picture made anew, inside of it or around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..artifact import Artifact
from ..errors import VqkitError
from ..model.prior import Drawing
from ..model.prior.prior import following

FILLS = (0, 64, 128, 192, 255)
"""grey values put where pixels are hidden, to see which codes depend on them"""
BLEND = 2
MAX_PIXELS = 1 << 24


@dataclass(frozen=True)
class Inpainted:
    """images: uint8 (N, H, W, C). mask: (H, W) bool, what was made anew. known: (h, w) bool, the codes that were kept
    in the first round, which no hidden pixel has an influence on."""

    images: np.ndarray
    mask: np.ndarray
    known: np.ndarray


def inpaint(
    artifact: Artifact,
    image: np.ndarray,
    mask: np.ndarray,
    *,
    num: int = 1,
    drawing: Drawing = Drawing(),  # noqa: B008
    blend: int = BLEND,
    progress: Callable[[float], None] | None = None,
) -> Inpainted:
    """`num` versions of `image` uint8 (H, W, C) with the pixels of `mask` (H, W) bool made anew.

    Round one draws all codes that hidden pixels have an influence on: those that overlap them, and those that change
    when other values are put there. Round two encodes the picture that came out, in which the codes beside the hole are
    right now, and draws those of the hole again. Pixels that are further than `blend` from the mask are the
    image's own, to the bit; in between the two are mixed.
    Errors: VqkitError without a prior, for a mask of another size, an empty one, and what `generate` refuses.
    """
    prior = artifact.wanted_prior()
    _check(image, mask)
    hidden = _cells(artifact, mask)
    codes, known = _known_codes(artifact, image, mask, hidden)
    codes, known_of_all = codes.expand(num, -1, -1, -1), known.expand(num, codes.shape[1], -1, -1)
    drawn = prior.complete(codes, known_of_all, drawing, following(progress, 0.0, 0.5, num))
    first = _composite(artifact, drawn, image, mask, 0)
    if bool((~hidden).any()):
        again = artifact.encode(first)
        drawn = prior.complete(again, (~hidden).expand_as(again), drawing, following(progress, 0.5, 1.0, num))
    images = _composite(artifact, drawn, image, mask, blend)
    return Inpainted(images, mask, known.numpy())


def outpaint(
    artifact: Artifact,
    image: np.ndarray,
    expand: int,
    *,
    num: int = 1,
    drawing: Drawing = Drawing(),  # noqa: B008
    blend: int = BLEND,
    progress: Callable[[float], None] | None = None,
) -> Inpainted:
    """`num` versions of `image` uint8 (H, W, C) with `expand` pixels more on every side.

    Where the grid of codes outgrows that of training, it is completed window by window. Errors: those of `inpaint`.
    """
    if expand < 1:
        raise VqkitError(f"expand={expand} adds nothing; give a number of pixels above 0")
    if (image.shape[0] + 2 * expand) * (image.shape[1] + 2 * expand) > MAX_PIXELS:
        raise VqkitError(f"that picture would have more than {MAX_PIXELS} pixels; lower --expand")
    sides = ((expand, expand), (expand, expand))
    wide = np.pad(image, (*sides, (0, 0)), mode="edge")
    mask = np.pad(np.zeros(image.shape[:2], dtype=bool), sides, constant_values=True)
    return inpaint(artifact, wide, mask, num=num, drawing=drawing, blend=blend, progress=progress)


def _check(image: np.ndarray, mask: np.ndarray) -> None:
    if mask.shape != image.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, image.shape)]
        both = f"the mask is {sizes[0]} pixels (width x height), the picture {sizes[1]}"
        raise VqkitError(f"{both}; both must have one size")
    if not mask.any():
        raise VqkitError("the mask hides nothing: white marks what is made anew")


def _cells(artifact: Artifact, mask: np.ndarray) -> Tensor:
    """(h, w) bool: codes whose own pixels are hidden, wholly or in part."""
    model = artifact.model
    padded = F.pad(torch.from_numpy(mask)[None, None].float(), _missing(mask.shape, model.tile), mode="replicate")
    return F.adaptive_max_pool2d(padded, model.grid((mask.shape[0], mask.shape[1])))[0, 0] > 0


def _missing(size: tuple[int, ...], tile: tuple[int, int]) -> tuple[int, int, int, int]:
    return 0, -size[1] % tile[1], 0, -size[0] % tile[0]


def _known_codes(artifact: Artifact, image: np.ndarray, mask: np.ndarray, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (1, Q, h, w), and which positions (h, w) stay the same whatever lies under the mask.

    The receptive field, as measured on this very picture: a bound from the architecture would take in far more.
    """
    filled = np.stack([np.where(mask[..., None], np.uint8(fill), image) for fill in FILLS])
    codes = artifact.encode(filled)
    steady = (codes == codes[:1]).all(0).all(0)
    return codes[:1], steady & ~hidden


def _composite(artifact: Artifact, codes: Tensor, image: np.ndarray, mask: np.ndarray, blend: int) -> np.ndarray:
    """Decoded codes inside of the mask, the image outside; mixed over `blend` pixels around it."""
    pixels = artifact.decode(codes, (image.shape[0], image.shape[1]), exact=True)
    alpha = blend_weights(mask, blend)[..., None]
    mixed = np.rint(alpha * pixels + (1.0 - alpha) * image).astype(np.uint8)
    return np.where(alpha > 0, mixed, image)


def blend_weights(mask: np.ndarray, blend: int) -> np.ndarray:
    """Weight (H, W) of what was made: 1 in the mask, falling to 0 over `blend` pixels around it, 0 beyond."""
    reached = torch.from_numpy(mask)[None, None].float()
    weights = reached.clone()
    for distance in range(1, blend + 1):
        wider = F.max_pool2d(reached, 3, stride=1, padding=1)
        weights += (wider - reached) * (1.0 - distance / (blend + 1))
        reached = wider
    return weights[0, 0].double().numpy()
