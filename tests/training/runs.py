"""Small runs, their logs, and child processes that are stopped on the way."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from vqkit.artifact.model import Model
from vqkit.artifact.record import Artifact
from vqkit.settings import Config
from vqkit.signals.image.signal import IMAGE
from vqkit.signals.image.source import ImageData
from vqkit.training.loop import fit
from vqkit.training.tasks.autoencoder import AutoencoderTask

from ..conftest import TINY
from ..processes import Process

# A run of an autoencoder alone: the coders of files, which take most of the time, have tests of
# their own.
ALONE = [*TINY, "coder.steps=0"]


def without_codebook(settings: list[str]) -> list[str]:
    """Settings for quantizers that have no codebook_size."""
    return [setting for setting in settings if "codebook_size" not in setting]


def rows(folder: Path, split: str) -> list[dict]:
    """What a run logged of a split."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in lines if row.get("split") == split]


def assert_same_weights(one: Path, two: Path) -> None:
    """Two safetensors files hold the same tensors, to the bit."""
    expected, found = load_file(one), load_file(two)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def wait_for(condition: Callable[[], object], process: Process, seconds: float = 60) -> None:
    """Wait until a process has done something; it must not end before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        # Nothing else tells of what it does than to look again.
        with contextlib.suppress(TimeoutError):
            process.wait(timeout=0.01)
            raise AssertionError(process.communicate()[1])


def fitted(data: ImageData, config: Config, folder: Path) -> Model:
    """A model that is trained and no more: without coders, figures and a report."""
    finished = fit(AutoencoderTask(data, config, IMAGE), folder)
    return Model(Artifact(config, finished.model, data.describe()), "cpu")
