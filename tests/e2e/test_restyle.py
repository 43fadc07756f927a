"""`vqkit restyle` through the real entry point, on the tiny emoji model."""

import numpy as np
import pytest
from PIL import Image

from vqkit import cli
from vqkit.apps.restyle import METHODS, restyle, restyle_by_pairs


@pytest.fixture(scope="module")
def pictures(emoji, tmp_path_factory):
    """Three emoji as files: a.png, b.png, and c.png in grey and twice as wide."""
    folder = tmp_path_factory.mktemp("images")
    images = emoji.read(emoji.splits["test"][4:7]).values.permute(0, 2, 3, 1).contiguous().numpy()
    for name, image in zip("abc", images, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(images[2]).convert("L").resize((64, 32)).save(folder / "c.png")
    return folder


def test_the_command_says_what_the_app_does_and_overwrites_nothing(
    pictures, run_folder, model, tmp_path, capsys
):
    content, style = str(pictures / "a.png"), str(pictures / "b.png")
    command = [
        "restyle",
        str(run_folder),
        "--content",
        content,
        "--style",
        style,
        "--method",
        "codes",
    ]
    command += ["--alpha", "0.9", "--out", str(tmp_path / "out.png")]
    assert cli.main(command) == 0 and cli.main(command) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out.png"),
        str(tmp_path / "out-2.png"),
    ]
    values, other = model.to_values([content, style])
    expected = restyle(model, values, [other], method="codes", alpha=0.9).permute(1, 2, 0)
    for name in ("out.png", "out-2.png"):
        assert np.array_equal(np.asarray(Image.open(tmp_path / name)), expected)


def test_several_methods_and_styles_at_once_with_a_sheet(pictures, run_folder, tmp_path, capsys):
    styles = [str(pictures / f"{name}.png") for name in "bc"]
    command = [
        "restyle",
        str(run_folder),
        "--content",
        str(pictures / "a.png"),
        "--style",
        *styles,
        "--weights",
        "3",
    ]
    command += [
        "1",
        "--method",
        *METHODS,
        "--out",
        str(tmp_path / "o.png"),
        "--sheet",
        str(tmp_path / "sheet.png"),
    ]
    assert cli.main(command) == 0
    names = {f"o-{method}.png" for method in METHODS} | {"sheet.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert "content, style, style, adain, wct, codes, patches" in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    step = (sheet.shape[1] - 2) // 7  # content, two styles, four methods
    scale = (step - 2) // 32
    for place, path in (
        (0, pictures / "a.png"),
        (3, tmp_path / "o-adain.png"),
        (6, tmp_path / "o-patches.png"),
    ):
        tile = sheet[
            2 : 2 + 32 * scale : scale, 2 + place * step : 2 + place * step + 32 * scale : scale
        ]
        assert np.array_equal(tile, np.asarray(Image.open(path)))


def test_pairs_are_matched_by_name(pictures, emoji, run_folder, model, tmp_path, capsys):
    values = emoji.read(emoji.splits["train"][:6]).values
    images = values.permute(0, 2, 3, 1).contiguous().numpy()
    for folder, first in (("before", 0), ("after", 3)):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.fromarray(images[first + number]).save(tmp_path / folder / f"{number}.png")
    content = pictures / "a.png"
    command = [
        "restyle",
        str(run_folder),
        "--content",
        str(content),
        "--style",
        str(tmp_path / "after"),
    ]
    command += ["--before", str(tmp_path / "before"), "--out", str(tmp_path / "out.png")]
    assert cli.main([*command, "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "content, pairs" in capsys.readouterr().out
    expected = restyle_by_pairs(model, model.to_values(content), list(values[:3]), list(values[3:]))
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "out.png")), expected[0].permute(1, 2, 0)
    )
    assert cli.main([*command, "--method", "wct"]) == 2 and "--before" in capsys.readouterr().err
    (tmp_path / "before" / "1.png").rename(tmp_path / "before" / "x.png")
    assert cli.main(command) == 2 and "1.png has no partner" in capsys.readouterr().err


def test_bad_pictures_get_one_sentence(pictures, run_folder, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n of sorts")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    good, wrong = str(pictures / "a.png"), []
    for content, style, message in [
        (good, str(tmp_path / "broken.png"), "cannot read"),
        (good, str(tmp_path / "missing.png"), "there is no such file"),
        (good, str(tmp_path / "red.png"), "one colour"),
    ]:
        command = ["restyle", str(run_folder), "--content", content, "--style", style]
        status = cli.main([*command, "--out", str(tmp_path / "out.png")])
        said = capsys.readouterr().err
        wrong += (
            []
            if status == 2 and message in said and said.count("\n") == 1
            else [(style, status, said)]
        )
    assert not wrong and not (tmp_path / "out.png").exists()


def test_the_commands_methods_are_the_apps():
    assert tuple(METHODS) == cli.restyling.METHODS
