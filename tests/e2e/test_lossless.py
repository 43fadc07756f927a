"""Lossless files from the command line and from Python, and codes of models without an integer
prior.
"""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import vqkit
from vqkit import cli
from vqkit.apps.compress import verify
from vqkit.artifact import codec as codecs
from vqkit.artifact.model import Model
from vqkit.artifact.record import Coders
from vqkit.artifact.store import save_artifact
from vqkit.coding import MIXING, VALUES, FormatError, OutOfBounds, Truncated, WrongModel, read_file


@pytest.fixture
def pictures(emoji, tmp_path):
    """An emoji, noise of one pixel, a flat strip: PNG, RGB."""
    rng = np.random.default_rng(0)
    images = {
        "emoji": emoji.read(emoji.splits["test"][:1]).values[0].permute(1, 2, 0).numpy(),
        "point": rng.integers(0, 256, (1, 1, 3), np.uint8),
        "strip": np.full((3, 17, 3), 200, np.uint8),
    }
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    return images


def test_pixels_come_back_from_files_and_bundles(
    run_folder, pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    files = [f"{name}.png" for name in pictures]
    assert cli.main(["compress", str(run_folder), *files, "--lossless", "--out-dir", "vq"]) == 0
    assert (
        cli.main(["compress", str(run_folder), *files, "--lossless", "--out", "all.vq", "--bundle"])
        == 0
    )
    assert "exact" in capsys.readouterr().out
    sources = [f"vq/{name}.vq" for name in pictures]
    where = ["--model", str(run_folder)]
    assert cli.main(["decompress", *sources, "--out-dir", "one", *where]) == 0
    assert cli.main(["decompress", "all.vq", "--out-dir", "many", *where]) == 0
    for name, image in pictures.items():
        for folder in ("one", "many"):
            assert np.array_equal(np.array(Image.open(f"{folder}/{name}.png")), image)
    capsys.readouterr()
    assert cli.main(["inspect", "all.vq"]) == 0 and "lossless" in capsys.readouterr().out
    assert cli.main(["verify", *sources, "all.vq", *where]) == 0
    monkeypatch.chdir(run_folder.parent)
    assert cli.main(["verify", str(tmp_path / "all.vq")]) == 0, (
        "the model is found below this folder"
    )


def test_pictures_that_the_model_cannot_hold_are_named_and_left_out(
    run_folder, model, pictures, tmp_path, capsys
):
    Image.new("RGBA", (3, 2), (1, 2, 3, 99)).save(tmp_path / "alpha.png")
    Image.new("I;16", (3, 2), 999).save(tmp_path / "deep.png")
    command = ["compress", str(run_folder), str(tmp_path), "--lossless"]
    assert cli.main([*command, "--out-dir", str(tmp_path / "vq")]) == 1
    assert sorted(path.stem for path in (tmp_path / "vq").iterdir()) == sorted(pictures)
    said = capsys.readouterr()
    assert "alpha" not in said.out and "deep" not in said.out
    assert (
        "alpha.png: it is 8-bit RGBA, and a lossless file of this model keeps 8-bit RGB only"
        in said.err
    )
    assert "deep.png: it is 16-bit" in said.err
    for name in ("alpha", "deep"):
        image = Image.open(tmp_path / f"{name}.png")
        with pytest.raises(ValueError, match="lossless file of this model keeps"):
            model.compress(image, lossless=True)
        assert model.compress(image)


def test_what_was_fitted_to_emoji_makes_emoji_smaller(model, pictures):
    artifact = model.artifact
    without = Model(replace(artifact, coders=replace(artifact.coders, values=None)), "cpu")
    sizes = [len(one.compress(pictures["emoji"], lossless=True)) for one in (model, without)]
    assert sizes[0] < 0.97 * sizes[1]
    with pytest.raises(WrongModel):
        without.decompress(model.compress(pictures["emoji"], lossless=True))


@pytest.mark.filterwarnings("ignore:the file is cut off")
def test_damage_and_files_that_are_cut_off_are_refused(model, pictures, tmp_path):
    data = model.compress(pictures["strip"], lossless=True)
    header = read_file(data).header
    assert (header.holds, header.coder, header.num_codebooks) == (VALUES, MIXING, 3)
    with pytest.raises(Truncated, match="cut off"):
        model.decompress(data[:-1])
    for place in range(12, len(data)):
        try:
            found = model.decompress(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        except FormatError:
            continue
        assert np.array_equal(found, pictures["strip"])
    assert verify(model, data[:-1]).error


def test_what_is_no_exact_picture_or_too_large_is_refused(model, monkeypatch):
    with pytest.raises(ValueError, match="uint8"):
        model.compress(np.zeros((1, 3, 8, 8)), lossless=True)
    monkeypatch.setattr(codecs, "MAX_DECODED", 100)
    with pytest.raises(OutOfBounds):
        model.compress(np.zeros((8, 8, 3), np.uint8), lossless=True)


def test_a_model_without_a_coder_compresses_by_context_mixing(
    model, run_folder, pictures, tmp_path
):
    save_artifact(replace(model.artifact, coders=Coders()), tmp_path / "bare")
    loaded = vqkit.load(tmp_path / "bare")
    data = loaded.compress(pictures["emoji"])
    assert read_file(data).header.coder == MIXING
    codes = [one.codes for one in loaded.compressor.read(data)]
    assert np.array_equal(codes[0], model.encode(pictures["emoji"])[0])
    assert np.array_equal(model.decompress(data), loaded.decompress(data)), (
        "a coder changes nothing for such files"
    )
    assert np.array_equal(
        loaded.decompress(loaded.compress(pictures["emoji"], lossless=True)), pictures["emoji"]
    )
