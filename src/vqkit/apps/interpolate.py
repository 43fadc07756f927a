"""From one item to another, in latents and in codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..artifact.model import Model
from ..errors import VqkitError
from ..prior.layout import halton_order
from ..prior.prior import Drawing


@dataclass(frozen=True)
class Interpolated:
    """latents: values (N, C, *extent), through a line between the latents, quantised. morph: the
    same through codes, those of both ends and between them ones that the prior draws; None without
    a prior.
    """

    latents: Tensor
    morph: Tensor | None


def interpolate(
    model: Model,
    first: Tensor,
    second: Tensor,
    *,
    num: int = 8,
    drawing: Drawing = Drawing(),  # noqa: B008
    progress: Callable[[float], None] | None = None,
) -> Interpolated:
    """`num` items from `first` to `second`, values (C, *extent) of one extent, which are
    reconstructed at the ends. Of two along one dimension the longer is cut.

    morph: at time t in [0, 1] the positions are sorted into three parts, scattered evenly over the
    item: a share of 1 - t - g/2 keeps its codes of the first, t - g/2 has those of the second, and
    the rest, g = min(t, 1 - t), is drawn given both. Errors: VqkitError when the sizes differ or
    num < 2.
    """
    if first.dim() == second.dim() == 2:
        length = min(first.shape[1], second.shape[1])
        first = first[:, :length]
        second = second[:, :length]
    if first.shape != second.shape:
        extents = [model.signal.extent_in_words(tuple(one.shape[1:])) for one in (first, second)]
        raise VqkitError(
            f"the {model.signal.item}s have {extents[0]} and {extents[1]}; both must have one size"
        )
    if num < 2:
        raise VqkitError(f"num={num} has no room for both ends; give at least 2")
    tokenizer = model.tokenizer
    extent = first.shape[1:]
    times = torch.linspace(0, 1, num)
    pair = torch.stack([first, second])
    latents = tokenizer.decode(_along_latents(model, pair, times), extent, double=True)
    if progress:
        progress(0.3)
    prior = model.prior
    if prior is None:
        return Interpolated(latents, None)
    codes = tokenizer.encode(pair)
    frames = []
    for index, time in enumerate(times.tolist()):
        mixed, known = _mixed(codes, time)
        frames.append(prior.complete(mixed, known, drawing))
        if progress:
            progress(0.3 + 0.7 * (index + 1) / num)
    return Interpolated(latents, tokenizer.decode(torch.cat(frames), extent, double=True))


@torch.no_grad()
def _along_latents(model: Model, pair: Tensor, times: Tensor) -> Tensor:
    """Codes (N, Q, *grid) of latents on the line between those of two items."""
    latents = model.network.latents(model.tokenizer.standardise(pair))
    weights = times.to(latents.device).reshape(-1, *[1] * (latents.dim() - 1))
    return model.network.quantizer.encode(torch.lerp(latents[:1], latents[1:], weights)).cpu()


def _mixed(codes: Tensor, time: float) -> tuple[Tensor, Tensor]:
    """Codes (1, Q, *grid) with parts of two items (2, Q, *grid), and where they are known."""
    grid = codes.shape[2:]
    positions = codes[0, 0].numel()
    rank = torch.empty(positions)
    rank[halton_order(grid)] = (torch.arange(positions) + 0.5) / positions
    gap = min(time, 1.0 - time)
    rank = rank.reshape(1, 1, *grid)
    late = rank >= 1.0 - time + gap / 2
    known = (rank < 1.0 - time - gap / 2) | late
    mixed = torch.where(late, codes[1:], codes[:1])
    return mixed, known.expand_as(mixed)
