"""New items from the prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..artifact.model import Model
from ..prior.prior import Drawing

MAX_FRAMES = 48


@dataclass(frozen=True)
class Generated:
    """values: (N, C, *extent). codes: (N, Q, *grid). bits: (N,) float64, what the codes cost under
    the prior, given their conditions. frames: items as far as they were drawn, first to last, (N,
    C, *extent) each; empty unless asked for.
    """

    values: Tensor
    codes: Tensor
    bits: np.ndarray
    frames: list[Tensor] = field(default_factory=list)


def generate(
    model: Model,
    num: int,
    *,
    drawing: Drawing = Drawing(),  # noqa: B008
    frames: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Generated:
    """`num` items of the training extent, drawn as `drawing` says.

    Errors: VqkitError without a prior, for a class or a prompt that it does not know, and for more
    steps than codes.
    """
    prior = model.wanted_prior()
    film = _Film(model, num, drawing.steps or len(prior.layout.canonical[1]), frames, progress)
    codes = prior.sample(num, drawing, film)
    values = model.tokenizer.decode(codes, model.shape.extent, double=True)
    bits = prior.bits(codes, prior.condition(num, drawing.classes, drawing.prompts)).numpy()
    return Generated(values, codes, bits, [torch.cat(parts) for parts in film.shown])


class _Film:
    """Follows the drawing: reports progress, and keeps at most MAX_FRAMES images of it if they are
    wanted.
    """

    def __init__(
        self,
        model: Model,
        num: int,
        steps: int,
        keep: bool,
        progress: Callable[[float], None] | None,
    ) -> None:
        self.model = model
        self.num = num
        self.steps = steps
        self.keep = keep
        self.progress = progress
        self.shown: list[list[Tensor]] = []
        self.step = 0
        self.finished = 0
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
            self.shown[index].append(
                self.model.tokenizer.decode(codes, self.model.shape.extent, double=True)
            )
        if last:
            self.step = 0
            self.finished += len(codes)
