"""Recordings made by formula, and a codec of them that is trained for a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import vqkit
from vqkit.artifact.model import Model
from vqkit.pipelines.autoencoder import train

RATE = 8000
# Overrides that make the recipe a matter of seconds.
TINY = [
    "train.precision=float32",
    "train.optimizer=adamw",
    "train.steps=6",
    "train.batch_size=4",
    "train.validate_every=3",
    "train.checkpoint_every=3",
    "train.log_every=3",
    "model.network.width=16",
    "model.network.decoder_blocks=1",
    "coder.steps=4",
]
RESIDUAL = [
    "model.quantizer.num_stages=3",
    "model.quantizer.stage.codebook_size=32",
    "model.quantizer.stage.kmeans_iterations=2",
]
# Scalar codes take in whatever the fixed model says, without training.
SCALAR = [
    "model.quantizer={kind: scalar, channels: 136, step: 1.0, levels: 255}",
    "model.max_gain=4",
]


def voice(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """A vowel that glides between two pitches, and pauses with hiss: int16 (T,)."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate)) / rate
    pitch = 120 * 2 ** (rng.uniform(0, 1) + 0.2 * np.sin(2 * np.pi * times / 1.3))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    vowel = np.zeros_like(times)
    for harmonic in range(1, 18):
        level = 1 / (1 + abs(harmonic * pitch - 700) / 300)
        vowel += level * np.cos(harmonic * phase) * (harmonic * pitch < rate / 2)
    loud = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * times / 0.9 + rng.uniform(0, 6)))
    sound = 0.05 * vowel * loud + 0.003 * rng.standard_normal(len(times))
    return np.rint(32768 * sound).clip(-32768, 32767).astype(np.int16)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers of six recordings each, of 0.4 to 3 seconds, one with a transcript."""
    folder = tmp_path_factory.mktemp("recordings")
    for speaker in ("ada", "ben"):
        (folder / speaker).mkdir()
        for number in range(6):
            samples = voice(0.4 + 0.5 * number, 10 * number + len(speaker + str(speaker == "ada")))
            soundfile.write(folder / speaker / f"{number}.wav", samples, RATE, "PCM_16")
    (folder / "ada" / "0.txt").write_text("one\n  two", encoding="utf-8")
    return folder


@pytest.fixture(scope="session", params=["residual", "scalar"])
def codec_folder(
    request: pytest.FixtureRequest, recordings: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The artifact of a codec, with either kind of codes."""
    folder = tmp_path_factory.mktemp("codec") / "run"
    kind = RESIDUAL if request.param == "residual" else SCALAR
    train(recordings, folder, None, ["data.validation=0.2", "data.test=0.2", *TINY, *kind])
    return folder


@pytest.fixture(scope="session")
def codec(codec_folder: Path) -> Model:
    return vqkit.load(codec_folder, device="cpu")
