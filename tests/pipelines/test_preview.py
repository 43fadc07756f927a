"""The model of a run that is not over."""

from __future__ import annotations

import torch

from vqkit.config import load
from vqkit.pipelines.preview import open_run, preview
from vqkit.settings import Config
from vqkit.signals.image.signal import IMAGE
from vqkit.training.loop import fit
from vqkit.training.tasks.autoencoder import AutoencoderTask

from ..training.runs import ALONE


def test_a_preview_is_the_model_that_the_run_would_give_now(tmp_path):
    assert open_run(tmp_path, "emoji") is None
    config = load("emoji", ALONE, Config)
    data = IMAGE.open("emoji", config.data, config.seed)
    finished = fit(AutoencoderTask(data, config, IMAGE), tmp_path)
    opened = open_run(tmp_path, "emoji")
    found = preview(tmp_path, opened)
    assert found.step == 40
    wanted = finished.model.state_dict()
    given = found.model.network.state_dict()
    assert wanted.keys() == given.keys()
    for name, value in wanted.items():
        assert torch.equal(value, given[name]), name
    # Averages are no weights of a step.
    assert preview(tmp_path, opened, known=40) is None
    assert found.model.artifact.data["normalisation"] == data.describe()["normalisation"]
