"""The model of a run that is not over, and its prior."""

from __future__ import annotations

import torch

from vqkit.apps.evaluate import open_for
from vqkit.artifact.store import save_artifact
from vqkit.config import load
from vqkit.pipelines.preview import open_run, preview, preview_prior
from vqkit.settings import Config, PriorConfig
from vqkit.signals.image.signal import IMAGE
from vqkit.training.loop import fit
from vqkit.training.tasks.autoencoder import AutoencoderTask
from vqkit.training.tasks.prior import PriorTask

from ..conftest import TINY_PRIOR
from ..training.runs import ALONE
from ..untrained import untrained


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


def test_a_preview_of_a_prior_is_the_one_that_its_run_would_give_now(tmp_path):
    model = untrained()
    save_artifact(model.artifact, tmp_path)
    data = open_for(model, "digits", "train")
    assert preview_prior(tmp_path, model, data) is None
    config = load("prior", [*TINY_PRIOR, "train.steps=10"], PriorConfig)
    finished = fit(PriorTask(model.artifact, data, config), tmp_path / "prior")
    found = preview_prior(tmp_path, model, data)
    prior = found.model.wanted_prior()
    assert found.step == 10
    assert prior.classes == tuple("0123456789")
    given = prior.network.state_dict()
    for name, value in finished.model.state_dict().items():
        assert torch.equal(value, given[name]), name
    assert preview_prior(tmp_path, model, data, known=10) is None
