"""A trained model of scalar codes, which several modules look at."""

import numpy as np
import pytest

import vqkit
from tests.conftest import TINY

TRAINED = [
    "model.quantizer.kind=residual",
    "model.quantizer.num_stages=2",
    "model.quantizer.stage={kind: scalar, channels: 10, levels: 63, step: 0.5}",
    "model.max_gain=3.0",
    *[setting for setting in TINY if "quantizer" not in setting],
    "train.steps=10",
    "train.batch_size=8",
]


@pytest.fixture(scope="module")
def scalar_folder(shared, few_images):
    """A run of a model of two stages, with a coder and rates. Tests must not write there."""
    return shared("scalar", lambda folder: vqkit.train(few_images, folder, "emoji", TRAINED))


@pytest.fixture(scope="module")
def scalar(scalar_folder):
    return vqkit.load(scalar_folder, device="cpu")


@pytest.fixture(scope="module")
def images(few_images):
    return np.load(few_images)
