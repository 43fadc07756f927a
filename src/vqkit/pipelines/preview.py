"""The model of a run that is not over, from its last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..artifact.build import build_model
from ..artifact.model import Model
from ..artifact.record import Artifact
from ..config.loading import from_tree
from ..data.dataset import Dataset
from ..settings import Config
from ..signals.registry import signal_of
from ..training.checkpoint import FOLDER as CHECKPOINTS
from ..training.checkpoint import find_checkpoint, load_checkpoint

AVERAGE = "average."
MODEL = "model."


class Preview(NamedTuple):
    """A model as it is after so many steps, with averaged weights."""

    model: Model
    step: int


def open_run(folder: Path, source: str | Path) -> Dataset | None:
    """The items of a run, as it sees them; None before its first checkpoint. VqkitError."""
    checkpoint = find_checkpoint(folder)
    if checkpoint is None:
        return None
    _, counters = load_checkpoint(checkpoint)
    config = _config(folder, counters)
    data: Dataset = signal_of(config.data).open(source, config.data, config.seed)
    return data


def preview(folder: Path, data: Dataset, known: int = -1) -> Preview | None:
    """The model of the last checkpoint in a folder; None where there is none, or it is that of a
    step that is known.

    VqkitError for one that cannot be read, as one that is being replaced.
    """
    checkpoint = find_checkpoint(folder)
    if checkpoint is None or int(checkpoint.stem.partition("-")[2]) == known:
        return None
    tensors, counters = load_checkpoint(checkpoint)
    config = _config(folder, counters)
    network = build_model(config, data.shape, data.normalisation)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    for group in (MODEL, AVERAGE):
        for name in weights:
            weights[name] = tensors.get(group + name, weights[name])
    network.load_state_dict(weights)
    return Preview(
        Model(Artifact(config, network.eval(), data.describe()), "cpu"), counters["step"]
    )


def _config(folder: Path, counters: dict[str, Any]) -> Config:
    return from_tree(counters["config"], str(folder / CHECKPOINTS), Config)
