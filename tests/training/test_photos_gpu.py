"""Recipe photos-gpu, which is meant for a graphics card, where there is none."""

import math

import numpy as np
import pytest
import torch

from vqkit.apps.evaluate import evaluate
from vqkit.artifact.build import build_model
from vqkit.artifact.model import Model
from vqkit.artifact.record import Artifact
from vqkit.config import load
from vqkit.settings import Config
from vqkit.signals.image.signal import IMAGE
from vqkit.signals.image.source import open_images
from vqkit.training.loop import fit
from vqkit.training.tasks.autoencoder import AutoencoderTask


@pytest.fixture(scope="module")
def tiles(photo, tmp_path_factory):
    """Six pieces of 256x256 of two photographs."""
    from skimage import data

    found = []
    for image in (data.coffee(), data.astronaut()):
        found += [image[-256:, left : left + 256] for left in (0, 128, 256)]
    path = tmp_path_factory.mktemp("tiles") / "tiles.npy"
    np.save(path, np.stack(found))
    return path


def started(tiles, tmp_path, *overrides):
    settings = ["train.log_every=1", "train.precision=float32", "adversary.start=0", *overrides]
    config = load("photos-gpu", settings, Config)
    data = open_images(tiles, config.data, 0)
    return data, config, fit(AutoencoderTask(data, config, IMAGE), tmp_path)


def test_the_network_as_it_is_takes_a_step(tiles, tmp_path):
    one = tmp_path / "one.npy"
    np.save(one, np.load(tiles)[:1])
    # Muon has tests of its own, and takes longer here than all else.
    short = ["train.steps=1", "train.batch_size=1", "train.optimizer=adamw"]
    data, _, finished = started(one, tmp_path, *short, "data.validation=0", "data.test=0")
    (row,) = (row for row in finished.history if row["split"] == "train")
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    assert {"loss/perceptual", "loss/commitment", "adversary/loss/discriminator"} <= row.keys()
    for side in (finished.model.encoder, finished.model.decoder):
        # They start at zero.
        assert side.head.weight.abs().max() > 0
    x = data.normalisation.apply(data.read(np.arange(1)).values)
    with torch.no_grad():
        codes = finished.model.encode(x)
    assert codes.shape == (1, 1, 32, 32) and 100 < len(codes.unique()) <= 16384
    assert finished.model.num_bits((256, 256)) == 32 * 32 * 14


def test_an_epoch_of_a_narrow_one_goes_through_the_stage(tiles, tmp_path, monkeypatch):
    # A discriminator of a few steps is no better than chance.
    monkeypatch.setattr("vqkit.training.stage_guard.LEARNED", -1.0)
    narrow = ["model.network.width=32", "model.network.expansion=1", "adversary.width=4"]
    narrow += ["model.quantizer.latent_dim=32", "adversary.alone=1", "adversary.ramp=1"]
    # Nothing is refused, whatever comes of so few steps.
    narrow += ["adversary.max_fall=100", "data.validation=0.2", "data.test=0.2"]
    data, config, finished = started(
        tiles, tmp_path, *narrow, "train.batch_size=1", "train.steps=4", "train.validate_every=4"
    )
    assert len(data.splits["train"]) == 4
    rows = [row for row in finished.history if row["split"] == "train"]
    assert len(rows) == 4 and "loss/adversarial" in rows[-1]
    assert finished.figures["adversary"]["in_use"] in ("before", "after")
    model = Model(Artifact(config, finished.model, data.describe()), "cpu")
    found = evaluate(model, data).metrics
    assert found["bits_per_item"] == 32 * 32 * 14 and found["bpp"] == 14 / 64
    assert found["psnr"] > 10


def test_a_factor_of_16_is_one_override(tiles):
    config = load("photos-gpu", ["model.network.downsampling_factor=16"], Config)
    data = open_images(tiles, config.data, 0)
    model = build_model(config, data.shape, data.normalisation)
    assert model.grid((256, 256)) == (16, 16)
    assert model.num_bits((256, 256)) == 16 * 16 * 14
