"""Recipe speech-sharp on few recordings, and models of recordings that are sharpened."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import vqkit
from vqkit.cli import main
from vqkit.errors import VqkitError

from .conftest import RATE, RESIDUAL, TINY, voice

# Of a stage, what takes a moment.
STAGE = [
    "adversary.windows=[0.016, 0.032]",
    "adversary.width=4",
    "adversary.alone=1",
    "adversary.ramp=2",
    "adversary.max_fall=100",
]
SPLITS = ["data.validation=0.2", "data.test=0.2"]


@pytest.fixture(autouse=True)
def lenient(monkeypatch):
    """Of so few steps nothing is asked."""
    monkeypatch.setattr("vqkit.training.stage_guard.LEARNED", -1.0)
    monkeypatch.setattr("vqkit.training.stage_guard.CHANCE", 100.0)


def assert_only_the_decoder_moved(before, model):
    """No tensor but those of the decoder differs from those of before, and some of those do."""
    after = model.network.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("decoder.") for name in moved)


def test_the_recipe_trains_and_its_stage_changes_no_code(recordings, tmp_path, capsys):
    settings = [*TINY, *RESIDUAL, *SPLITS, *STAGE, "train.max_minutes=null", "adversary.start=0.4"]
    model = vqkit.train(recordings, tmp_path / "run", "speech-sharp", settings)
    assert model.metrics["adversary"]["in_use"] == "after"
    assert main(["info", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "from after the adversarial stage" in capsys.readouterr().out
    assert_only_the_decoder_moved(load_file(tmp_path / "run" / "model-before.safetensors"), model)


def test_sharpened_models_of_recordings_keep_codes_and_files(codec_folder, codec, tmp_path):
    """Of padded batches too, and of both kinds of codes."""
    recordings = [voice(seconds, 3) for seconds in (0.7, 1.9, 3.0)]
    source = tmp_path / "source"
    source.mkdir()
    for number, samples in enumerate(recordings):
        soundfile.write(source / f"{number}.wav", samples, RATE, "PCM_16")
    settings = [*SPLITS, *STAGE, "train.steps=4", "train.validate_every=2", "data.validation=0.3"]
    sharp = vqkit.sharpen(codec_folder, source, tmp_path / "sharp", settings)
    assert sharp.config.adversary.kind == "stft"
    assert_only_the_decoder_moved(codec.network.state_dict(), sharp)
    assert sharp.artifact.codes_of == codec.content_id
    for samples in recordings:
        values = torch.from_numpy(samples)[None, None]
        assert torch.equal(codec.tokenizer.encode(values), sharp.tokenizer.encode(values))
        file = codec.compress(samples)
        assert file == sharp.compress(samples)
        heard = sharp.decompress(file)[0]
        assert len(heard) == len(samples)
        assert not np.array_equal(heard, codec.decompress(file)[0])


@pytest.mark.parametrize("phase", [True, False])
def test_stereo_has_an_adversary_too(tmp_path, phase):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(8):
        both = np.stack([voice(1.0, number), voice(1.0, number + 50)], 1)
        soundfile.write(source / f"{number}.wav", both, RATE, "PCM_16")
    settings = [
        *(setting for setting in TINY if not setting.startswith("model.")),
        "model.network.hop=64",
        "model.network.width=16",
        "model.network.decoder_blocks=1",
        "model.quantizer.stage.channels=128",
        "train.max_minutes=null",
        "coder.steps=0",
        "adversary.kind=stft",
        "adversary.start=0",
        f"adversary.phase={phase}".lower(),
        *SPLITS,
        *STAGE,
    ]
    model = vqkit.train(source, tmp_path / "run", "music", settings)
    assert model.artifact.data["channels"] == 2
    assert model.metrics["adversary"]["in_use"] == "after"


def test_a_discriminator_of_another_signal_is_refused_before_training(recordings, tmp_path):
    settings = [*TINY, *RESIDUAL, "adversary.kind=patch"]
    with pytest.raises(VqkitError, match="adversary.kind=patch is not for recordings"):
        vqkit.train(recordings, tmp_path / "run", "speech", settings)
    longer = [
        *TINY,
        *RESIDUAL,
        "adversary.kind=stft",
        "data.seconds=0.4",
        "adversary.windows=[0.5]",
    ]
    with pytest.raises(VqkitError, match="has one of 4096 samples, and a clip has 3200"):
        vqkit.train(recordings, tmp_path / "run", "speech", longer)
