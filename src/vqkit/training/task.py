"""What is trained: the parts of a run that an autoencoder and a prior do not share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..model.quantizers import Bottleneck

Batch: TypeAlias = tuple[Tensor, ...]
"""tensors with one row an image"""


class Output(Protocol):
    """What a forward pass gives: unweighted scalar losses by name, and codes (B, Q, *grid) where a guard wants them."""

    @property
    def terms(self) -> dict[str, Tensor]: ...

    @property
    def codes(self) -> Tensor: ...


class Task(Protocol):
    """The trainer asks; nothing here changes while training but the model.

    seed: of everything random. settings: of the loop. fingerprint: what must be equal for a run to be resumed.
    """

    seed: int
    settings: TrainConfig
    fingerprint: dict[str, Any]

    def config(self) -> dict[str, Any]:
        """All settings as plain values, for the checkpoint."""

    def build(self) -> nn.Module:
        """The untrained model."""

    def units(self, model: nn.Module) -> Sequence[nn.Module]:
        """Its parts that are compiled, and sharded over ranks, one by one."""

    def quantizer(self, model: nn.Module) -> Bottleneck | None:
        """What the guard watches; None if there is nothing to watch."""

    def title(self, model: nn.Module) -> str:
        """What is trained on what, in a line."""

    def batches(self, start_step: int, rank: int, world_size: int) -> Iterator[Batch]:
        """Endless training batches of this rank, from a step on."""

    def validation_batches(self) -> Iterator[Batch]:
        """The validation split once, the same on every rank."""

    def forward(self, model: nn.Module, batch: Batch, generator: torch.Generator | None) -> Output:
        """Run the wrapped model on a batch, in training mode with randomness from `generator`, alike on all ranks."""

    def weights(self, progress: float) -> Mapping[str, float]:
        """Weight of every term at `progress` in [0, 1] of training."""

    def peak_weights(self) -> Mapping[str, float]:
        """Weights of validation, which do not change over a run."""

    def changing_weights(self) -> set[str]:
        """Names of those that depend on the time."""

    def figures(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """What else there is to know of a batch, scalar means over its images by name."""
