"""Real images and a small trained model, made once for the whole suite."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import vqkit
from vqkit.artifact.model import Model
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import ImageData, open_images

from .processes import stop_server

# Overrides that make the emoji recipe a matter of seconds.
TINY = [
    # On every machine alike; bfloat16 has a test of its own.
    "train.precision=float32",
    "train.steps=40",
    "train.optimizer=adamw",
    "train.batch_size=32",
    "train.validate_every=20",
    "train.checkpoint_every=20",
    "train.log_every=10",
    "model.network.width=32",
    "model.network.encoder_blocks=1",
    "model.network.decoder_blocks=1",
    "model.quantizer.codebook_size=64",
    "coder.steps=6",
]

# Overrides that give the emoji recipe three stages of 3 bits.
RESIDUAL = [
    "model.quantizer.kind=residual",
    "model.quantizer.num_stages=3",
    "model.quantizer.stage={kind: vq, codebook_size: 8}",
    "model.quantizer.quantizer_dropout=0.25",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that are marked as long begin first: at the end, one process would wait for another."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread_per_test_process() -> None:
    """Two threads gain nothing on models of this size, and runs that start child processes would
    fight over cores.
    """
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _no_server_is_left() -> Iterator[None]:
    """Processes of tests have come to their end by then."""
    yield
    stop_server()


@pytest.fixture(scope="session")
def emoji() -> ImageData:
    return open_images("emoji", DataConfig(), seed=0)


# Overrides that make the prior's recipe a matter of seconds.
TINY_PRIOR = [
    "network.width=32",
    "network.num_blocks=2",
    "network.num_heads=2",
    "train.steps=40",
    "train.batch_size=32",
    "train.validate_every=20",
    "train.checkpoint_every=10",
    "train.log_every=10",
    "train.max_minutes=null",
    "train.patience=0",
    "condition=class",
]

# Makes a folder under the name that it is given, and gives its path.
Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def few_images(emoji: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An array of 40 emoji of 16x16 pixels, for runs whose figures do not matter."""
    values = emoji.read(emoji.splits["train"][:40]).values
    small = torch.nn.functional.avg_pool2d(values.float(), 2).round().to(torch.uint8)
    path = tmp_path_factory.mktemp("few") / "few.npy"
    np.save(path, small.permute(0, 2, 3, 1).numpy())
    return path


@pytest.fixture(scope="session")
def hundred_images(emoji: ImageData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An array of 100 emoji as they are, to fit coders of the tiny model to."""
    values = emoji.read(emoji.splits["train"][:100]).values
    path = tmp_path_factory.mktemp("hundred") / "hundred.npy"
    np.save(path, values.permute(0, 2, 3, 1).numpy())
    return path


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """What takes long to make is made once for all test processes of a run; the first that asks
    makes it.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / "shared" / name
        folder.parent.mkdir(exist_ok=True)
        finished = folder.with_name(f"{name}-is-finished")
        with open(folder.with_name(f"{name}-lock"), "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not finished.exists():
                # What a process left that failed.
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                finished.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def run_folder(shared: Shared) -> Path:
    """A finished run on the emoji, as `vqkit train` leaves it. Tests must not write there."""
    return shared("tiny", lambda folder: vqkit.train("emoji", folder, overrides=TINY))


@pytest.fixture(scope="session")
def model(run_folder: Path) -> Model:
    return vqkit.load(run_folder, device="cpu")


@pytest.fixture(scope="session")
def residual_folder(shared: Shared) -> Path:
    """A run of a model of three stages, with a coder and rates. Tests must not write there."""
    tiny = [setting for setting in TINY if "quantizer" not in setting]
    # What takes long is to measure rates on the validation split.
    settings = [*RESIDUAL, *tiny, "train.steps=10", "coder.steps=5", "data.validation=0.01"]
    return shared("residual", lambda folder: vqkit.train("emoji", folder, "emoji", settings))


@pytest.fixture(scope="session")
def residual(residual_folder: Path) -> Model:
    return vqkit.load(residual_folder, device="cpu")


@pytest.fixture(scope="session")
def prior_folder(shared: Shared, run_folder: Path) -> Path:
    """The finished run with a prior conditioned on classes. Tests must not write there."""

    def train(folder: Path) -> None:
        shutil.copytree(run_folder, folder)
        vqkit.train_prior(folder, "emoji", "prior", TINY_PRIOR)

    return shared("prior", train)


@pytest.fixture(scope="session")
def prior_model(prior_folder: Path) -> Model:
    return vqkit.load(prior_folder, device="cpu")


@pytest.fixture(scope="session")
def photo() -> Path:
    """A photograph that ships with scikit-image."""
    from skimage import data_dir

    return Path(data_dir) / "coffee.png"
