"""`vqkit data`, and what training keeps of how images were read."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vqkit
from vqkit import cli
from vqkit.cli.arguments import read_item
from vqkit.cli.priors import _classes
from vqkit.errors import VqkitError

from ..conftest import TINY


def write_noise(folder: Path, count: int, high: int = 255, kind: type = np.uint8) -> None:
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for number in range(count):
        values = random.integers(0, high + 1, (32, 32)).astype(kind)
        Image.fromarray(values).save(folder / f"{number:03}.png")


def printed(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert cli.main([str(word) for word in words]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.fixture
def half_bad(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    write_noise(folder, 60)
    for number in range(30):
        path = folder / f"{number:03}.png"
        path.write_bytes(path.read_bytes()[: 0 if number % 2 else 200])
    return folder


def test_all_bad_files_are_listed_with_reasons(half_bad: Path, tmp_path: Path, capsys) -> None:
    text = printed(
        capsys, "data", half_bad, "data.image_size=[32,32]", "--sheet", tmp_path / "sheet.png"
    )
    assert "bad files      30" in text and "refused until" in text
    for number in range(30):
        line = next(line for line in text.splitlines() if f"{number:03}.png:" in line)
        assert ("not an image" in line) == bool(number % 2) and line.partition(":")[2].strip()


def test_they_are_listed_where_nothing_can_be_opened(
    half_bad: Path, tmp_path: Path, capsys
) -> None:
    """With sizes that differ, too few images, or none that is whole."""
    Image.new("L", (9, 9)).save(half_bad / "small.png")
    text = printed(capsys, "data", half_bad, "data.image_size=null", code=2)
    assert text.count(".png: ") >= 30 and "different sizes" in text
    for path in half_bad.iterdir():
        path.write_bytes(b"no")
    text = printed(capsys, "data", half_bad, code=2)
    assert "bad files      61" in text and all(f"{number:03}.png:" in text for number in range(60))


def test_training_stops_and_says_what_lists_them(half_bad: Path, tmp_path: Path, capsys) -> None:
    text = printed(capsys, "train", half_bad, "--out", tmp_path / "out", *TINY, code=2)
    assert "of 60 files of" in text and f"'vqkit data {half_bad}' lists all of them" in text


def test_how_images_are_read_is_printed(tmp_path: Path, capsys) -> None:
    sheet = tmp_path / "sheet.png"
    write_noise(tmp_path / "deep", 30, 4095, np.uint16)
    text = printed(capsys, "data", tmp_path / "deep", "data.image_size=[32,32]", "--sheet", sheet)
    assert "value_range    0 to 4095" in text and "data.value_range=[low, high]" in text
    text = printed(
        capsys,
        "data",
        tmp_path / "deep",
        "data.image_size=[32,32]",
        "data.value_range=[0, 2000]",
        "--sheet",
        sheet,
    )
    assert "value_range    0 to 2000" in text and "as set" in text
    np.save(
        tmp_path / "x.npy",
        np.random.default_rng(0).integers(0, 256, (40, 3, 20, 24), dtype=np.uint8),
    )
    text = printed(capsys, "data", tmp_path / "x.npy", "data.image_size=null", "--sheet", sheet)
    assert "shape (40, 3, 20, 24) is read as NCHW, 40 images of 24x20 pixels" in text
    pages = [Image.new("L", (32, 32), value) for value in range(5)]
    for number in range(20):
        pages[number % 5].save(tmp_path / f"{number}.tif", save_all=True, append_images=pages)
    text = printed(capsys, "data", tmp_path, "--sheet", sheet)
    assert "20 files hold 120 images; the first of each is used, data.frames=all" in text
    assert "images have the pixels of another one" in text


def test_a_model_keeps_the_range_that_it_was_trained_with(tmp_path: Path, capsys) -> None:
    folder, out = tmp_path / "deep", tmp_path / "model"
    write_noise(folder, 40, 4095, np.uint16)
    text = printed(
        capsys, "train", folder, "--out", out, *TINY, "coder.steps=0", "data.image_size=[32,32]"
    )
    assert "values from 0 to 4095 become black to white" in text
    assert json.loads((out / "config.json").read_text())["data"]["value_range"] == [0, 4095]
    model = vqkit.load(out)
    # A dark file alone is as dark as it was among the others.
    dark = np.full((32, 32), 1024, np.uint16)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    assert (read_item(model, tmp_path / "dark.png") == 64).all()
    with Image.open(tmp_path / "dark.png") as image:
        eight_bits = Image.fromarray(np.full((32, 32), 64, np.uint8))
        assert model.encode(image).equal(model.encode(eight_bits))
    Image.fromarray(np.full((32, 32), 60000, np.uint16)).save(tmp_path / "other.png")
    text = printed(
        capsys, "reconstruct", out, tmp_path / "other.png", "--out", tmp_path / "back", code=1
    )
    assert "100% of them lie outside of the range 0 to 4095" in text


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("cat", ["cat"]),
        ("cat,dog", ["cat", "dog"]),
        (" cat , big dog ,", ["cat", "big dog"]),
        ('"red, small",blue', ["red, small", "blue"]),
        ('blue , "red, small" ', ["blue", "red, small"]),
        ('" cat "', [" cat "]),
        ('5" pipe,x', ['5" pipe', "x"]),
        ('"""quoted"""', ['"quoted"']),
        ('"a\nb",c', ["a\nb", "c"]),
        ("", []),
        (None, []),
    ],
)
def test_classes_of_any_name(given: str | None, names: list[str]) -> None:
    assert _classes(Namespace(classes=given if given is None else [given])) == names


def test_several_options_are_several_names() -> None:
    assert _classes(Namespace(classes=["cat,dog", '"red, small"'])) == ["cat", "dog", "red, small"]


def test_every_name_can_be_quoted() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        names = [
            "".join(random.choice(list("a\", \n'é"), size=random.integers(1, 6))) for _ in range(3)
        ]
        given = ",".join('"' + name.replace('"', '""') + '"' for name in names)
        assert _classes(Namespace(classes=[given])) == names


def test_an_open_quote_is_an_error() -> None:
    for given in ('"red, small', 'blue,"red'):
        with pytest.raises(VqkitError, match="ends with one"):
            _classes(Namespace(classes=[given]))
