"""Every task that is interrupted and resumed ends as one that was not."""

import copy
import signal

import pytest
import torch

from vqkit.config import load
from vqkit.errors import TrainingDiverged
from vqkit.settings import Config, PriorConfig
from vqkit.signals.image.signal import IMAGE
from vqkit.training.checkpoint import find_checkpoint
from vqkit.training.guard import check_finite
from vqkit.training.loop import Interrupted, fit
from vqkit.training.progress import Silent
from vqkit.training.tasks.autoencoder import AutoencoderTask
from vqkit.training.tasks.code_coder import CodeCoderTask
from vqkit.training.tasks.prior import PriorTask
from vqkit.training.tasks.value_coder import ValueCoderTask

SMALL = [
    "train.steps=12",
    "train.batch_size=8",
    "train.log_every=1",
    "train.validate_every=5",
    "train.precision=float32",
]
PRIOR = [
    "network.width=32",
    "network.num_heads=2",
    "network.num_blocks=1",
    "network.dropout=0.1",
    "augment={flip: true}",
]


class Stops(Silent):
    """Sends the signal of Ctrl-C once, when a step is shown."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, progress, row):
        if row.get("step") == self.step:
            self.step = -1
            signal.raise_signal(signal.SIGINT)


def few(emoji):
    data = copy.copy(emoji)
    data.splits = {name: ids[:24] for name, ids in emoji.splits.items()}
    return data


def autoencoder(model, emoji):
    network = [
        "model.network.width=16",
        "model.quantizer.codebook_size=16",
        "data.augment.shift=2",
        "train.patience=9",
    ]
    config = load("emoji", [*SMALL, *network], Config)
    data = copy.copy(few(emoji))
    data.settings = config.data
    return AutoencoderTask(data, config, IMAGE)


TASKS = {
    "autoencoder": autoencoder,
    "prior": lambda model, emoji: PriorTask(
        model.artifact, few(emoji), load("emoji", [*SMALL, *PRIOR], PriorConfig)
    ),
    "code coder": lambda model, emoji: CodeCoderTask(model.tokenizer, few(emoji), 12),
    "value coder": lambda model, emoji: ValueCoderTask(model.tokenizer, few(emoji), 5),
}


@pytest.mark.parametrize("name", TASKS)
def test_interrupted_and_resumed_is_uninterrupted_to_the_bit(
    name, model, emoji, tmp_path, monkeypatch
):
    # Small enough for seconds, and logged often enough to be stopped between two logs of the
    # coders.
    monkeypatch.setattr("vqkit.training.tasks.code_coder.STEP_CODES", 1 << 10)
    task = TASKS[name](model, emoji)
    task.settings = task.settings.model_copy(update={"log_every": 1})
    whole = fit(task, tmp_path / "whole")
    broken = tmp_path / "broken"
    with pytest.raises(Interrupted, match="at step 7; .* --resume"):
        fit(task, broken, Stops(7))
    assert find_checkpoint(broken).name == "step-000000007.safetensors"
    again = fit(TASKS[name](model, emoji), broken)
    assert whole.figures["step"] == again.figures["step"] >= 12
    expected, found = whole.model.state_dict(), again.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    passes = [
        [row["loss"] for row in run.history if row["split"] == "validation"]
        for run in (whole, again)
    ]
    assert passes[0] == passes[1] and passes[0]


def test_divergence_names_a_checkpoint_only_where_there_is_one(tmp_path):
    row = {"loss/reconstruction": float("nan")}
    with pytest.raises(TrainingDiverged) as caught:
        check_finite(3, row, tmp_path)
    assert "step 3: loss/reconstruction is nan" in str(caught.value)
    assert "checkpoint" not in str(caught.value) and "resume" not in str(caught.value)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "step-000000002.safetensors").touch()
    with pytest.raises(TrainingDiverged, match="checkpoint"):
        check_finite(3, row, tmp_path)
