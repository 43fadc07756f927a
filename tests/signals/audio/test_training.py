"""Training of a codec of recordings: killed and resumed, and on two ranks."""

from __future__ import annotations

import signal

import numpy as np
import soundfile

from vqkit.pipelines.autoencoder import train
from vqkit.training.checkpoint import find_checkpoint

from ...processes import run_ranks, start
from ...training.runs import assert_same_weights, rows, wait_for
from .conftest import RATE, RESIDUAL, TINY, voice

# All that is drawn at random in training: levels, signs, noise, and how many stages are used.
SETTINGS = [
    *TINY,
    *RESIDUAL,
    "data.validation=0.2",
    "data.test=0.2",
    "data.noise.level=0.5",
    "coder.steps=0",
    "train.steps=12",
    "train.log_every=1",
]


def test_killed_and_resumed_equals_uninterrupted_to_the_bit(recordings, tmp_path):
    whole = tmp_path / "whole"
    broken = tmp_path / "broken"
    train(recordings, whole, None, SETTINGS)
    process = start(["-m", "vqkit", "train", str(recordings), "--out", str(broken), *SETTINGS])
    wait_for(lambda: find_checkpoint(broken) is not None, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (broken / "model.safetensors").exists()
    assert train(recordings, broken, None, [], resume=True) is not None
    assert_same_weights(whole / "model.safetensors", broken / "model.safetensors")
    losses = [[row["loss"] for row in rows(folder, "train")] for folder in (whole, broken)]
    assert losses[0] == losses[1] and len(losses[0]) == 12


def test_two_ranks_train_as_one_does(tmp_path):
    """Of recordings of whole clips: a rank weighs what is padded in its own part of a batch."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(10):
        soundfile.write(source / f"{number}.wav", voice(2.56, number), RATE, "PCM_16")
    train(source, tmp_path / "one", None, SETTINGS)
    words = ["-m", "vqkit", "train", str(source), "--out", str(tmp_path / "two"), *SETTINGS]
    for done in run_ranks([*words, "train.strategy=ddp"], 2):
        assert done.returncode == 0, done.stderr
    losses = []
    measured = []
    for name in ("one", "two"):
        losses.append([row["loss"] for row in rows(tmp_path / name, "train")])
        measured.append(rows(tmp_path / name, "validation")[-1]["spectral_snr"])
    assert len(losses[0]) == 12
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose(measured[1], measured[0], atol=1e-3)
