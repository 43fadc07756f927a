"""Everything that changes while training, in one place, so that saving it is saving the run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import VqkitError
from .average import WeightAverage
from .checkpoint import load_checkpoint, save_checkpoint
from .engine import Engine, copy_full, full, unwrap
from .guard import Guard
from .remedies import Remedies
from .task import Task

# Attributes that a checkpoint holds as they are.
COUNTERS = (
    "step",
    "elapsed",
    "validation_seconds",
    "validated_at",
    "stopped_by",
    "best_loss",
    "passes_without_gain",
)


class State:
    """Model, optimisers, averaged weights and counters of a run.

    model is called; raw is the module inside of it, whose names are saved. optimizers: by the name
    of their phase. step counts finished steps, elapsed their seconds over all starts of the run;
    validated_at is the step of the last validation pass, stopped_by why there are no more steps, if
    so. guard is None without discrete codes; what it changed is in remedies. best holds the
    averaged weights of the best validation pass, with patience.
    """

    def __init__(self, task: Task, engine: Engine) -> None:
        self.task, self.engine = task, engine
        torch.manual_seed(task.seed)
        model = task.build()
        self.model = engine.wrap_model(model, task.units(model), task.settings.compile)
        self.raw = unwrap(self.model)
        self.optimizers = {
            phase.name: [
                engine.wrap_optimizer(one)
                for one in phase.build_optimizers(self.raw, task.settings)
            ]
            for phase in task.phases
        }
        self.average = WeightAverage(self.raw, task.settings.ema_decay)
        quantizer = task.quantizer(self.raw)
        self.guard = Guard(quantizer, task.settings, engine) if quantizer is not None else None
        self.remedies = self.guard.remedies if self.guard else Remedies([])
        self.best: dict[str, Tensor] = {}
        self.step = 0
        self.elapsed = 0.0
        self.validation_seconds = 0.0
        self.validated_at = 0
        self.stopped_by = ""
        self.best_loss = math.inf
        self.passes_without_gain = 0

    def watch_plateau(self, loss: float) -> bool:
        """Note a validation loss, keep the weights if it is the best; True when patience is used
        up.
        """
        patience = self.task.settings.patience
        if not patience:
            return False
        self.passes_without_gain = (
            self.passes_without_gain + 1 if self.task.is_worse(loss, self.best_loss) else 0
        )
        if loss < self.best_loss:
            self.best_loss = loss
            self.best = {name: value.clone() for name, value in self.average.average.items()}
        return self.passes_without_gain >= patience

    def weights(self) -> dict[str, Tensor]:
        """What the artifact holds: the best averaged weights (the last without patience), whole and
        on the CPU.
        """
        floats = {name: full(value) for name, value in (self.best or self.average.average).items()}
        return {
            name: floats.get(name, full(value)) for name, value in self.raw.state_dict().items()
        }

    def save(self, folder: Path) -> None:
        """Write a checkpoint; every rank must call it. VqkitError when it cannot be written."""
        guard: tuple[dict[str, Tensor], dict[str, Any]] = (
            self.guard.state() if self.guard else ({}, {})
        )
        groups = {
            "model": self.raw.state_dict(),
            "average": self.average.average,
            "best": self.best,
            "guard": guard[0],
            "random": self._random_states(),
            "optimizer": {
                f"{index}.{key}": value
                for index, (parameter, state) in enumerate(self._optimizer_states())
                for key, value in state.get(parameter, {}).items()
            },
        }
        tensors = {
            f"{group}.{name}": full(value)
            for group, values in groups.items()
            for name, value in values.items()
        }
        counters = {
            **{name: getattr(self, name) for name in COUNTERS},
            "guard": guard[1],
            "data": self.task.fingerprint,
            "config": self.task.config(),
        }
        if self.engine.is_main:
            save_checkpoint(folder, self.step, tensors, counters)
        self.engine.barrier()

    def restore(self, path: Path) -> None:
        """Go back to a checkpoint, to the bit. VqkitError when it is damaged or of other data."""
        tensors, counters = load_checkpoint(path)
        if counters["data"] != self.task.fingerprint:
            raise VqkitError(
                f"the data are not those that {path.parents[1]} was started with; --resume needs "
                "the same ones"
            )
        for name in COUNTERS:
            setattr(self, name, counters[name])
        for name, live in self.raw.state_dict().items():
            copy_full(live, tensors[f"model.{name}"])
        for name, average in self.average.average.items():
            copy_full(average, tensors[f"average.{name}"])
            if f"best.{name}" in tensors:
                self.best[name] = average.clone()
                copy_full(self.best[name], tensors[f"best.{name}"])
        if self.guard:
            kept = {
                name.removeprefix("guard."): value
                for name, value in tensors.items()
                if name.startswith("guard.")
            }
            self.guard.restore(kept, counters["guard"])
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and self.engine.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.engine.device)
        for index, (parameter, state) in enumerate(self._optimizer_states()):
            prefix = f"optimizer.{index}."
            for name in (name for name in tensors if name.startswith(prefix)):
                value = tensors[name]
                own = torch.zeros_like(parameter if value.shape == parameter.shape else value)
                copy_full(own, value)
                state[parameter][name.removeprefix(prefix)] = own

    def _random_states(self) -> dict[str, Tensor]:
        """The global generators, which dropout draws from; alike on all ranks."""
        states = {"cpu": torch.get_rng_state()}
        if self.engine.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.engine.device)
        return states

    def _optimizer_states(self) -> Iterator[tuple[nn.Parameter, Any]]:
        """Every parameter with the state of the optimiser that it belongs to, always in the same
        order.
        """
        for optimizer in (one for phase in self.task.phases for one in self.optimizers[phase.name]):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    yield parameter, optimizer.state
