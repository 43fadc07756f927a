"""A sharpened decoder: codes, files, coders and prior are those of the model it was made of."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import vqkit
from vqkit.artifact.coder_files import find_artifact
from vqkit.artifact.store import load_artifact
from vqkit.cli import main
from vqkit.errors import VqkitError
from vqkit.training.loop import Interrupted
from vqkit.training.progress import Silent

SHORT = [
    "train.steps=12",
    "train.validate_every=4",
    "train.log_every=2",
    "adversary.alone=2",
    "adversary.ramp=3",
    "adversary.width=4",
    "adversary.num_layers=1",
    "adversary.max_fall=100",
    "losses.perceptual_distance=bands",
]


@pytest.fixture(autouse=True)
def lenient(monkeypatch):
    """Of so few steps nothing is asked."""
    monkeypatch.setattr("vqkit.training.stage_guard.LEARNED", -1.0)
    monkeypatch.setattr("vqkit.training.stage_guard.CHANCE", 100.0)


@pytest.fixture(scope="module")
def sharp_folder(shared, prior_folder):
    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vqkit.training.stage_guard.LEARNED", -1.0)
            patch.setattr("vqkit.training.stage_guard.CHANCE", 100.0)
            vqkit.sharpen(prior_folder, "emoji", folder, SHORT)

    return shared("sharp", make)


@pytest.fixture(scope="module")
def sharp(sharp_folder):
    return vqkit.load(sharp_folder, device="cpu")


@pytest.fixture(scope="module")
def old(prior_folder):
    return vqkit.load(prior_folder, device="cpu")


def test_no_code_of_any_image_changes_and_reconstructions_do(old, sharp, emoji):
    values = emoji.read(np.arange(len(emoji))[::5]).values
    assert torch.equal(old.tokenizer.encode(values), sharp.tokenizer.encode(values))
    for name, value in old.network.codes_state().items():
        assert torch.equal(value, sharp.network.codes_state()[name])
    assert old.content_id != sharp.content_id
    assert not torch.equal(
        old.tokenizer.reconstruct(values[:8]), sharp.tokenizer.reconstruct(values[:8])
    )


@pytest.mark.parametrize("lossless", [False, True])
def test_files_of_either_model_are_read_by_both(old, sharp, emoji, lossless):
    image = emoji.read(emoji.splits["test"][:1]).values[0]
    pixels = image.permute(1, 2, 0).numpy()
    by_old = old.compress(pixels, lossless=lossless)
    assert by_old == sharp.compress(pixels, lossless=lossless)
    if lossless:
        assert np.array_equal(sharp.decompress(by_old), pixels)
    else:
        codes = old.tokenizer.encode(image[None])
        assert np.array_equal(
            sharp.decompress(by_old), sharp.decode(codes, (32, 32), double=True)[0]
        )
        assert not np.array_equal(sharp.decompress(by_old), old.decompress(by_old))


def test_coders_and_prior_are_copies(prior_folder, sharp_folder, old, sharp):
    for name in ("coder.safetensors", "lossless.safetensors"):
        first = load_file(prior_folder / name)
        second = load_file(sharp_folder / name)
        assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not load_artifact(sharp_folder).problems
    for name, value in old.prior.network.state_dict().items():
        assert torch.equal(value, sharp.prior.network.state_dict()[name])
    # Rates are of the same codes, and say what this decoder makes of them.
    full = [model.artifact.coders.rates["full"] for model in (old, sharp)]
    assert full[0].bits == full[1].bits and full[0].psnr != full[1].psnr


def test_a_file_finds_the_sharpened_model_and_a_model_without_a_coder_too(
    old, sharp_folder, tmp_path, emoji
):
    image = emoji.read(emoji.splits["test"][:1]).values[0]
    file = tmp_path / "image.vq"
    file.write_bytes(old.compress(image.permute(1, 2, 0).numpy()))
    (tmp_path / "models").mkdir()
    copied = shutil.copytree(sharp_folder, tmp_path / "models" / "sharp")
    assert find_artifact(file, [tmp_path]) == copied
    bare = shutil.copytree(sharp_folder, tmp_path / "bare")
    for path in bare.glob("coder*"):
        path.unlink()
    without = vqkit.load(bare, device="cpu")
    assert without.compressor.model_id != old.compressor.model_id
    assert without.prior is not None


def test_both_states_are_there_and_info_names_the_one_in_use(
    prior_folder, sharp_folder, old, sharp, capsys
):
    config = json.loads((sharp_folder / "config.json").read_text())
    assert config["codes_of"] == old.content_id
    assert config["stage"]["in_use"] == "after"
    assert config["stage"]["beside"] == "model-before.safetensors"
    before = load_file(sharp_folder / "model-before.safetensors")
    first = load_file(prior_folder / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in first.items())
    with safe_open(sharp_folder / "model-before.safetensors", framework="pt") as file:
        named = json.loads(file.metadata()["config"])
    assert named["content_id"] == old.content_id and "codes_of" not in named
    assert main(["info", str(sharp_folder), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert f"codes are those of model {old.content_id[:16]}" in told
    assert "from after the adversarial stage, which lasted from step 0 to 12, are in use" in told
    assert "lie in model-before.safetensors" in told


def test_a_model_that_was_not_sharpened_has_neither_key(prior_folder):
    config = json.loads((prior_folder / "config.json").read_text())
    assert "codes_of" not in config and "stage" not in config


def test_a_sharpened_model_is_sharpened_again_with_the_same_codes(
    sharp_folder, old, tmp_path, emoji
):
    again = vqkit.sharpen(sharp_folder, "emoji", tmp_path / "again", [*SHORT, "train.steps=5"])
    assert again.artifact.codes_id == old.content_id
    values = emoji.read(emoji.splits["test"][:4]).values
    assert torch.equal(old.tokenizer.encode(values), again.tokenizer.encode(values))


def test_a_stage_that_gains_nothing_leaves_the_old_model(prior_folder, old, tmp_path, monkeypatch):
    monkeypatch.setattr("vqkit.training.stage_guard.LEARNED", 2.0)
    same = vqkit.sharpen(prior_folder, "emoji", tmp_path / "same", SHORT)
    assert same.content_id == old.content_id
    assert same.metrics["stopped_by"] == "guard"
    assert load_artifact(tmp_path / "same").stage.in_use == "before"
    values = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert torch.equal(old.tokenizer.encode(values), same.tokenizer.encode(values))


@pytest.mark.parametrize("step", [2, 8])
def test_interrupted_and_resumed_is_uninterrupted(prior_folder, sharp, tmp_path, step):
    class Stops(Silent):
        is_done = False

        def update(self, progress, row):
            if row.get("step") == step and not self.is_done:
                self.is_done = True
                signal.raise_signal(signal.SIGINT)

    out = tmp_path / "out"
    with pytest.raises(Interrupted, match=f"at step {step}; .* --resume"):
        vqkit.sharpen(prior_folder, "emoji", out, SHORT, display=Stops())
    with pytest.raises(VqkitError, match="those that were given differ"):
        vqkit.sharpen(prior_folder, "emoji", out, ["train.steps=3"], resume=True)
    resumed = vqkit.sharpen(prior_folder, "emoji", out, resume=True)
    assert resumed.content_id == sharp.content_id


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("model.network.width=8", "keeps model as the model has it"),
        ("seed=3", "keeps seed"),
        ("data.augment.flip=false", "keeps data as the model has it, but for the splits"),
        ("losses.distortion=l1", "keeps losses.distortion"),
        ("adversary.train=all", "trains the decoder alone"),
    ],
)
def test_settings_that_would_change_codes_are_refused(prior_folder, tmp_path, setting, told):
    with pytest.raises(VqkitError, match=told):
        vqkit.sharpen(prior_folder, "emoji", tmp_path / "out", [*SHORT, setting])
    assert not (tmp_path / "out").exists()
