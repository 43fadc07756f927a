"""New images from the prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ..artifact import Artifact
from ..model.prior import Drawing

MAX_FRAMES = 48


@dataclass(frozen=True)
class Generated:
    """images: uint8 (N, H, W, C). codes: (N, Q, h, w). bits: (N,) float64, what the codes cost under the prior, told
    it was told. frames: images as far as they were drawn, first to last, (N, H, W, C) each; empty unless asked for.
    """

    images: np.ndarray
    codes: Tensor
    bits: np.ndarray
    frames: list[np.ndarray] = field(default_factory=list)


def generate(
    artifact: Artifact,
    num: int,
    *,
    drawing: Drawing = Drawing(),  # noqa: B008
    frames: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Generated:
    """`num` images of the training size, drawn as `drawing` says.

    Errors: VqkitError without a prior, for a class or a prompt that it does not know, and for more steps than codes.
    """
    prior = artifact.wanted_prior()
    shown: list[list[np.ndarray]] = []
    film = _Film(artifact, num, drawing.steps or len(prior.layout.canonical[1]), frames, shown, progress)
    codes = prior.sample(num, drawing, film)
    images = artifact.decode(codes, artifact.size, exact=True)
    bits = prior.bits(codes, prior.told(num, drawing.classes, drawing.prompts)).numpy()
    return Generated(images, codes, bits, [np.concatenate(parts) for parts in shown])


class _Film:
    """Follows the drawing: reports progress, and keeps at most MAX_FRAMES pictures of it if they are wanted."""

    def __init__(
        self,
        artifact: Artifact,
        num: int,
        steps: int,
        keep: bool,
        shown: list[list[np.ndarray]],
        progress: Callable[[float], None] | None,
    ) -> None:
        self.artifact, self.num, self.steps, self.keep, self.shown = artifact, num, steps, keep, shown
        self.progress, self.step, self.finished = progress, 0, 0
        self.every = -(-steps // MAX_FRAMES)

    def __call__(self, codes: Tensor) -> None:
        self.step += 1
        last = self.step == self.steps
        if self.progress:
            self.progress((self.finished + len(codes) * self.step / self.steps) / self.num)
        if self.keep and (last or self.step % self.every == 0):
            index = -(-self.step // self.every) - 1
            if index == len(self.shown):
                self.shown.append([])
            self.shown[index].append(self.artifact.decode(codes, self.artifact.size, exact=True))
        if last:
            self.step, self.finished = 0, self.finished + len(codes)
