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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..artifact import Artifact
from ..config import Config, TrainConfig, from_tree
from ..data import ImageData, split_batches, training_batches
from ..data.splits import derive_seed
from ..errors import VqkitError
from ..metrics import code_counts, perplexity, psnr, to_pixels, usage
from ..model import Autoencoder
from ..model.blocks import num_parameters
from .average import WeightAverage
from .checkpoint import find_checkpoint, load_checkpoint, optimizer_tensors, save_checkpoint
from .engine import Engine, copy_full, full, unwrap
from .health import CodeMonitor, check_finite
from .losses import total_loss
from .progress import Display, Silent
from .runlog import RunLog


class Interrupted(VqkitError):
    """Ctrl-C or a signal: the run is saved and can go on."""


@dataclass(frozen=True)
class TrainingResult:
    """A finished run: the artifact with averaged weights, its curves and events, and figures about the training."""

    artifact: Artifact
    history: list[dict[str, Any]]
    events: list[dict[str, Any]]
    figures: dict[str, Any]


def train(data: ImageData, config: Config, folder: Path, display: Display | None = None) -> TrainingResult | None:
    """Train an autoencoder on `data` as `config` says, keeping metrics.jsonl and checkpoints in `folder`.

    A checkpoint in the folder is resumed from. Returns None on ranks other than the first.
    Errors: TrainingDiverged; Interrupted after Ctrl-C or SIGTERM (a checkpoint is written first); VqkitError when the
    folder cannot be written.
    """
    engine = Engine(config.train)
    run = Run(data, config, folder, engine, display if display and engine.is_main else Silent())
    try:
        with _signals() as stop:
            run.loop(stop)
        return run.result()
    finally:
        run.close()


class Run:
    """Everything that changes while training, and the steps that change it, in the order they happen."""

    def __init__(self, data: ImageData, config: Config, folder: Path, engine: Engine, display: Display) -> None:
        self.data, self.config, self.folder, self.engine, self.display = data, config, folder, engine, display
        torch.manual_seed(config.seed)
        model = build_model(data, config)
        self.model = engine.wrap_model(model, config.train.compile)
        self.raw: Autoencoder = unwrap(self.model)  # type: ignore[assignment]
        self.optimizer = engine.wrap_optimizer(_adamw(self.raw, config.train))
        self.average = WeightAverage(self.raw, config.train.ema_decay)
        self.generator = torch.Generator(device=engine.device)
        quantizer = self.raw.quantizer
        self.monitor = (
            CodeMonitor(quantizer.num_codebooks, quantizer.codebook_size, engine.device)
            if quantizer.is_discrete
            else None
        )
        self.step, self.elapsed, self.looks_without_gain, self.best_loss = 0, 0.0, 0, math.inf
        self.best: dict[str, Tensor] = {}
        self.validation_seconds, self.stopped_by = 0.0, "steps"
        checkpoint = find_checkpoint(folder)
        if checkpoint:
            self._restore(checkpoint)
        self.log = RunLog(folder, self.step if checkpoint else None) if engine.is_main else None
        self.started = time.perf_counter() - self.elapsed

    # ------------------------------------------------------------------------------------------------------ the loop

    def loop(self, stop: threading.Event) -> None:
        """Steps until the schedule, the time budget or the plateau ends it."""
        settings = self.config.train
        batches = training_batches(
            self.data,
            self.config.data,
            settings.batch_size,
            self.config.seed,
            self.step,
            self.engine.rank,
            self.engine.world_size,
        )
        self.display.start(settings.steps * settings.batch_size, self._title())
        window_start, window_step = time.perf_counter(), self.step
        while not self._finished():
            progress, stopping = self._agree(stop.is_set())
            if stopping:
                self._interrupt()
            if progress >= 1:
                break
            row = self._train_step(next(batches), progress)
            self.step += 1
            if self.step % settings.log_every == 0:
                now = time.perf_counter()
                speed = (self.step - window_step) * settings.batch_size / (now - window_start)
                self._log_train(row, speed, progress)
                window_start, window_step = now, self.step
            if self.step % settings.validate_every == 0:
                self._validate()
                window_start, window_step = time.perf_counter(), self.step
            if self.step % settings.checkpoint_every == 0:
                self._checkpoint()
        if self.step % settings.validate_every:
            self._validate()
        self.display.update(1.0, {"step": self.step, "seconds": self.elapsed})

    def _finished(self) -> bool:
        return self.stopped_by == "plateau"

    def _agree(self, stopping: bool) -> tuple[float, bool]:
        """Progress of the schedule in [0, 1] and whether any rank was told to stop, the same on every rank."""
        settings = self.config.train
        self.elapsed = time.perf_counter() - self.started
        progress = self.step / settings.steps
        if settings.max_minutes is not None:
            used = self.elapsed / max(settings.max_minutes * 60.0 - self.validation_seconds, 1e-9)
            if used > progress:
                progress, self.stopped_by = used, "max_minutes"
        if self.engine.world_size > 1:
            mine = [progress if self.engine.is_main else 0.0, float(stopping)]
            progress, signals = self.engine.sum(torch.tensor(mine, device=self.engine.device)).tolist()
            stopping = signals > 0
        return progress, stopping

    def _train_step(self, batch: Tensor, progress: float) -> dict[str, Any]:
        """One optimiser step; returns the row that may be logged, with tensors where computing costs time."""
        settings = self.config.train
        lr = settings.lr * schedule(progress, settings.warmup, settings.final_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        parts = batch.chunk(settings.accumulate)
        totals: dict[str, float] = {}
        for index, part in enumerate(parts):
            totals_of_part, output, x = self._forward_backward(part, index, len(parts))
            for name, value in totals_of_part.items():
                totals[name] = totals.get(name, 0.0) + value / len(parts)
        norm = torch.nn.utils.clip_grad_norm_(self.raw.parameters(), settings.clip_norm or math.inf)
        totals["grad_norm"] = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        check_finite(self.step + 1, totals)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.step)
        return {**totals, "lr": lr, "last": (output.reconstruction.detach(), part)}

    def _forward_backward(self, part: Tensor, index: int, count: int) -> tuple[dict[str, float], Any, Tensor]:
        x = self.prepare(part)
        self.generator.manual_seed(derive_seed("noise", self.config.seed, self.step, index, self.engine.rank))
        with self.engine.synchronise(self.model, wanted=index == count - 1):
            output = self.model(x, self.generator)
            loss = total_loss(output, self.config.losses)
            self.engine.backward(loss / count)
        if self.monitor:
            self.monitor.update(output.codes)
        names = ["loss", *(f"loss/{name}" for name in output.terms)]
        values = self.engine.sum(torch.stack([loss.detach(), *(term.detach() for term in output.terms.values())]))
        return dict(zip(names, (values / self.engine.world_size).tolist(), strict=True)), output, x

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> standardised float32 on the device, channels last."""
        images = images.to(self.engine.device, non_blocking=True)
        return self.data.normalisation.apply(images).contiguous(memory_format=torch.channels_last)

    # ------------------------------------------------------------------------------------------- looking at the run

    def _title(self) -> str:
        engine = self.engine
        return (
            f"{self.data.name}: {len(self.data.splits['train'])} training images; "
            f"{num_parameters(self.raw) / 1e6:.2f} M parameters, {engine.precision}, {engine.world_size} x {engine.device.type}"
            + (f"; resumed at step {self.step}" if self.step else "")
        )

    def _log_train(self, row: dict[str, Any], speed: float, progress: float) -> None:
        reconstruction, original = row.pop("last")
        pixels = to_pixels(self.data.normalisation.undo(reconstruction))
        row = {"step": self.step, "split": "train", **row, "psnr": float(psnr(pixels, original.to(pixels.device)).mean())}
        if self.monitor:
            figures, warning = self.monitor.read()
            row |= figures
            if warning:
                self.event("warning", warning)
        row |= {"images_per_second": speed, "seconds": time.perf_counter() - self.started}
        if self.log:
            self.log.add(row)
        self.display.update(progress, row)

    @torch.no_grad()
    def _validate(self) -> None:
        """Figures of the averaged weights on the validation split; keeps the best weights when patience is set."""
        begin, settings, world = time.perf_counter(), self.config.train, self.engine.world_size
        quantizer = self.raw.quantizer
        sums: dict[str, float] = {}
        counts = torch.zeros(quantizer.num_codebooks, quantizer.codebook_size if self.monitor else 1, dtype=torch.long)
        self.model.eval()
        with self.average.swapped():
            for index, (_, images) in enumerate(split_batches(self.data, "validation", settings.batch_size)):
                if index % world == self.engine.rank or self.engine.sharded:  # shards must step together
                    self._add_batch(images, sums, counts)
        self.model.train()
        totals = self.engine.sum(torch.tensor(list(sums.values()), dtype=torch.float64, device=self.engine.device))
        sums = dict(zip(sums, totals.tolist(), strict=True))
        row = {name: value / sums["images"] for name, value in sums.items() if name != "images"}
        if self.monitor:
            counts = self.engine.sum(counts.to(self.engine.device)).cpu()
            row |= {"usage": usage(counts), "perplexity": perplexity(counts)}
        self._watch_plateau(row["loss"])
        now = time.perf_counter()
        self.validation_seconds = now - begin
        if self.log:
            self.log.add({"step": self.step, "split": "validation", **row, "seconds": now - self.started})

    def _add_batch(self, images: Tensor, sums: dict[str, float], counts: Tensor) -> None:
        x = self.prepare(images)
        output = self.model(x)
        values = {"loss": float(total_loss(output, self.config.losses))}
        values |= {f"loss/{name}": float(term) for name, term in output.terms.items()}
        pixels = to_pixels(self.data.normalisation.undo(output.reconstruction))
        values["psnr"] = float(psnr(pixels, images.to(pixels.device)).mean())
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(images)
        sums["images"] = sums.get("images", 0.0) + len(images)
        if self.monitor:
            counts += code_counts(output.codes, counts.shape[1]).cpu()

    def _watch_plateau(self, loss: float) -> None:
        patience = self.config.train.patience
        if not patience:
            return
        if loss < self.best_loss:
            self.best_loss, self.looks_without_gain = loss, 0
            self.best = {name: value.clone() for name, value in self.average.average.items()}
        else:
            self.looks_without_gain += 1
        if self.looks_without_gain >= patience:
            self.stopped_by = "plateau"
            self.event("info", f"no better validation loss in {patience} looks: stopped, the best weights are kept")

    def event(self, level: str, message: str) -> None:
        """Say it now and keep it for the report."""
        self.display.message(f"{level}: step {self.step}: {message}")
        if self.log:
            self.log.event(self.step, level, message)

    # -------------------------------------------------------------------------------------------- stopping and going on

    def _interrupt(self) -> None:
        self._checkpoint()
        raise Interrupted(f"interrupted at step {self.step}; the run is saved in {self.folder}: add --resume to go on")

    def _tensors(self) -> dict[str, Tensor]:
        groups = {
            "model": self.raw.state_dict(),
            "average": self.average.average,
            "optimizer": optimizer_tensors(self.optimizer),
            "best": self.best,
        }
        return {f"{group}.{name}": full(value) for group, values in groups.items() for name, value in values.items()}

    def _checkpoint(self) -> None:
        tensors = self._tensors()
        state = {
            "step": self.step,
            "elapsed": time.perf_counter() - self.started,
            "validation_seconds": self.validation_seconds,
            "looks_without_gain": self.looks_without_gain,
            "best_loss": self.best_loss,
            "data": _fingerprint(self.data),
            "config": self.config.model_dump(mode="json"),
        }
        if self.engine.is_main:
            save_checkpoint(self.folder, self.step, tensors, state)
        self.engine.barrier()

    @torch.no_grad()
    def _restore(self, path: Path) -> None:
        tensors, state = load_checkpoint(path)
        if state["data"] != _fingerprint(self.data):
            raise VqkitError(f"the data are not those that {self.folder} was started with; --resume needs the same ones")
        self.step, self.elapsed = state["step"], state["elapsed"]
        self.validation_seconds, self.best_loss = state["validation_seconds"], state["best_loss"]
        self.looks_without_gain = state["looks_without_gain"]
        for name, target in [*self.raw.state_dict().items()]:
            copy_full(target, tensors[f"model.{name}"])
        for name, target in self.average.average.items():
            copy_full(target, tensors[f"average.{name}"])
            if f"best.{name}" in tensors:
                self.best[name] = target.clone()
                copy_full(self.best[name], tensors[f"best.{name}"])
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for name, value in tensors.items():
            group, _, rest = name.partition(".")
            if group == "optimizer":
                index, key = rest.split(".")
                parameter = parameters[int(index)]
                own = torch.zeros_like(parameter) if value.shape == parameter.shape else torch.zeros_like(value)
                copy_full(own, value)
                self.optimizer.state[parameter][key] = own

    # ----------------------------------------------------------------------------------------------------- the result

    def result(self) -> TrainingResult | None:
        """The artifact with the averaged (or best) weights, on the first rank."""
        weights = self.best or self.average.average
        weights = {name: full(value) for name, value in weights.items()}
        counters = {name: full(value) for name, value in self.raw.state_dict().items() if name not in weights}
        if self.log is None:
            return None
        model = build_model(self.data, self.config)
        model.load_state_dict({**weights, **counters})
        artifact = Artifact(self.config, model.eval(), self.data.describe())
        figures = {
            "step": self.step,
            "stopped_by": self.stopped_by,
            "training_seconds": self.elapsed,
            "images_per_second": self.step * self.config.train.batch_size / self.elapsed,
            "parameters": num_parameters(model),
            "precision": self.engine.precision,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        return TrainingResult(artifact, self.log.history, self.log.events, figures)

    def close(self) -> None:
        """Give the terminal and the files back."""
        self.display.stop()
        if self.log:
            self.log.close()


def build_model(data: ImageData, config: Config) -> Autoencoder:
    """The untrained model for images of this size and normalisation."""
    shape = (data.channels, *data.size)
    return Autoencoder(config.model, shape, config.losses.distortion, data.normalisation.std)


def resumed_config(folder: Path) -> Config | None:
    """Settings of the run that is waiting in a folder, None if there is no checkpoint."""
    checkpoint = find_checkpoint(folder)
    if checkpoint is None:
        return None
    return from_tree(load_checkpoint(checkpoint)[1]["config"], where=str(checkpoint))


def schedule(progress: float, warmup: float, final: float) -> float:
    """Factor on the peak learning rate: linear warm-up, then a cosine down to `final`; progress in [0, 1]."""
    if progress < warmup:
        return max(progress, 1e-3 * warmup) / warmup
    done = (progress - warmup) / max(1.0 - warmup, 1e-9)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def _adamw(model: nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    matrices = [p for name, p in model.named_parameters() if p.ndim >= 2 and "codebook" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "codebook" in name]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)


def _fingerprint(data: ImageData) -> dict[str, Any]:
    """What must be equal for a resumed run to go on with the same images: counts and exact pixel statistics."""
    found = data.describe()
    return {key: found[key] for key in ("images", "size", "channels", "splits", "normalisation")}


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
