"""The loop: batches in, an artifact out; resumable to the bit, stoppable at any time."""

from __future__ import annotations

import contextlib
import math
import resource
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ..data.splits import derive_seed
from ..errors import VqkitError
from ..metrics import code_counts, code_figures
from ..model.blocks import num_parameters
from .checkpoint import find_checkpoint
from .engine import Engine
from .health import check_finite
from .losses import total_loss
from .progress import Display, Silent
from .runlog import RunLog
from .state import State
from .task import Batch, Output, Task


class Interrupted(VqkitError):
    """Ctrl-C or a signal: the run is saved and can go on."""


@dataclass(frozen=True)
class Finished:
    """A finished run: the model with averaged weights, its curves and events, and figures about the training."""

    model: nn.Module
    history: list[dict[str, Any]]
    events: list[dict[str, Any]]
    figures: dict[str, Any]


def fit(task: Task, folder: Path, display: Display | None = None) -> Finished | None:
    """Train what `task` says, keeping metrics.jsonl and checkpoints in `folder`.

    A checkpoint in the folder is resumed from. Returns None on ranks other than the first.
    Errors: TrainingDiverged; Interrupted after Ctrl-C or SIGTERM (a checkpoint is written first); VqkitError when the
    folder cannot be written.
    """
    engine = Engine(task.settings)
    run = Run(task, folder, engine, display if display and engine.is_main else Silent())
    try:
        with _signals() as stop:
            run.loop(stop)
        return run.result()
    finally:
        run.close()


class Run:
    """The steps of a run in the order they happen; what they change is in `state`."""

    def __init__(self, task: Task, folder: Path, engine: Engine, display: Display) -> None:
        self.task, self.settings, self.folder, self.engine, self.display = task, task.settings, folder, engine, display
        self.state = State(task, engine)
        checkpoint = find_checkpoint(folder)
        if checkpoint:
            self.state.restore(checkpoint)
        self.guard = self.state.guard
        self.generator = torch.Generator(device=engine.device)
        self.log = RunLog(folder, self.state.step if checkpoint else None) if engine.is_main else None
        self.started = time.perf_counter() - self.state.elapsed

    # ------------------------------------------------------------------------------------------------------ the loop

    def loop(self, stop: threading.Event) -> None:
        """Steps until the schedule, the time budget or the plateau ends it."""
        settings, state, engine = self.settings, self.state, self.engine
        batches = self.task.batches(state.step, engine.rank, engine.world_size)
        self.display.start(self._title())
        window = time.perf_counter(), state.step
        while not state.stopped_by:
            progress = self._progress(stop)
            if progress >= 1:
                break
            row, output, part = self._step(next(batches), progress)
            state.step += 1
            self._look_after(row, progress)
            if state.step % settings.log_every == 0:
                seconds = time.perf_counter() - window[0]
                row["images_per_second"] = (state.step - window[1]) * settings.batch_size / seconds
                self._log_train(row, output, part, progress)
                window = time.perf_counter(), state.step
            # a time budget must know before its end what the last look will cost
            unmeasured = settings.max_minutes is not None and not state.validation_seconds and progress >= 0.5
            if state.step % settings.validate_every == 0 or unmeasured:
                self._validate()
                window = time.perf_counter(), state.step
            if state.step % settings.checkpoint_every == 0:
                state.save(self.folder)
        if state.validated_at != state.step:
            self._validate()
        state.elapsed = time.perf_counter() - self.started
        state.save(self.folder)  # measuring and fitting, which come now, may be stopped too
        self.display.update(1.0, {"step": state.step, "seconds": state.elapsed})

    def _progress(self, stop: threading.Event) -> float:
        """Share of the schedule that is done, the same on every rank. Interrupted when any rank was told to stop."""
        settings, state = self.settings, self.state
        state.elapsed = time.perf_counter() - self.started
        progress = state.step / settings.steps
        if settings.max_minutes is not None:
            # the last look at the validation split belongs to the budget, with something to spare
            used = state.elapsed / max(settings.max_minutes * 60.0 - 1.2 * state.validation_seconds, 1e-9)
            progress = max(progress, used)
        stopping = stop.is_set()
        if self.engine.world_size > 1:
            mine = [progress if self.engine.is_main else 0.0, float(stopping)]
            progress, signals = self.engine.sum(torch.tensor(mine, device=self.engine.device)).tolist()
            stopping = signals > 0
        if stopping:
            state.save(self.folder)
            raise Interrupted(
                f"interrupted at step {state.step}; the run is saved in {self.folder}: add --resume to go on"
            )
        if progress >= 1:
            state.stopped_by = "steps" if state.step >= settings.steps else "max_minutes"
        return progress

    def _step(self, batch: Batch, progress: float) -> tuple[dict[str, Any], Output, Batch]:
        """One optimiser step; returns its row of figures, and output and last part of the batch for more of them."""
        settings, state = self.settings, self.state
        factor = schedule(progress, settings.warmup, settings.final_lr) * state.remedies.lr_factor
        for optimizer in state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak_lr"]
        weights = self._weights(progress)
        parts = list(zip(*(tensor.chunk(settings.accumulate) for tensor in batch), strict=True))
        row: dict[str, Any] = {}
        for index, part in enumerate(parts):
            output, values = self._forward_backward(part, weights, index, len(parts))
            for name, value in values.items():
                row[name] = row.get(name, 0.0) + value / len(parts)
        parameters = list(state.raw.parameters())
        norm: Any = get_total_norm([p.grad for p in parameters if p.grad is not None])
        row["grad_norm"] = float(norm.full_tensor() if self.engine.sharded else norm)
        check_finite(state.step + 1, row)
        if settings.clip_norm:
            clip_grads_with_norm_(parameters, settings.clip_norm, norm)
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        state.average.update(state.step - state.remedies.restarted_at)
        changing = self.task.changing_weights() & output.terms.keys()
        row |= {f"weight/{name}": weights[name] for name in sorted(changing)}
        return {**row, "lr": factor * settings.lr}, output, parts[-1]

    def _forward_backward(
        self, part: Batch, weights: dict[str, float], index: int, count: int
    ) -> tuple[Output, dict[str, float]]:
        self.generator.manual_seed(derive_seed("noise", self.task.seed, self.state.step, index))  # of all ranks alike
        with self.engine.synchronise(self.state.model, wanted=index == count - 1):
            output = self.task.forward(self.state.model, part, self.generator)
            loss = total_loss(output.terms, weights)
            self.engine.backward(loss / count)
        if self.guard:
            self.guard.add(output.codes)
        values = torch.stack([loss.detach(), *(term.detach() for term in output.terms.values())])
        mean = self.engine.sum(values) / self.engine.world_size
        return output, dict(zip(["loss", *(f"loss/{name}" for name in output.terms)], mean.tolist(), strict=True))

    def _weights(self, progress: float) -> dict[str, float]:
        """Loss weights by term, as the schedule and the guard want them."""
        weights = self.task.weights(progress)
        return {name: weight * self.state.remedies.factors.get(name, 1.0) for name, weight in weights.items()}

    def _look_after(self, row: dict[str, Any], progress: float) -> None:
        """Let the guard see the finished step, and say what it says."""
        for event in self.guard.check(self.state.step, row, self._weights(progress), progress) if self.guard else ():
            self._event(*event)

    # ------------------------------------------------------------------------------------------- looking at the run

    def _title(self) -> str:
        engine, raw = self.engine, self.state.raw
        return (
            f"{self.task.title(raw)}; {num_parameters(raw) / 1e6:.2f} M parameters; {engine.precision} on "
            f"{engine.world_size} x {engine.device.type}"
            + (f"; resumed at step {self.state.step}" if self.state.step else "")
        )

    def _log_train(self, row: dict[str, Any], output: Output, part: Batch, progress: float) -> None:
        figures = {name: float(value) for name, value in self.task.figures(output, part).items()}
        row = {"step": self.state.step, "split": "train", **row, **figures}
        row |= self.guard.figures if self.guard else {}
        row["seconds"] = time.perf_counter() - self.started
        if self.log:
            self.log.add(row)
        self.display.update(progress, row)

    @torch.no_grad()
    def _validate(self) -> None:
        """Figures of the averaged weights on the validation split, where there is one."""
        begin, state, engine = time.perf_counter(), self.state, self.engine
        quantizer = self.task.quantizer(state.raw)
        counts = torch.zeros(0)
        if quantizer is not None:
            counts = torch.zeros(quantizer.num_codebooks, quantizer.codebook_size, dtype=torch.long)
        state.model.eval()
        with state.average.swapped():
            sums = self._validation_sums(counts)
        state.model.train()
        if sums:
            row = self._means(sums)
            if quantizer is not None:
                row |= code_figures(quantizer.per_codebook(engine.sum(counts.to(engine.device)).cpu()))
            if state.watch_plateau(row["loss"]):
                state.stopped_by = "plateau"
                self._event("info", "the validation loss no longer falls: stopped, the best weights are kept")
            if self.log:
                seconds = time.perf_counter() - self.started
                self.log.add({"step": state.step, "split": "validation", **row, "seconds": seconds})
        elif self.settings.patience and not state.validated_at:
            self._event("info", "train.patience does nothing here: there are no validation images to look at")
        state.validated_at, state.validation_seconds = state.step, time.perf_counter() - begin

    def _validation_sums(self, counts: Tensor) -> dict[str, Tensor]:
        """Sums over this rank's batches of what is averaged, under the same names on every rank; none without a split.

        A rank that has no batch learns the names from the first one, and counts nothing of it.
        """
        sums: dict[str, Tensor] = {}
        for batch in self._validation_batches():
            self._add_batch(batch, sums, counts)
        if sums:
            return sums
        for batch in islice(self.task.validation_batches(), 1):
            self._add_batch(batch, sums, counts)
        counts.zero_()
        return {name: torch.zeros_like(total) for name, total in sums.items()}

    def _means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Means over the images of all ranks."""
        names = sorted(sums)
        totals = dict(zip(names, self.engine.sum(torch.stack([sums[name] for name in names])).tolist(), strict=True))
        return {name: value / totals["images"] for name, value in totals.items() if name != "images"}

    def _validation_batches(self) -> Iterator[Batch]:
        """This rank's batches; all of them when the model is sharded, as shards must step together."""
        for index, batch in enumerate(self.task.validation_batches()):
            if self.engine.sharded or index % self.engine.world_size == self.engine.rank:
                yield batch

    def _add_batch(self, batch: Batch, sums: dict[str, Tensor], counts: Tensor) -> None:
        """Add the sums over one batch of everything that validation averages."""
        output = self.task.forward(self.state.model, batch, None)
        loss = total_loss(output.terms, self.task.peak_weights())
        values = {"loss": loss, **self.task.figures(output, batch)}
        values |= {f"loss/{name}": term for name, term in output.terms.items()}
        values["images"] = torch.ones((), device=loss.device)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value.double() * len(batch[0])
        if self.guard:
            counts += code_counts(output.codes, counts.shape[1]).cpu()

    def _event(self, level: str, message: str) -> None:
        """Say it now and keep it for the report."""
        self.display.message(f"{level}: step {self.state.step}: {message}")
        if self.log:
            self.log.event(self.state.step, level, message)

    # ----------------------------------------------------------------------------------------------------- the result

    def result(self) -> Finished | None:
        """The model and what is known of its training, on the first rank."""
        state = self.state
        weights = state.weights()  # a collective call when the model is sharded
        if self.log is None:
            return None
        model = self.task.build()
        model.load_state_dict(weights)
        figures = {
            "step": state.step,
            "stopped_by": state.stopped_by,
            "training_seconds": state.elapsed,
            "images_per_second": state.step * self.settings.batch_size / state.elapsed,
            "parameters": num_parameters(model),
            "precision": self.engine.precision,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        return Finished(model.eval(), self.log.history, self.log.events, figures)

    def close(self) -> None:
        """Give the terminal and the files back."""
        self.display.stop()
        if self.log:
            self.log.close()


def schedule(progress: float, warmup: float, final: float) -> float:
    """Factor on the peak learning rate: linear warm-up, then a cosine down to `final`; progress in [0, 1]."""
    if progress < warmup:
        return max(progress, 1e-3 * warmup) / warmup
    done = (progress - warmup) / max(1.0 - warmup, 1e-9)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set an event instead of breaking a step; a second SIGINT breaks it."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
