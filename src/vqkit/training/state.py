"""Everything that changes while training, in one place, so that saving it is saving the run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import VqkitError
from .adversary import JOINT
from .average import WeightAverage
from .checkpoint import load_checkpoint, save_checkpoint
from .engine import Engine, copy_full, full, unwrap
from .guard import Guard
from .remedies import Remedies
from .stage_guard import StageGuard
from .task import Phase, Task

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
    averaged weights of the best validation pass, with patience. adversary is None without an
    adversarial stage, which stage_guard watches; kept is all that learns as it was before the
    stage, and beside the averaged weights that are not in use: of before the stage, or after it
    where the run went back.
    """

    def __init__(self, task: Task, engine: Engine) -> None:
        self.task = task
        self.engine = engine
        # Weights are drawn from the global generator, and so is dropout after them.
        torch.manual_seed(task.seed)
        model = task.build()
        self.model = engine.wrap_model(model, task.units(model), task.settings.compile)
        self.raw = unwrap(self.model)
        self.adversary = task.adversary(self.raw, engine)
        self.stage_guard = StageGuard(self.adversary) if self.adversary else None
        self.kept: dict[str, Tensor] = {}
        self.beside: dict[str, Tensor] = {}
        self.optimizers: dict[str, list[Optimizer]] = {}
        for phase in self.phases:
            built = phase.build_optimizers(self.raw, task.settings)
            self.optimizers[phase.name] = [engine.wrap_optimizer(one) for one in built]
        self.average = WeightAverage(self.raw, task.settings.ema_decay)
        self.guard: Guard | None = None
        self.remedies = Remedies([])
        quantizer = task.quantizer(self.raw)
        if quantizer is not None:
            self.guard = Guard(quantizer, task.settings, engine)
            self.remedies = self.guard.remedies
        self.best: dict[str, Tensor] = {}
        self.step = 0
        self.elapsed = 0.0
        self.validation_seconds = 0.0
        self.validated_at = 0
        self.stopped_by = ""
        self.best_loss = math.inf
        self.passes_without_gain = 0

    @property
    def phases(self) -> list[Phase]:
        """Those of the task, then the adversary's."""
        return [*self.task.phases, *([self.adversary.phase] if self.adversary else [])]

    def model_of(self, phase: Phase) -> nn.Module:
        """The wrapped model that a phase runs."""
        if self.adversary and phase is self.adversary.phase:
            return self.adversary.model
        return self.model

    @property
    def has_frozen_codes(self) -> bool:
        return bool(getattr(self.raw, "has_frozen_codes", False))

    def freeze_codes(self) -> None:
        """From now on only the decoder learns; several processes no longer wait for other
        gradients.
        """
        self.raw.freeze_codes()  # type: ignore[operator]
        if self.engine.world_size > 1:
            units = self.task.units(self.raw)
            self.model = self.engine.wrap_model(self.raw, units, self.task.settings.compile)

    def keep(self) -> None:
        """Keep all that learns, as it is now, to go back to."""
        self.kept = {}
        for name, value in self._learned().items():
            self.kept[name] = full(value)

    def begin_stage(self) -> None:
        """Enter the adversarial stage from the averaged weights, if codes are frozen in it.

        Patience rests until the stage is over: its validation losses are of another aim.
        """
        assert self.adversary is not None
        self.best = {}
        self.best_loss = math.inf
        self.passes_without_gain = 0
        if self.adversary.freezes_codes and not self.has_frozen_codes:
            for name, live in self.average.live.items():
                copy_full(live, self.average.average[name])
            self.freeze_codes()
        self.keep()
        self.adversary.begin(self.step)

    def roll_back(self) -> None:
        """Leave the stage and go back to what was kept; where the run had come to lies beside, if
        its numbers are finite.
        """
        assert self.adversary is not None
        after = {name: full(value) for name, value in self.average.average.items()}
        is_finite = all(bool(value.isfinite().all()) for value in after.values())
        self.beside = after if is_finite else {}
        self._set_learned(self.kept)
        self.kept = {}
        self.adversary.end(self.step, "before")

    def leave(self) -> None:
        """Leave the stage with the weights of now; nothing lies beside.

        They are from before it where the decoder never saw the discriminator.
        """
        assert self.adversary is not None
        self.kept = {}
        self.adversary.end(self.step, "after" if self.adversary.memory.state == JOINT else "before")

    def accept(self) -> None:
        """Leave the stage with its weights; those from before lie beside."""
        assert self.adversary is not None
        self.beside = _under("average.", self.kept)
        self.kept = {}
        self.adversary.end(self.step, "after")

    def watch_plateau(self, loss: float) -> bool:
        """Note a validation loss, keep the weights if it is the best.

        True when patience is used up.
        """
        patience = self.task.settings.patience
        if not patience:
            return False
        if self.task.is_worse(loss, self.best_loss):
            self.passes_without_gain += 1
        else:
            self.passes_without_gain = 0
        if loss < self.best_loss:
            self.best_loss = loss
            self.best = {name: value.clone() for name, value in self.average.average.items()}
        return self.passes_without_gain >= patience

    def weights(self) -> dict[str, Tensor]:
        """What the artifact holds: the best averaged weights (the last without patience), whole and
        on the CPU.
        """
        weights = {name: full(value) for name, value in self.raw.state_dict().items()}
        # Averages are kept of floating-point tensors alone; counters stay as they are.
        for name, value in (self.best or self.average.average).items():
            if name in weights:
                weights[name] = full(value)
        return weights

    def weights_beside(self) -> dict[str, Tensor]:
        """What lies beside them, as whole; empty where nothing does."""
        return {**self.weights(), **self.beside} if self.beside else {}

    def save(self, folder: Path) -> None:
        """Write a checkpoint; every rank must call it. VqkitError when it cannot be written."""
        guard_tensors: dict[str, Tensor] = {}
        guard_values: dict[str, Any] = {}
        if self.guard:
            guard_tensors, guard_values = self.guard.state()
        adversary_tensors: dict[str, Tensor] = {}
        adversary_values: dict[str, Any] = {}
        if self.adversary:
            adversary_tensors, adversary_values = self.adversary.state()
        groups = {
            "best": self.best,
            "guard": guard_tensors,
            "adversary": adversary_tensors,
            "kept": self.kept,
            "beside": self.beside,
            "random": self._random_states(),
        }
        # Every rank takes part in making tensors whole; the first one alone writes them.
        tensors = {name: full(value) for name, value in self._learned().items()}
        for group, values in groups.items():
            for name, value in values.items():
                tensors[f"{group}.{name}"] = full(value)
        counters = {name: getattr(self, name) for name in COUNTERS}
        counters["guard"] = guard_values
        counters["adversary"] = adversary_values
        counters["has_frozen_codes"] = self.has_frozen_codes
        counters["data"] = self.task.fingerprint
        counters["config"] = self.task.config()
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
        if counters["has_frozen_codes"] and not self.has_frozen_codes:
            self.freeze_codes()
        self._set_learned(tensors)
        for name, average in self.average.average.items():
            if f"best.{name}" in tensors:
                self.best[name] = average.clone()
                copy_full(self.best[name], tensors[f"best.{name}"])
        if self.guard:
            self.guard.restore(_under("guard.", tensors), counters["guard"])
        if self.adversary:
            self.adversary.restore(_under("adversary.", tensors), counters["adversary"])
        self.kept = _under("kept.", tensors)
        self.beside = _under("beside.", tensors)
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and self.engine.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], self.engine.device)

    def _learned(self) -> dict[str, Tensor]:
        """Models, averages and optimisers, by group and name; not copied."""
        learned = {f"model.{name}": value for name, value in self.raw.state_dict().items()}
        learned |= {f"average.{name}": value for name, value in self.average.average.items()}
        for index, (parameter, state) in enumerate(self._optimizer_states()):
            for key, value in state.get(parameter, {}).items():
                learned[f"optimizer.{index}.{key}"] = value
        return learned

    def _set_learned(self, tensors: dict[str, Tensor]) -> None:
        """Write what `_learned` gave back into its places; an optimiser of which nothing is given
        starts anew.
        """
        for name, live in self.raw.state_dict().items():
            copy_full(live, tensors[f"model.{name}"])
        for name, average in self.average.average.items():
            copy_full(average, tensors[f"average.{name}"])
        states = _under("optimizer.", tensors)
        for index, (parameter, state) in enumerate(self._optimizer_states()):
            state.pop(parameter, None)
            for name, value in _under(f"{index}.", states).items():
                # A state of the parameter's shape is laid out like it, sharded where it is.
                own = torch.zeros_like(parameter if value.shape == parameter.shape else value)
                copy_full(own, value)
                state[parameter][name] = own

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
        for phase in self.phases:
            for optimizer in self.optimizers[phase.name]:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        yield parameter, optimizer.state


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, by the rest of their names."""
    found = {}
    for name, value in tensors.items():
        if name.startswith(prefix):
            found[name.removeprefix(prefix)] = value
    return found
