"""Every command on real images: training in a process of its own, as a user starts it, the others
in this one.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqkit import cli
from vqkit.signals.image.files import load_image

from ..conftest import TINY


def vqkit(*arguments):
    """What a command gives, without the seconds that a process takes to start."""
    words = list(map(str, arguments))
    out = io.StringIO()
    errors = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = cli.main(words)
        except SystemExit as end:
            status = end.code
    return subprocess.CompletedProcess(words, status, out.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, photo) -> Path:
    """A folder of crops of one photograph, in many formats and modes, with a broken file and one
    that is no image.
    """
    folder = tmp_path_factory.mktemp("images")
    (folder / "sub").mkdir()
    with Image.open(photo) as image:
        image = image.convert("RGB")
        for index in range(60):
            left, top = 7 * index % (image.width - 64), 5 * index % (image.height - 64)
            image.crop((left, top, left + 48 + index % 9, top + 48)).save(
                folder / f"{index:03}.png"
            )
        crop = image.crop((100, 100, 164, 150))
    crop.save(folder / "sub" / "photo.jpg")
    crop.convert("CMYK").save(folder / "sub" / "print.tiff")
    crop.convert("P").save(folder / "sub" / "palette.gif")
    crop.convert("L").save(folder / "sub" / "grey.bmp")
    crop.convert("RGBA").save(folder / "sub" / "alpha.webp")
    Image.fromarray(np.asarray(crop.convert("L")).astype(np.uint16) << 8).save(
        folder / "sub" / "deep.png"
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    crop.save(folder / "sub" / "turned.jpg", exif=exif)
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    command = [sys.executable, "-m", "vqkit", "train", pictures, "--out", folder, *TINY]
    command.append("data.image_size=[32,32]")
    return folder, subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_train_on_a_folder_of_odd_pictures_leaves_all_that_was_promised(trained):
    folder, done = trained
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stderr and "broken.png" in done.stderr
    assert "report.html" in done.stdout and "psnr" in done.stdout
    for name in (
        "config.json",
        "model.safetensors",
        "metrics.json",
        "metrics.jsonl",
        "README.md",
        "report.html",
        "recipe.yaml",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert list((folder / "samples").glob("*.png")) and list(
        (folder / "tensorboard").glob("events*")
    )
    assert not (folder / "checkpoint").exists() and not list(folder.rglob("*.tmp"))
    assert "\r" not in done.stderr, "a pipe gets plain lines"


def test_evaluate_writes_the_figures_that_were_promised(run_folder, tmp_path):
    done = vqkit("evaluate", run_folder, "emoji", "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    names = {"psnr", "ssim", "ciede2000", "usage", "perplexity", "bits_per_item", "items"}
    assert names <= figures.keys()
    stored = json.loads((run_folder / "metrics.json").read_text())
    assert figures["items"] == stored["items"] == 149 and figures["bits_per_item"] == 64 * 6
    for name in ("psnr", "ssim", "ciede2000", "usage", "perplexity"):
        assert figures[name] == pytest.approx(stored[name], rel=1e-4), name


def test_evaluate_on_other_pictures_with_every_split(trained, pictures, tmp_path):
    done = vqkit("evaluate", trained[0], pictures, "--split", "all", "--json", tmp_path / "f.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "f.json").read_text())["items"] == 67


def test_reconstruct_keeps_sizes_skips_bad_files_and_overwrites_nothing(
    run_folder, model, pictures, tmp_path
):
    out = tmp_path / "out"
    files = [pictures / "003.png", pictures / "sub", pictures / "broken.png"]
    done = vqkit("reconstruct", run_folder, *files, "--out", out)
    assert done.returncode == 1 and "broken.png" in done.stderr and "Traceback" not in done.stderr
    assert {path.name for path in out.iterdir()} == {
        f"{name}.png"
        for name in ("003", "photo", "print", "palette", "grey", "alpha", "deep", "turned")
    }
    for name, source in (("003", "003.png"), ("turned", "sub/turned.jpg")):
        original = load_image(pictures / source)
        found = load_image(out / f"{name}.png")
        assert found.shape == original.shape
        assert np.array_equal(found, model.reconstruct(original))
    before = (out / "003.png").read_bytes()
    vqkit("reconstruct", run_folder, pictures / "003.png", "--out", out)
    assert (out / "003.png").read_bytes() == before and (out / "003-2.png").exists()


def test_an_image_that_is_half_written_is_not_left(run_folder, pictures, tmp_path, monkeypatch):
    def half(self, content):
        with open(self, "wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    command = ["reconstruct", str(run_folder), str(pictures / "003.png"), "--out", str(tmp_path)]
    assert cli.main(command) == 130
    assert not list(tmp_path.iterdir())


def test_names_that_are_no_text_are_shown_as_far_as_they_can_be(
    run_folder, pictures, tmp_path, monkeypatch
):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes((pictures / "003.png").read_bytes())
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr("sys.stdout", printed)
    assert (
        cli.main(
            ["reconstruct", str(run_folder), str(tmp_path / name), "--out", str(tmp_path / "out")]
        )
        == 0
    )
    printed.flush()
    assert b"caf\\udce9.png" in printed.buffer.getvalue()


def test_a_sample_sheet_takes_any_name_and_overwrites_nothing(tmp_path, capsys):
    sheet = tmp_path / "sheet"
    for _ in range(2):
        assert cli.main(["data", "digits", "--sheet", str(sheet)]) == 0
    assert capsys.readouterr().out.endswith("sheet-2\n")
    assert (tmp_path / "sheet-2").read_bytes() == sheet.read_bytes()


def test_info_recipes_and_data(run_folder, model, pictures, tmp_path):
    info = vqkit("info", run_folder)
    assert "8x8 of 6 bits = 384 bits an image" in info.stdout and "codebook_size: 64" in info.stdout
    assert model.compressor.model_id.hex() in info.stdout
    recipes = vqkit("recipes")
    assert "fashion-mnist" in recipes.stdout and "Fashion-MNIST at 441 bits" in recipes.stdout
    copy = tmp_path / "mine.yaml"
    copy.write_text(vqkit("recipes", "emoji").stdout)
    found = vqkit("data", pictures, "--recipe", copy, "--sheet", tmp_path / "sheet.png")
    assert found.returncode == 0, found.stderr
    assert "broken.png" in found.stdout and "CMYK 1" in found.stdout and "I;16 1" in found.stdout
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "emoji"], "--out"),
        (["train", "emoji", "--out", "x", "train.lrr=1"], "unknown key 'lrr', did you mean 'lr'?"),
        (["train", "emoji", "--out", "x", "--resme"], "did you mean '--resume'"),
        (
            ["train", "emoji", "--out", "x", "train.lr=fast"],
            "train.lr: input should be a valid number",
        ),
        (["train", "nowhere", "--out", "x"], "no file or folder 'nowhere'"),
        (["train", "emoji", "--out", "x", "--recipe", "emojy"], "did you mean 'emoji'"),
        (["train", "emoji", "--out", "/proc/x"], "/proc/x"),
        (["train", "emoji", "--out", __file__], "is a file; choose another --out"),
        (["info", "."], "not a vqkit artifact"),
        (["evaluate", ".", "emoji", "--split", "tets"], "did you mean 'test'"),
        (["reconstruct", "nowhere", "a.png", "--out", "x"], "not a vqkit artifact"),
    ],
)
def test_mistakes_get_one_sentence_and_a_non_zero_exit(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line != "loading ..."]
    assert len(errors) == 1 and message in errors[0], errors
    assert not (tmp_path / "x").exists()


def test_debug_shows_the_traceback(tmp_path):
    command = [sys.executable, "-m", "vqkit", "--debug", "info", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_help_and_version():
    assert "reconstruct" in vqkit("--help").stdout
    assert vqkit("--version").stdout.startswith("vqkit 0.")
    assert "key.subkey=value" in vqkit("train", "--help").stdout
