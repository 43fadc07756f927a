"""From one picture to another, in latents and in codes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..artifact import Artifact
from ..errors import VqkitError
from ..model.prior import Drawing, halton_order


@dataclass(frozen=True)
class Interpolated:
    """latents: uint8 (N, H, W, C), through a line between the latents, quantised. morph: the same through codes,
    those of both ends and between them ones that the prior draws; None without a prior."""

    latents: np.ndarray
    morph: np.ndarray | None


def interpolate(
    artifact: Artifact,
    first: np.ndarray,
    second: np.ndarray,
    *,
    num: int = 8,
    drawing: Drawing = Drawing(),  # noqa: B008
    progress: Callable[[float], None] | None = None,
) -> Interpolated:
    """`num` pictures from `first` to `second`, uint8 (H, W, C) of one size, which are reconstructed at the ends.

    morph: at time t in [0, 1] the positions are sorted into three parts, scattered evenly over the picture: a share of
    1 - t - g/2 keeps its codes of the first, t - g/2 has those of the second, and the rest, g = min(t, 1 - t), is drawn
    given both. Errors: VqkitError when the sizes differ or num < 2.
    """
    if first.shape != second.shape:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (first, second)]
        raise VqkitError(f"the pictures are {sizes[0]} and {sizes[1]} pixels (width x height); both must have one size")
    if num < 2:
        raise VqkitError(f"num={num} has no room for both ends; give at least 2")
    size, times = (first.shape[0], first.shape[1]), torch.linspace(0, 1, num)
    pair = np.stack([first, second])
    latents = artifact.decode(_along_latents(artifact, pair, times), size, exact=True)
    if progress:
        progress(0.3)
    prior = artifact.prior
    if prior is None:
        return Interpolated(latents, None)
    codes, frames = artifact.encode(pair), []
    for index, time in enumerate(times.tolist()):
        mixed, known = _mixed(codes, time)
        frames.append(prior.complete(mixed, known, drawing))
        if progress:
            progress(0.3 + 0.7 * (index + 1) / num)
    return Interpolated(latents, artifact.decode(torch.cat(frames), size, exact=True))


@torch.no_grad()
def _along_latents(artifact: Artifact, pair: np.ndarray, times: Tensor) -> Tensor:
    """Codes (N, Q, h, w) of latents on the line between those of two pictures."""
    model = artifact.model
    latents = model.latents(artifact.standardise(torch.from_numpy(pair).permute(0, 3, 1, 2)))
    weights = times.reshape(-1, *[1] * (latents.dim() - 1))
    return model.quantizer.encode(torch.lerp(latents[:1], latents[1:], weights))


def _mixed(codes: Tensor, time: float) -> tuple[Tensor, Tensor]:
    """Codes (1, Q, h, w) with parts of two pictures (2, Q, h, w), and where they are known."""
    height, width = codes.shape[2:]
    rank = torch.empty(height * width)
    rank[halton_order((height, width))] = (torch.arange(height * width) + 0.5) / (height * width)
    gap = min(time, 1.0 - time)
    rank = rank.reshape(1, 1, height, width)
    late = rank >= 1.0 - time + gap / 2
    known = (rank < 1.0 - time - gap / 2) | late
    mixed = torch.where(late, codes[1:], codes[:1])
    return mixed, known.expand_as(mixed)
