"""The loop of every fit: batches in, averaged weights out; resumable to the bit, stoppable at any
time.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..data.splits import derive_seed
from ..errors import TrainingDiverged, VqkitError
from ..metrics import code_counts, code_figures
from ..model.blocks import num_parameters
from .checkpoint import find_checkpoint
from .engine import Engine, unwrap
from .guard import check_finite
from .losses import total_loss
from .progress import Display, Silent
from .runlog import RunLog
from .stage_guard import Decision
from .state import State
from .task import Batch, Output, Phase, Task


class Interrupted(VqkitError):
    """Ctrl-C or a signal: the run is saved and can go on."""


@dataclass(frozen=True)
class Finished:
    """A finished run: the model with averaged weights, its curves and events, and figures about the
    training.

    beside: the same model with the weights of an adversarial stage that are not in use, those from
    before it or those that the run went back from; None where there are none.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    events: list[dict[str, Any]]
    figures: dict[str, Any]
    beside: nn.Module | None = None


def fit(
    task: Task, folder: Path, display: Display | None = None, deadline: float | None = None
) -> Finished | None:
    """Train what `task` says, keeping metrics.jsonl and checkpoints in `folder`.

    A checkpoint in the folder is resumed from. deadline: of time.monotonic(), by which the schedule
    ends. Returns None on ranks other than the first. Errors: TrainingDiverged; Interrupted after
    Ctrl-C, SIGTERM or SIGHUP (a checkpoint is written first); VqkitError when the folder cannot be
    written.
    """
    engine = Engine(task.settings, task.is_alone)
    if display is None or not engine.is_main:
        display = Silent()
    run = Run(task, folder, engine, display, deadline)
    settings = task.settings
    state = run.state
    try:
        with _signals() as stop:
            run.begin()
            for batch in task.batches(state.step, engine.rank, engine.world_size):
                progress = run.progress(stop)
                if progress >= 1:
                    break
                run.begin_stage(progress)
                try:
                    row, output = run.step(batch, progress)
                except TrainingDiverged as error:
                    run.leave_stage(error)
                else:
                    run.watch(row, progress)
                    if state.step % settings.log_every == 0:
                        run.log_step(row, output, batch, progress)
                if state.step % settings.validate_every == 0 or run.must_measure_validation(
                    progress
                ):
                    run.validate()
                if state.step % settings.checkpoint_every == 0:
                    state.save(folder)
                if state.stopped_by:
                    break
            run.end()
        return run.result()
    finally:
        run.close()


class Run:
    """The steps of a run in the order they happen; what they change is in `state`."""

    def __init__(
        self, task: Task, folder: Path, engine: Engine, display: Display, deadline: float | None
    ) -> None:
        self.task = task
        self.settings = task.settings
        self.folder = folder
        self.engine = engine
        self.display = display
        self.state = State(task, engine)
        checkpoint = find_checkpoint(folder)
        if checkpoint:
            self.state.restore(checkpoint)
        self.guard = self.state.guard
        self.generator = torch.Generator(device=engine.device)
        self.log: RunLog | None = None
        if engine.is_main:
            self.log = RunLog(folder, self.state.step if checkpoint else None)
        self.started = time.monotonic() - self.state.elapsed
        limits = []
        if task.settings.max_minutes is not None:
            limits.append(task.settings.max_minutes * 60.0)
        if deadline is not None:
            limits.append(deadline - self.started)
        self.max_seconds = min(limits, default=None)
        # When items per second were last told, and at which step.
        self.window = (time.monotonic(), self.state.step)

    def begin(self) -> None:
        """Say what is trained, on what, and where."""
        engine = self.engine
        raw = self.state.raw
        resumed = f"; resumed at step {self.state.step}" if self.state.step else ""
        self.display.start(
            f"{self.task.title(raw)}; {num_parameters(raw) / 1e6:.2f} M parameters; "
            f"{engine.precision} on "
            f"{engine.world_size} x {engine.device.type}{resumed}"
        )
        self.window = (time.monotonic(), self.state.step)

    def progress(self, stop: threading.Event) -> float:
        """Share of the schedule that is done, the same on every rank.

        Interrupted when any rank was told to stop.
        """
        state = self.state
        state.elapsed = time.monotonic() - self.started
        progress = 1.0 if state.stopped_by else state.step / self.settings.steps
        if self.max_seconds is not None and not state.stopped_by:
            # The last validation pass belongs to the budget, with something to spare.
            budget = max(self.max_seconds - 1.2 * state.validation_seconds, 1e-9)
            spent = state.elapsed / budget
            # How long the first batch took must not decide the learning rate of the first step.
            if state.step or spent >= 1:
                progress = max(progress, spent)
        stopping = stop.is_set()
        if self.engine.world_size > 1:
            mine = [progress if self.engine.is_main else 0.0, float(stopping)]
            progress, signals = self.engine.sum(
                torch.tensor(mine, device=self.engine.device)
            ).tolist()
            stopping = signals > 0
        if stopping:
            state.save(self.folder)
            raise Interrupted(
                f"interrupted at step {state.step}; the run is saved in {self.folder}: add "
                "--resume to go on"
            )
        if progress >= 1 and not state.stopped_by:
            state.stopped_by = "steps" if state.step >= self.settings.steps else "max_minutes"
        return progress

    def begin_stage(self, progress: float) -> None:
        """Enter the adversarial stage when it is time, after a look at the weights before it."""
        state = self.state
        if state.adversary is None or not state.adversary.is_due(progress):
            return
        assert state.stage_guard is not None
        if state.validated_at != state.step or not state.step:
            self.validate()
        is_trained = state.has_frozen_codes
        state.begin_stage()
        for event in state.stage_guard.begin(is_trained):
            self._event(*event)

    def step(self, batch: Batch, progress: float) -> tuple[dict[str, Any], Output]:
        """One update of every phase; its row of figures, and the output of the first phase for more
        of them.
        """
        state = self.state
        factor = self.task.lr_factor(progress) * state.remedies.lr_factor
        self.task.begin_step(state.raw, progress)
        row: dict[str, Any] = {}
        outputs = []
        adversary = state.adversary if state.adversary and state.adversary.is_on else None
        phases = [*self.task.phases, *([adversary.phase] if adversary else [])]
        for index, phase in enumerate(phases):
            # Alike on all ranks, and another one for every phase.
            self.generator.manual_seed(derive_seed("noise", self.task.seed, state.step, index))
            weights = self._weights(phase, progress)
            output = phase.forward(state.model_of(phase), batch, self.generator)
            if adversary and index == 0:
                output, weights = adversary.join(output, weights, batch, state.step, self.generator)
            loss = total_loss(output.terms, weights)
            self.engine.backward(loss)
            row |= self._losses(phase, loss, output)
            row |= self._update(phase, factor)
            outputs.append(output)
        if self.guard and not state.has_frozen_codes:
            self.guard.add(outputs[0].codes)
        state.average.update(state.step - state.remedies.restarted_at)
        changing = self.task.changing_weights() & outputs[0].terms.keys()
        weights = self._weights(self.task.phases[0], progress)
        row |= {f"weight/{name}": weights[name] for name in sorted(changing)}
        if adversary:
            row |= adversary.figures
        state.step += 1
        return {**row, "lr": factor * self.settings.lr}, outputs[0]

    def leave_stage(self, error: TrainingDiverged) -> None:
        """A step was not finite: the adversarial stage is over; outside of one that is raised."""
        state = self.state
        if state.stage_guard is None or not state.kept:
            raise error
        state.raw.zero_grad(set_to_none=True)
        state.step += 1
        reason = str(error).split(" at step")[0]
        self._decide(state.stage_guard.broke(reason))

    def watch(self, row: dict[str, Any], progress: float) -> None:
        """Let the guards see the finished step, and say what they say."""
        if self.state.stage_guard:
            self._decide(self.state.stage_guard.follow(self.state.step))
        if self.guard is None or self.state.has_frozen_codes:
            return
        weights = self._weights(self.task.phases[0], progress)
        for event in self.guard.check(self.state.step, row, weights, progress):
            self._event(*event)

    def log_step(self, row: dict[str, Any], output: Output, batch: Batch, progress: float) -> None:
        """Write the row of a step to the log and show it."""
        seconds = time.monotonic() - self.window[0]
        steps = self.state.step - self.window[1]
        row["items_per_second"] = steps * self.settings.batch_size / seconds
        figures = {name: float(value) for name, value in self.task.figures(output, batch).items()}
        row = {"step": self.state.step, "split": "train", **row, **figures}
        if self.guard:
            row |= self.guard.figures
        row["seconds"] = time.monotonic() - self.started
        if self.log:
            self.log.add(row)
        self.display.update(progress, row)
        self.window = (time.monotonic(), self.state.step)

    def must_measure_validation(self, progress: float) -> bool:
        """Whether a time budget has yet to learn, half-way, what the last validation pass will
        cost.
        """
        is_known = self.max_seconds is None or self.state.validation_seconds
        return not is_known and progress >= 0.5

    @torch.no_grad()
    def validate(self) -> None:
        """Figures of the averaged weights on the validation split, where there is one."""
        begin = time.monotonic()
        state = self.state
        quantizer = self.task.quantizer(state.raw)
        counts = torch.zeros(0)
        if quantizer is not None:
            counts = torch.zeros(quantizer.num_codebooks, quantizer.codebook_size, dtype=torch.long)
        state.model.eval()
        with state.average.swapped():
            sums = self._validation_sums(counts, self.task.validation_batches)
            watched = sums
            if state.adversary and not sums:
                watched = self._validation_sums(counts, self.task.watched_batches)
        state.model.train()
        if sums:
            row = self._means(sums)
            if quantizer is not None:
                total = self.engine.sum(counts.to(self.engine.device)).cpu()
                row |= code_figures(quantizer.per_codebook(total))
            self._watch_plateau(row["loss"])
            if self.log:
                seconds = time.monotonic() - self.started
                self.log.add({"step": state.step, "split": "validation", **row, "seconds": seconds})
        elif self.settings.patience and not state.validated_at:
            self._event(
                "info", "train.patience does nothing here: there is no validation split to look at"
            )
        state.validated_at = state.step
        if watched and state.stage_guard:
            self._judge_stage(row if sums else self._means(watched), bool(sums))
        state.validation_seconds = time.monotonic() - begin
        self.window = (time.monotonic(), state.step)

    def end(self) -> None:
        """The last validation pass, and a checkpoint: measuring and fitting, which come now, may be
        stopped too.
        """
        state = self.state
        # Of a run without time for a single step, too: what is made of it is the untrained model.
        if state.validated_at != state.step or not state.step:
            self.validate()
        if state.adversary and state.stage_guard and state.adversary.is_on:
            self._decide(state.stage_guard.conclude())
            if state.adversary.is_on:
                state.accept()
        state.elapsed = time.monotonic() - self.started
        state.save(self.folder)
        self.display.update(1.0, {"step": state.step, "seconds": state.elapsed})

    def result(self) -> Finished | None:
        """The model and what is known of its training, on the first rank."""
        state = self.state
        # A collective call when the model is sharded.
        weights = state.weights()
        if self.log is None:
            return None
        model = self._built(weights)
        beside = self._built(state.weights_beside()) if state.beside else None
        figures = {
            "step": state.step,
            "stopped_by": state.stopped_by,
            "training_seconds": state.elapsed,
            "items_per_second": state.step * self.settings.batch_size / state.elapsed,
            "parameters": num_parameters(model),
            "precision": self.engine.precision,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        if state.adversary:
            memory = state.adversary.memory
            figures["adversary"] = {
                "in_use": memory.in_use or "before",
                "began_at": memory.began_at,
                "ended_at": memory.ended_at,
                "weight_factor": memory.factor,
            }
        return Finished(model, self.log.history, self.log.events, figures, beside)

    def _built(self, weights: dict[str, Tensor]) -> nn.Module:
        model = self.task.build()
        model.load_state_dict(weights)
        return model.eval()

    def close(self) -> None:
        """Give the terminal and the files back."""
        self.display.stop()
        if self.log:
            self.log.close()

    # ------------------------------------------------------------------------------ parts of a step

    def _weights(self, phase: Phase, progress: float) -> dict[str, float]:
        """Loss weights by term, as the schedule and the guard want them."""
        factors = self.state.remedies.factors
        weights = phase.weights(progress)
        return {name: weight * factors.get(name, 1.0) for name, weight in weights.items()}

    def _losses(self, phase: Phase, loss: Tensor, output: Output) -> dict[str, float]:
        """Loss and terms of a phase, means over ranks; those of later phases carry its name."""
        prefix = "" if phase is self.task.phases[0] else f"{phase.name}/"
        names = [f"{prefix}loss", *(f"{prefix}loss/{name}" for name in output.terms)]
        values = torch.stack([loss.detach(), *(term.detach() for term in output.terms.values())])
        mean = self.engine.sum(values) / self.engine.world_size
        return dict(zip(names, mean.tolist(), strict=True))

    def _update(self, phase: Phase, factor: float) -> dict[str, float]:
        """Clip the gradients of a phase and let its optimisers step."""
        state = self.state
        optimizers = state.optimizers[phase.name]
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group in groups:
            group["lr"] = factor * group["peak_lr"]
        # In the order of the model, whatever that of the optimisers is: a sum of floats depends on
        # it.
        held = {id(parameter) for group in groups for parameter in group["params"]}
        module = unwrap(state.model_of(phase))
        parameters = [parameter for parameter in module.parameters() if id(parameter) in held]
        norm: Any = get_total_norm([p.grad for p in parameters if p.grad is not None])
        name = "grad_norm" if phase is self.task.phases[0] else f"{phase.name}/grad_norm"
        row = {name: float(norm.full_tensor() if self.engine.sharded else norm)}
        check_finite(state.step + 1, row, self.folder)
        if self.settings.clip_norm:
            clip_grads_with_norm_(parameters, self.settings.clip_norm, norm)
        for optimizer in optimizers:
            optimizer.step()
        module.zero_grad(set_to_none=True)
        return row

    # ------------------------------------------------------------------------ the adversarial stage

    def _judge_stage(self, row: Mapping[str, float], is_held_out: bool) -> None:
        """Let its guard see a validation pass, and do what it decides."""
        state = self.state
        assert state.adversary is not None and state.stage_guard is not None
        state.stage_guard.saw(row, is_held_out)
        if state.adversary.is_on:
            self._decide(state.stage_guard.judge())

    def _decide(self, decision: Decision) -> None:
        """Say and do what the guard of the adversarial stage decides."""
        for event in decision.events:
            self._event(*event)
        state = self.state
        if not (decision.leaves or decision.rolls_back):
            return
        if decision.leaves and not state.has_frozen_codes:
            state.leave()
            self._event("action", "training goes on from these weights, without the adversary")
            return
        state.roll_back()
        self._event("action", "the model is back at the weights from before the stage")
        if state.has_frozen_codes:
            # Nothing else is left to learn.
            state.stopped_by = "guard"

    # ----------------------------------------------------------------------------------- validation

    def _watch_plateau(self, loss: float) -> None:
        """Stop when patience is used up, or let the adversarial stage begin, within which patience
        rests.
        """
        state = self.state
        adversary = state.adversary
        if (adversary and adversary.is_on) or not state.watch_plateau(loss):
            return
        if adversary and adversary.is_waiting:
            adversary.memory.is_level = True
            return
        state.stopped_by = "plateau"
        self._event(
            "info", "the validation loss no longer falls: stopped, the best weights are kept"
        )

    def _validation_sums(
        self, counts: Tensor, batches: Callable[[], Iterator[Batch]]
    ) -> dict[str, Tensor]:
        """Sums over this rank's batches of what is averaged, under the same names on every rank;
        none without a split.

        A rank that has no batch learns the names from the first one, and counts nothing of it.
        """
        sums: dict[str, Tensor] = {}
        for batch in self._of_this_rank(batches()):
            self._add_batch(batch, sums, counts)
        if sums:
            return sums
        for batch in islice(batches(), 1):
            self._add_batch(batch, sums, counts)
        counts.zero_()
        return {name: torch.zeros_like(total) for name, total in sums.items()}

    def _means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Means over the items of all ranks."""
        names = sorted(sums)
        totals = self.engine.sum(torch.stack([sums[name] for name in names])).tolist()
        means = dict(zip(names, totals, strict=True))
        count = means.pop("items")
        return {name: total / count for name, total in means.items()}

    def _of_this_rank(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """This rank's batches; all of them when the model is sharded, as shards must step
        together.
        """
        for index, batch in enumerate(batches):
            if self.engine.sharded or index % self.engine.world_size == self.engine.rank:
                yield batch

    def _add_batch(self, batch: Batch, sums: dict[str, Tensor], counts: Tensor) -> None:
        """Add the sums over one batch of everything that validation averages."""
        output = self.task.phases[0].forward(self.state.model, batch, None)
        loss = total_loss(output.terms, self.task.peak_weights())
        values = {"loss": loss, **self.task.figures(output, batch)}
        values |= {f"loss/{name}": term for name, term in output.terms.items()}
        values["items"] = torch.ones((), device=loss.device)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value.double() * self.task.num_items(batch)
        if counts.numel():
            counts += code_counts(output.codes, counts.shape[1]).cpu()

    def _event(self, level: str, message: str) -> None:
        """Say it now and keep it for the report."""
        self.display.message(f"{level}: step {self.state.step}: {message}")
        if self.log:
            self.log.event(self.state.step, level, message)


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """SIGINT, SIGTERM and SIGHUP set an event instead of breaking a step; a second one breaks
    it.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    # nohup ignores it for the programs that it starts, and so shall it be.
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        numbers.append(hangup)
    previous = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
