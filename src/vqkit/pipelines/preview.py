"""The model of a run that is not over, or its prior, from the last checkpoint; and what priors are
shown by.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from ..artifact.build import build_model
from ..artifact.model import Model
from ..artifact.record import Artifact
from ..config.loading import from_tree
from ..data.dataset import Dataset
from ..prior.prior import Drawing, Prior, build_prior_network
from ..settings import Config, PriorConfig
from ..signals.registry import signal_of
from ..training.checkpoint import FOLDER as CHECKPOINTS
from ..training.checkpoint import find_checkpoint, load_checkpoint
from ..training.tasks.prior import Labels

AVERAGE = "average."
MODEL = "model."
# Where the training of a prior keeps its own files, inside of the artifact; and where, until it is
# complete, that of one which replaces another.
PRIOR_FOLDER = "prior"
NEW_PRIOR_FOLDER = "prior-new"
# Of samples whose codes are drawn many at once.
NUM_STEPS = 12

NetworkT = TypeVar("NetworkT", bound=nn.Module)


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
    checkpoint = _newer(folder, known)
    if checkpoint is None:
        return None
    tensors, counters = load_checkpoint(checkpoint)
    config = _config(folder, counters)
    network = _filled(build_model(config, data.shape, data.normalisation), tensors)
    return Preview(Model(Artifact(config, network, data.describe()), "cpu"), counters["step"])


def preview_prior(folder: Path, model: Model, data: Dataset, known: int = -1) -> Preview | None:
    """`model`, that of a folder, with the prior of the last checkpoint there, which learns from
    `data`; None and errors as `preview`.
    """
    work = prior_work(folder)
    checkpoint = _newer(work, known)
    if checkpoint is None:
        return None
    tensors, counters = load_checkpoint(checkpoint)
    config = from_tree(counters["config"], str(work / CHECKPOINTS), PriorConfig)
    labels = Labels.of(data, config)
    network = build_prior_network(config, model.network, len(labels.classes), labels.has_captions)
    prior = Prior(config, _filled(network, tensors), labels.classes)
    return Preview(Model(replace(model.artifact, prior=prior), "cpu"), counters["step"])


def prior_work(folder: Path) -> Path:
    """Where the prior of an artifact's folder that was begun last has its files."""
    new = folder / NEW_PRIOR_FOLDER
    return folder / PRIOR_FOLDER if find_checkpoint(new) is None else new


def drawing_of(data: Dataset, prior: Prior, num: int) -> Drawing:
    """How samples that show a prior are drawn: of all classes in turn, or by captions of held-out
    items.
    """
    if prior.classes:
        return Drawing(classes=[prior.classes[index % len(prior.classes)] for index in range(num)])
    if prior.has_captions and data.captions:
        split = next(name for name in ("test", "validation", "train") if len(data.splits[name]))
        ids = data.splits[split][:num]
        return Drawing(prompts=[data.captions[int(ids[index % len(ids)])] for index in range(num)])
    return Drawing()


def in_few_steps(drawing: Drawing, prior: Prior) -> Drawing:
    """The same, with codes that are drawn many at once."""
    layout = prior.layout
    return replace(drawing, steps=max(len(layout.groups), min(NUM_STEPS, layout.length)))


def _newer(folder: Path, known: int) -> Path | None:
    """The last checkpoint of a folder, unless it is that of a step that is known."""
    checkpoint = find_checkpoint(folder)
    if checkpoint is None or int(checkpoint.stem.partition("-")[2]) == known:
        return None
    return checkpoint


def _filled(network: NetworkT, tensors: dict[str, Tensor]) -> NetworkT:
    """A network with the weights of a checkpoint, averaged where they are."""
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    for group in (MODEL, AVERAGE):
        for name in weights:
            weights[name] = tensors.get(group + name, weights[name])
    network.load_state_dict(weights)
    return network.eval()


def _config(folder: Path, counters: dict[str, Any]) -> Config:
    return from_tree(counters["config"], str(folder / CHECKPOINTS), Config)
