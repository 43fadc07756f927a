import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vqkit
from tests.apps.test_denoise import untrained
from tests.conftest import RESIDUAL
from vqkit import cli
from vqkit.errors import VqkitError


@pytest.fixture
def copy(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "copy"))


@pytest.fixture
def batch(emoji):
    """uint8 (B, H, W, C)"""
    return emoji.read(emoji.splits["test"][:6]).permute(0, 2, 3, 1).contiguous().numpy()


def test_saved_and_loaded_gives_the_same_codes_and_id(artifact, batch, tmp_path):
    artifact.save(tmp_path)
    twin = vqkit.load(tmp_path)
    assert twin.content_id == artifact.content_id and twin.config == artifact.config
    assert torch.equal(twin.encode(batch), artifact.encode(batch))
    assert not list(tmp_path.glob("*.tmp"))


def test_the_weights_file_describes_itself(run_folder):
    from safetensors import safe_open

    with safe_open(run_folder / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["config"]) == json.loads((run_folder / "config.json").read_text())


def test_every_form_of_image_gives_the_same_codes(artifact, batch):
    codes = artifact.encode(batch)
    assert codes.dtype == torch.int64 and codes.shape == (6, 1, 8, 8)
    assert torch.equal(artifact.encode([Image.fromarray(image) for image in batch]), codes)
    assert torch.equal(artifact.encode(torch.from_numpy(batch)), codes)
    floats = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
    assert (artifact.encode(floats) == codes).float().mean() > 0.999
    assert torch.equal(artifact.encode(batch[0]), codes[:1])
    assert torch.equal(artifact.encode(Image.fromarray(batch[0])), codes[:1])


def test_reconstruct_returns_what_it_was_given(artifact, batch):
    arrays = artifact.reconstruct(batch)
    assert arrays.dtype == np.uint8 and arrays.shape == batch.shape
    assert np.array_equal(arrays, artifact.decode(artifact.encode(batch)))
    pictures = artifact.reconstruct([Image.fromarray(image) for image in batch])
    assert all(np.array_equal(np.asarray(picture), array) for picture, array in zip(pictures, arrays, strict=True))
    floats = artifact.reconstruct(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255)
    assert floats.shape == (6, 3, 32, 32) and 0 <= float(floats.min()) and float(floats.max()) <= 1
    assert artifact.reconstruct(batch[0]).shape == batch[0].shape


def test_any_size_and_mode_of_picture(artifact, photo):
    with Image.open(photo) as image:
        for mode in ("RGB", "L", "RGBA", "P", "CMYK"):
            picture = image.convert(mode).resize((61, 37))
            assert artifact.reconstruct(picture).size == (61, 37)


def test_large_batches_are_cut_and_change_nothing(artifact, emoji, monkeypatch):
    images = emoji.read(emoji.splits["validation"][:20]).permute(0, 2, 3, 1).numpy()
    codes, pixels = artifact.encode(images), artifact.reconstruct(images)
    monkeypatch.setattr("vqkit.artifact.BATCH_VALUES", 3 * 32 * 32 * 3)
    assert (artifact.encode(images) == codes).float().mean() > 0.999
    assert (np.abs(artifact.reconstruct(images).astype(int) - pixels) <= 1).mean() > 0.99


def test_reconstructions_explain_most_of_unseen_pictures(artifact, emoji):
    images = emoji.read(emoji.splits["test"]).permute(0, 2, 3, 1).contiguous().numpy()
    error = np.square(artifact.reconstruct(images).astype(float) - images).mean()
    assert error < 0.35 * np.square(images.mean((1, 2), keepdims=True) - images).mean()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 4, 1), np.uint8), "3 channels"),
        (np.zeros((2, 3, 4, 4), np.float32) + 2, r"lie in \[0, 1\]"),
        (np.full((2, 3, 4, 4), np.nan, np.float32), r"lie in \[0, 1\]"),
        (np.zeros((4, 4, 3), np.int64), "uint8"),
        ([Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))], "one size"),
    ],
)
def test_wrong_images_are_refused_in_words(artifact, images, message):
    with pytest.raises(ValueError, match=message):
        artifact.encode(images)


@pytest.mark.parametrize(
    "images",
    [
        *[np.zeros(shape, np.uint8) for shape in ((0, 8, 8, 3), (0, 8, 3), (8, 0, 3), (0, 0))],
        *[np.zeros((0, 3, 8, 8), np.float32), torch.zeros(1, 3, 0, 8), Image.new("RGB", (0, 8))],
    ],
)
def test_no_pixels_are_refused_in_words_by_all_that_take_images(artifact, images):
    for use in (artifact.encode, artifact.reconstruct, artifact.compress):
        with pytest.raises(ValueError, match="no pixels"):
            use(images)
    with pytest.raises(ValueError, match="no images"):
        artifact.encode([])


def test_wrong_codes_are_refused_in_words(artifact):
    for shape in ((0, 1, 8, 8), (1, 1, 0, 8)):
        with pytest.raises(ValueError, match=r"\(B, 1, height, width\)"):
            artifact.decode(torch.zeros(shape, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\(B, 1, height, width\)"):
        artifact.decode(torch.zeros(8, 8, dtype=torch.long))
    with pytest.raises(ValueError, match=r"\[0, 64\)"):
        artifact.decode(torch.full((1, 1, 8, 8), 64))


@pytest.mark.parametrize(
    ("quantizer", "number"),
    [
        ({"kind": "lfq", "bits": 33}, "33.0"),
        ({"kind": "bsq", "bits": 40}, "40.0"),
        ({"kind": "fsq", "levels": [256] * 5}, "40.0"),
    ],
)
def test_codes_that_a_file_has_no_numbers_for_are_refused_before_it_is_written(quantizer, number):
    model = untrained(quantizer=quantizer)
    image = np.zeros((16, 16, 3), np.uint8)
    assert model.encode(image).shape == (1, 1, 8, 8)
    with pytest.raises(VqkitError, match=rf"2\^{number} codes.* 2\^32.*--lossless"):
        model.compress(image)
    assert np.array_equal(model.decompress(model.compress(image, lossless=True)), image)
    smaller = untrained(quantizer={"kind": "lfq", "bits": 32})
    assert smaller.decompress(smaller.compress(image)).shape == image.shape


# -------------------------------------------------------------------------------------------------- damaged artifacts


def change(folder: Path, edit) -> None:
    settings = json.loads((folder / "config.json").read_text())
    edit(settings)
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(format="other"), "not a vqkit artifact"),
        (lambda s: s.update(format_version=99), "format version 99"),
        (lambda s: s["config"]["model"]["network"].update(width=10**9), "does not fit"),
        (lambda s: s["config"]["model"]["network"].update(widht=3), "unknown key 'widht'"),
        (lambda s: s["data"].update(normalisation={"mean": [0.5]}), "normalisation"),
        (lambda s: s["data"].pop("size"), "size"),
        (lambda s: s["data"].pop("name"), "name"),
        (lambda s: s["data"].update(channels=10**9), "channels"),
    ],
)
def test_a_changed_config_is_refused_before_memory_is_taken(copy, edit, message):
    change(copy, edit)
    with pytest.raises(VqkitError, match=message):
        vqkit.load(copy)


def test_truncated_replaced_and_missing_weights(copy):
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VqkitError, match="cannot read the artifact"):
        vqkit.load(copy)
    save_file({"other": torch.zeros(2)}, weights)
    with pytest.raises(VqkitError, match="does not fit"):
        vqkit.load(copy)
    weights.unlink()
    with pytest.raises(VqkitError, match="cannot read the artifact"):
        vqkit.load(copy)


def test_a_folder_that_is_no_artifact(tmp_path):
    with pytest.raises(VqkitError, match="not a vqkit artifact"):
        vqkit.load(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(VqkitError, match="cannot read"):
        vqkit.load(tmp_path)
    (tmp_path / "config.json").write_text(" " * (5 << 20))
    with pytest.raises(VqkitError, match="larger than"):
        vqkit.load(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(VqkitError, match="cannot read"):
        vqkit.load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["coder.safetensors", "lossless.safetensors"])
def test_a_coder_of_types_that_numpy_has_not_got(copy, name, dtype):
    save_file({"grid": torch.zeros(2, dtype=dtype)}, copy / name)
    with pytest.raises(VqkitError, match="cannot read the coder .* delete it and run vqkit train-coder"):
        vqkit.load(copy)


def test_a_prior_whose_header_is_nested_without_end(copy):
    save_file({"x": torch.zeros(1)}, copy / "prior.safetensors", metadata={"prior": "[" * 100_000})
    with pytest.raises(VqkitError, match="cannot read the prior"):
        vqkit.load(copy)


@pytest.mark.parametrize(
    "rates", [3, [1], {"low": 3}, {"low": {}}, {"low": {"num_stages": "1", "weight": 0, "bits": 1, "psnr": 1}}]
)
def test_rates_that_are_no_rates(copy, rates):
    metrics = json.loads((copy / "metrics.json").read_text())
    (copy / "metrics.json").write_text(json.dumps({**metrics, "rates": rates}))
    with pytest.raises(VqkitError, match="fit the coder anew"):
        vqkit.load(copy).codec(rate="low")


def test_figures_of_a_wrong_form_are_one_sentence(copy, capsys):
    (copy / "metrics.json").write_text(json.dumps({"rates": {"low": 3}}))
    assert cli.main(["info", str(copy)]) == 2
    assert (
        capsys.readouterr().err == "vqkit: 'rates' in metrics.json is not what vqkit wrote; take it out of the file\n"
    )


def test_codes_are_checked_against_their_own_codebook_and_stages_may_be_left_out(tmp_path):
    artifact = vqkit.train("emoji", tmp_path / "run", "emoji", [*RESIDUAL, "train.steps=5", "train.batch_size=16"])
    codes = artifact.encode(np.zeros((1, 32, 32, 3), np.uint8))
    shorter = codes.clone()
    shorter[:, 1:] = -1
    assert artifact.decode(shorter).shape == artifact.decode(codes).shape == (1, 32, 32, 3)
    codes[0, 2, 0, 0] = 8
    with pytest.raises(ValueError, match=r"codebook 2 must lie in \[0, 8\)"):
        artifact.decode(codes)


def test_every_public_name_is_there_and_formats_have_their_error():
    assert all(getattr(vqkit, name) for name in vqkit.__all__)
    assert issubclass(vqkit.FormatError, vqkit.VqkitError)
