"""Many short trainings, one core and one thread each, as many at a time as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

# Of every contender alike: a small patch network, no validation in between, nothing that mends a
# collapse.
SHORT = [
    "model.network.encoder_blocks=2",
    "model.network.decoder_blocks=2",
    "train.validate_every=100000",
    "train.checkpoint_every=100000",
    "train.guard=warn",
    "data.augment.flip=false",
    "data.augment.shift=0",
]


class Trained(NamedTuple):
    """A model that was trained and not measured yet, figures of its training, and the data."""

    model: Any
    figures: dict[str, Any]
    data: Any


def fit(
    source: str,
    overrides: list[str],
    seed: int,
    steps: int,
    make_task: Callable[..., Any] | None = None,
) -> Trained:
    """Train the recipe named like `source` with overrides for a number of steps, without a coder or
    a report. make_task: in place of `AutoencoderTask`.
    """
    return fit_settings(source, short_settings(source, overrides, seed, steps), make_task)


def short_settings(source: str, overrides: list[str], seed: int, steps: int) -> Any:
    """The recipe named like `source` for a number of steps, whatever time they take."""
    from vqkit.config import load
    from vqkit.config.loading import with_overrides
    from vqkit.settings import Config

    # One after the other: what a contender has no use for, such as a guard of codes, is no mistake.
    short = load(source, [*SHORT, "train.max_minutes=null"], Config)
    return with_overrides(short, [*overrides, f"train.steps={steps}", f"seed={seed}"])


def fit_settings(
    source: str, settings: Any, make_task: Callable[..., Any] | None = None
) -> Trained:
    """Train settings on a source, without a coder or a report."""
    from vqkit.artifact.model import Model
    from vqkit.artifact.record import Artifact
    from vqkit.signals.registry import signal_of
    from vqkit.training.loop import fit as fit_task
    from vqkit.training.tasks.autoencoder import AutoencoderTask

    signal = signal_of(settings.data)
    data = signal.open(source, settings.data, settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        task = (make_task or AutoencoderTask)(data, settings, signal)
        finished = fit_task(task, Path(folder))
    assert finished is not None
    artifact = Artifact(settings, finished.model, data.describe())
    return Trained(Model(artifact), finished.figures, data)


def in_parallel(work: Callable[[tuple], dict], jobs: Iterable[tuple]) -> list[dict]:
    """work(job) for every job, in order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _one_core, (context.Value("i", 0),)) as pool:
        return list(pool.map(work, jobs))


def _one_core(counter) -> None:
    with counter.get_lock():
        index = counter.value
        counter.value += 1
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[index % len(cores)]})
    import torch

    torch.set_num_threads(1)
