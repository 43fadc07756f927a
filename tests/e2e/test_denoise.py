"""`vqkit train --recipe denoise`, then `vqkit denoise`, through the real entry point."""

import numpy as np
import pytest
import torch
from PIL import Image

import vqkit
from vqkit import cli
from vqkit.apps.denoise import denoise
from vqkit.config.loading import load
from vqkit.settings import Config
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.files import load_image
from vqkit.signals.image.source import open_images

SMALL = [
    "data.image_size=[16,16]",
    "model.network.width=16",
    "train.steps=20",
    "train.max_minutes=null",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("denoise") / "run"
    assert (
        cli.main(
            ["train", "emoji", "--recipe", "denoise", "--out", str(out), *SMALL, "coder.steps=0"]
        )
        == 0
    )
    return out


@pytest.fixture
def noisy(tmp_path):
    """An image, one in grey that is wider and smaller than a tile, and one that is none."""
    files = tmp_path / "noisy"
    files.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (33, 41, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(files / "a.png")
    Image.fromarray(pixels[:1, :9, 0]).save(files / "b.png")
    (files / "c.png").write_bytes(b"no image")
    return files


def test_a_folder_of_pictures(folder, noisy, tmp_path, capsys):
    out, sheet = tmp_path / "clean", tmp_path / "sheet.png"
    command = ["denoise", str(folder), str(noisy), "--out", str(out), "--sheet", str(sheet)]
    assert cli.main(command) == 1  # c.png
    said = capsys.readouterr()
    assert "skipped: cannot read" in said.err and said.out.count("of 4 levels") == 2
    model = vqkit.load(folder)
    (values,) = model.to_values(noisy / "a.png")
    expected = denoise(model, values).values
    assert np.array_equal(load_image(out / "a.png"), expected.permute(1, 2, 0))
    assert load_image(out / "b.png").shape == (1, 9, 3) and sheet.exists()
    assert cli.main([*command, "--continuous"]) == 1
    assert {path.name for path in out.iterdir()} == {"a.png", "a-2.png", "b.png", "b-2.png"}


def test_mistakes_get_one_sentence(folder, noisy, tmp_path, capsys):
    wrong = []
    for options, message in [
        (["--levels", "9"], "this model has 4"),
        (["--strength", "2"], "2 is not a number from 0 up to 1"),
        (["--sigma", "much"], "neither auto nor a number"),
    ]:
        status = cli.main(
            ["denoise", str(folder), str(noisy / "a.png"), "--out", str(tmp_path / "o"), *options]
        )
        said = capsys.readouterr().err
        wrong += (
            []
            if status == 2 and message in said and said.count("\n") == 1
            else [(options, status, said)]
        )
    assert not wrong and not (tmp_path / "o").exists()


def test_figures_say_how_much_noise_goes(folder):
    found = vqkit.load(folder).metrics["denoised"]
    assert set(found) == {"sigma 15", "sigma 25", "sigma 50"}
    noisy = [found[name]["noisy"] for name in found]
    assert noisy == sorted(noisy, reverse=True) and noisy[1] == pytest.approx(
        20.3, abs=1.5
    )  # 20 log10(255 / 25)


def test_report_and_card_show_noisy_pictures(folder):
    assert "Noisy, then denoised" in (folder / "report.html").read_text()
    card = (folder / "README.md").read_text()
    assert "samples/denoised.png" in card and "vqkit denoise" in card
    sheet = np.asarray(Image.open(folder / "samples" / "denoised.png").convert("RGB")).astype(float)
    scale = 3  # of 32 pixels
    noisy, denoised = (
        sheet[6 : 6 + 32 * scale : scale],
        sheet[8 + 32 * scale : 8 + 64 * scale : scale],
    )
    steps = [
        np.abs(np.diff(half[:, 6 : 6 + 32 * scale : scale], axis=1)).mean()
        for half in (noisy, denoised)
    ]
    assert steps[0] > 1.5 * steps[1]  # the rougher half is above


def test_noise_is_the_same_for_any_number_of_ranks_and_after_a_resume():
    config = load("denoise", [*SMALL, "train.batch_size=8"], Config)
    assert isinstance(config.data, DataConfig)
    data = open_images("emoji", config.data, 0)
    batches = data.train(0, 8, seed=0)
    steps = [next(batches) for _ in range(3)]
    resumed = next(data.train(2, 8, seed=0))
    ranks = [next(data.train(2, 8, seed=0, rank=rank, ranks=2)) for rank in range(2)]
    for part in ("values", "target"):
        whole = getattr(steps[2], part)
        assert getattr(resumed, part).equal(whole)
        assert torch.cat([getattr(rank, part) for rank in ranks]).equal(whole)
    assert not steps[0].values.equal(steps[0].target)
    first, again = (next(iter(data.validation(8, seed=0))) for _ in range(2))
    assert first.values.equal(again.values)
