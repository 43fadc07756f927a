"""Notes made by rule, and a model of them that is trained for a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vqkit
from vqkit.artifact.model import Model
from vqkit.pipelines.autoencoder import train

# Two codes for four bytes: more of either than the recipe has.
TINY = [
    "train.precision=float32",
    "train.optimizer=adamw",
    "train.steps=80",
    "train.max_minutes=null",
    "train.batch_size=8",
    "train.validate_every=40",
    "train.checkpoint_every=40",
    "train.log_every=20",
    "train.lr=0.01",
    "train.ema_decay=0.9",
    "data.length=64",
    "model.network.patch_size=4",
    "model.quantizer={kind: product, num_groups: 2, group: {kind: fsq, levels: [4, 4, 4, 4, 4]}}",
    "model.network.width=32",
    "model.network.embedding=8",
    "model.network.encoder_blocks=1",
    "model.network.decoder_blocks=1",
    "coder.steps=3",
]
WORDS = "the river runs past an old mill where nobody grinds corn since grandfather left".split()


def note(seed: int, length: int = 300) -> str:
    """Sentences of few words, some of them with letters that are not of ASCII."""
    rng = np.random.default_rng(seed)
    words = [str(word) for word in rng.choice(WORDS, length // 5)]
    words[:: 9 + seed % 3] = ["Mühle"] * len(words[:: 9 + seed % 3])
    return " ".join(words).replace("mill ", "mill.\n") + "\n"


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 files of text of several lengths, one in a folder of its own, one empty."""
    folder = tmp_path_factory.mktemp("notes")
    for number in range(24):
        path = folder / f"{number:02}.txt"
        if number == 7:
            path = folder / "inner" / "07.md"
            path.parent.mkdir()
        path.write_text(note(number, 200 + 20 * number), encoding="utf-8")
    (folder / "empty.txt").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def run(notes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "run"
    train(notes, folder, overrides=TINY)
    return folder


@pytest.fixture(scope="session")
def model(run: Path) -> Model:
    return vqkit.load(run, device="cpu")
