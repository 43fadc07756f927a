"""Parts of an item made anew, inside of it or around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..artifact.model import Model
from ..errors import VqkitError
from ..model.tiling import pad_to_multiple
from ..prior.prior import Drawing, following

# Values put where something is hidden, as shares of the range of values, to see which codes depend
# on it.
FILLS = (0.0, 64 / 255, 128 / 255, 192 / 255, 1.0)
MAX_POSITIONS = 1 << 24
_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_ADAPTIVE_POOLS = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


@dataclass(frozen=True)
class Inpainted:
    """values: (N, C, *extent). mask: (*extent) bool, what was made anew. known: (*grid) bool, the
    codes that were kept in the first round, which nothing hidden has an influence on.
    """

    values: Tensor
    mask: Tensor
    known: Tensor


def inpaint(
    model: Model,
    values: Tensor,
    mask: Tensor,
    *,
    num: int = 1,
    drawing: Drawing = Drawing(),  # noqa: B008
    blend: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Inpainted:
    """`num` versions of values (C, *extent) with those of `mask` (*extent) bool made anew.

    Round one draws all codes that what is hidden has an influence on: those that overlap it, and
    those that change when other values are put there. Round two encodes the item that came out, in
    which the codes beside the hole are right now, and draws those of the hole again. Values that
    are further than `blend` from the mask are the item's own, to the bit; in between the two are
    mixed; None = as the signal has it. Errors: VqkitError without a prior, for a mask of another
    size, an empty one, and what `generate` refuses.
    """
    prior = model.wanted_prior()
    _check(model, values, mask)
    hidden = _cells(model, mask)
    codes, known = _known_codes(model, values, mask, hidden)
    codes = codes.expand(num, *codes.shape[1:])
    drawn = prior.complete(
        codes, known.expand_as(codes), drawing, following(progress, 0.0, 0.5, num)
    )
    first = _composite(model, drawn, values, mask, 0)
    if bool((~hidden).any()):
        again = model.tokenizer.encode(first)
        drawn = prior.complete(
            again, (~hidden).expand_as(again), drawing, following(progress, 0.5, 1.0, num)
        )
    if blend is None:
        blend = model.signal.blend(model.artifact.data)
    return Inpainted(_composite(model, drawn, values, mask, blend), mask, known)


def outpaint(
    model: Model,
    values: Tensor,
    expand: int,
    *,
    num: int = 1,
    drawing: Drawing = Drawing(),  # noqa: B008
    blend: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Inpainted:
    """`num` versions of values (C, *extent) with `expand` positions more on every side.

    Where the grid of codes outgrows that of training, it is completed window by window. Errors:
    those of `inpaint`.
    """
    if expand < 1:
        raise VqkitError(f"expand={expand} adds nothing; give a number above 0")
    extent = [side + 2 * expand for side in values.shape[1:]]
    if torch.Size(extent).numel() > MAX_POSITIONS:
        raise VqkitError(f"that would have more than {MAX_POSITIONS} positions; lower --expand")
    margins = (expand, expand) * len(extent)
    wide = F.pad(values[None], margins, mode="replicate")[0]
    mask = F.pad(torch.zeros(values.shape[1:], dtype=torch.bool), margins, value=True)
    return inpaint(model, wide, mask, num=num, drawing=drawing, blend=blend, progress=progress)


def _check(model: Model, values: Tensor, mask: Tensor) -> None:
    if mask.shape != values.shape[1:]:
        words = model.signal.extent_in_words
        raise VqkitError(
            f"the mask has {words(tuple(mask.shape))}, the {model.signal.item} "
            f"{words(tuple(values.shape[1:]))}; both must have one size"
        )
    if not mask.any():
        raise VqkitError("the mask hides nothing: white marks what is made anew")


def _cells(model: Model, mask: Tensor) -> Tensor:
    """(*grid) bool: codes whose own values are hidden, in full or in part."""
    network = model.network
    padded = pad_to_multiple(mask[None, None].float(), network.tile)
    pool = _ADAPTIVE_POOLS[mask.dim()]
    return pool(padded, network.grid(mask.shape))[0, 0] > 0


def _known_codes(
    model: Model, values: Tensor, mask: Tensor, hidden: Tensor
) -> tuple[Tensor, Tensor]:
    """Codes (1, Q, *grid), and which positions (*grid) stay the same whatever lies under the mask.

    The receptive field, as measured on this very item: a bound from the architecture would take in
    far more.
    """
    levels = model.tokenizer.normalisation.levels or 1
    fills = torch.tensor([share * levels for share in FILLS])
    if not values.is_floating_point():
        fills = fills.round()
    filled = torch.stack([torch.where(mask, fill, values) for fill in fills.to(values.dtype)])
    codes = model.tokenizer.encode(filled)
    steady = (codes == codes[:1]).all(0).all(0)
    return codes[:1], steady & ~hidden


def _composite(model: Model, codes: Tensor, values: Tensor, mask: Tensor, blend: int) -> Tensor:
    """Decoded codes inside of the mask, the item outside.

    Mixed over `blend` positions around it.
    """
    decoded = model.tokenizer.decode(codes, values.shape[1:], double=True)
    alpha = blend_weights(mask, blend)
    mixed = alpha * decoded + (1.0 - alpha) * values
    if not values.is_floating_point():
        mixed = mixed.round()
    return torch.where(alpha > 0, mixed.to(values.dtype), values)


def blend_weights(mask: Tensor, blend: int) -> Tensor:
    """Weight (*extent) float64 of what was made: 1 in the mask, falling to 0 over `blend` positions
    around it.
    """
    pool = _POOLS[mask.dim()]
    reached = mask[None, None].float()
    weights = reached.clone()
    for distance in range(1, blend + 1):
        wider = pool(reached, 3, stride=1, padding=1)
        weights += (wider - reached) * (1.0 - distance / (blend + 1))
        reached = wider
    return weights[0, 0].double()
