"""Averaged weights: what is evaluated and saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .engine import local


class WeightAverage:
    """Exponential moving average of every floating-point parameter and buffer of a model, codebooks
    included.

    The decay warms up as min(decay, (1 + n) / (10 + n)), so the random start is forgotten within a
    few steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.live: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.live[name] = value
                self.average[name] = value.detach().clone()
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the live weights; `step` counts from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average = list(map(local, self.average.values()))
        live = list(map(local, self.live.values()))
        torch._foreach_lerp_(average, live, 1.0 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights and `average` the live ones."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, live in self.live.items():
            kept: Tensor = live.clone()
            live.copy_(self.average[name])
            self.average[name].copy_(kept)
