"""What is trained: the parts of a run that an autoencoder, a prior and the coders of files do not
share.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..config.sections import TrainConfig
from ..model.quantizers import Bottleneck
from .engine import Engine
from .optimizers import build_optimizers

if TYPE_CHECKING:
    from .adversary import Adversary

# Whatever a task makes its batches of; the loop only hands them on.
Batch = Any


class Output(Protocol):
    """What a forward pass gives: unweighted scalar losses by name, and codes (B, Q, *grid) where a
    guard wants them.
    """

    @property
    def terms(self) -> dict[str, Tensor]: ...

    @property
    def codes(self) -> Tensor: ...


@dataclass(frozen=True)
class Phase:
    """One update within a training step. Most tasks have one.

    An adversary adds a second, with a model of its own.

    forward: runs the phase's wrapped model on a batch, with randomness from a generator that is
    alike on all ranks, or None in validation. weights: of every term at a share of training in
    [0, 1]. optimizers: of the parameters that it updates; None = all of the model's, as the
    settings say.
    """

    name: str
    forward: Callable[[nn.Module, Batch, torch.Generator | None], Output]
    weights: Callable[[float], Mapping[str, float]]
    optimizers: Callable[[nn.Module], list[Optimizer]] | None = None

    def build_optimizers(self, model: nn.Module, settings: TrainConfig) -> list[Optimizer]:
        """The optimisers of a model; their groups carry their `peak_lr`."""
        if self.optimizers is not None:
            return self.optimizers(model)
        return build_optimizers(model, settings)


class Task(ABC):
    """The loop asks; nothing here changes while training but the model.

    seed: of everything random. settings: of the loop. fingerprint: what must be equal for a run to
    be resumed. phases: updates of a step, in order; validation runs the first one. is_alone: the
    task runs on one process, however many there are.
    """

    seed: int
    settings: TrainConfig
    fingerprint: dict[str, Any]
    phases: Sequence[Phase]
    is_alone = False

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """All settings as plain values, for the checkpoint."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The untrained model."""

    @abstractmethod
    def title(self, model: nn.Module) -> str:
        """What is trained on what, in a line."""

    @abstractmethod
    def batches(self, start_step: int, rank: int, world_size: int) -> Iterator[Batch]:
        """Endless training batches of this rank, from a step on."""

    @abstractmethod
    def validation_batches(self) -> Iterator[Batch]:
        """The validation split once, the same on every rank."""

    @abstractmethod
    def num_items(self, batch: Batch) -> int:
        """Items of a batch, which means over the split are weighed by."""

    def units(self, model: nn.Module) -> Sequence[nn.Module]:
        """Parts of the model that are compiled, and sharded over ranks, one by one."""
        return ()

    def quantizer(self, model: nn.Module) -> Bottleneck | None:
        """What the guard watches; None if there is nothing to watch."""
        return None

    def adversary(self, model: nn.Module, engine: Engine) -> Adversary | None:
        """The adversarial stage of a bare model, if there is to be one.

        A task with one has validation figures `detail`, and the one that is its signal's quality.
        """
        return None

    def watched_batches(self) -> Iterator[Batch]:
        """What the guard of an adversarial stage measures where there is no validation split."""
        return iter(())

    def peak_weights(self) -> Mapping[str, float]:
        """Weights of validation, which do not change over a run."""
        return self.phases[0].weights(1.0)

    def changing_weights(self) -> set[str]:
        """Names of the weights that depend on the time."""
        return set()

    def figures(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """What else there is to know of a batch, scalar means over its items by name."""
        return {}

    def lr_factor(self, progress: float) -> float:
        """Factor on the peak learning rates at a share of training in [0, 1]."""
        return cosine_schedule(progress, self.settings.warmup, self.settings.final_lr)

    def begin_step(self, model: nn.Module, progress: float) -> None:  # noqa: B027
        """Called with the bare model before every step, for what changes with the time."""

    def is_worse(self, loss: float, best: float) -> bool:
        """Whether a validation loss uses up patience."""
        return not loss < best


def cosine_schedule(progress: float, warmup: float, final: float) -> float:
    """Factor on the peak learning rate: linear warm-up, then a cosine down to `final`.

    progress in [0, 1].
    """
    if progress < warmup:
        return max(progress, 1e-3 * warmup) / warmup
    done = (progress - warmup) / max(1.0 - warmup, 1e-9)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
