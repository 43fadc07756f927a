"""Many short trainings, one core and one thread each, as many at a time as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SHORT = ["model.network.encoder_blocks=2", "model.network.decoder_blocks=2", "train.validate_every=100000",
         "train.checkpoint_every=100000", "train.guard=warn", "data.augment.flip=false",
         "data.augment.shift=0"]  # fmt: skip
"""of every contender alike: a small patch network, no looks in between, nothing that mends a collapse"""


def fit(source: str, overrides: list[str], seed: int, steps: int):
    """Train the recipe named like `source` with overrides: the result of training, and the data."""
    from vqkit import config
    from vqkit.data import open_images
    from vqkit.training import train

    settings = config.load(source, [*SHORT, *overrides, f"train.steps={steps}", f"seed={seed}"])
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"max_minutes": None})})
    data = open_images(source, settings.data, seed)
    with tempfile.TemporaryDirectory() as folder:
        result = train(data, settings, Path(folder))
    assert result is not None
    return result, data


def in_parallel(work: Callable[[tuple], dict], jobs: Iterable[tuple]) -> list[dict]:
    """work(job) for every job, in order."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _one_core, (context.Value("i", 0),)) as pool:
        return list(pool.map(work, jobs))


def _one_core(counter) -> None:
    with counter.get_lock():
        index, counter.value = counter.value, counter.value + 1
    os.sched_setaffinity(0, {index % (os.cpu_count() or 1)})
    import torch

    torch.set_num_threads(1)
