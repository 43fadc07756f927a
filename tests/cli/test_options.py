"""What the options of a command become on their way to the function that it calls."""

import argparse
import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from tests.untrained import untrained
from vqkit import cli
from vqkit.apps import inpaint, variations
from vqkit.cli import arguments
from vqkit.errors import VqkitError

VALUES = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)


class Recorder:
    """Stands in for a function: keeps what it was called with and gives `result`."""

    def __init__(self, result=None):
        self.result = result

    def __call__(self, *given, **named):
        self.given, self.named = given, named
        return self.result


@pytest.mark.parametrize(
    ("module", "name", "words", "paths"),
    [
        (
            "vqkit.pipelines.autoencoder",
            "train",
            ["train", "images", "--out", "model"],
            ("images", "model"),
        ),
        (
            "vqkit.pipelines.prior",
            "train_prior",
            ["train-prior", "model", "images"],
            ("model", "images"),
        ),
        (
            "vqkit.pipelines.pairs",
            "train_pairs",
            ["pairs", "model", "bytes", "images", "--out", "both"],
            ("model", "bytes", "images", "both"),
        ),
    ],
)
def test_all_commands_that_train_take_the_same_options(
    module, name, words, paths, monkeypatch, capsys
):
    train = Recorder()
    monkeypatch.setattr(f"{module}.{name}", train)
    assert (
        cli.main(
            [*words, "a.b=1", "--recipe", "mine.yaml", "--resume", "--minutes", "2.5", "train.lr=2"]
        )
        == 0
    )
    assert train.given == (*paths, "mine.yaml", ["a.b=1", "train.lr=2"])
    assert train.named["resume"] is True and train.named["display"] is not None
    assert train.named["minutes"] == 2.5 and train.named["started"] == arguments.STARTED
    assert cli.main(words) == 0
    assert (
        train.given == (*paths, None, [])
        and train.named["resume"] is False
        and train.named["minutes"] is None
    )
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["loading ..."] * 2 and not printed.out, (
        "other ranks have nothing to show"
    )


def test_only_the_first_rank_announces(monkeypatch, capsys):
    monkeypatch.setattr("vqkit.pipelines.autoencoder.train", Recorder())
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["train", "images", "--out", "model"]) == 0
    assert not capsys.readouterr().err


@pytest.fixture
def anew(tmp_path, monkeypatch):
    """Runs a command on a black image with a recorder in place of the app; gives what the app was
    called with.
    """
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    mask = Image.new("L", (8, 8))
    for place in range(8):
        mask.putpixel((place, place), 255)
    mask.save(tmp_path / "mask.png")
    model = untrained()
    monkeypatch.setattr(arguments, "load_model", lambda folder, device: model)
    monkeypatch.chdir(tmp_path)

    def run(module, name, result, *options):
        app = Recorder(result)
        monkeypatch.setattr(module, name, app)
        assert (
            cli.main([name, "model", "image.png", "--out", "out.png", "--seed", "7", *options]) == 0
        )
        assert app.given[0] is model and torch.equal(app.given[1], VALUES[0])
        assert app.named["drawing"].seed == 7 and callable(app.named["progress"])
        assert (tmp_path / "out.png").exists()
        return app

    return run


def test_inpaint(anew):
    app = anew(
        inpaint,
        "inpaint",
        SimpleNamespace(values=VALUES),
        "--mask",
        "mask.png",
        "--num",
        "2",
        "--blend",
        "5",
    )
    assert torch.equal(app.given[2], torch.eye(8, dtype=torch.bool)) and len(app.given) == 3
    assert app.named["num"] == 2 and app.named["blend"] == 5


def test_outpaint(anew):
    app = anew(inpaint, "outpaint", SimpleNamespace(values=VALUES), "--expand", "3")
    assert app.given[2:] == (3,) and app.named["num"] == 1 and app.named["blend"] is None


def test_variations(anew):
    app = anew(variations, "variations", VALUES, "--strength", "0.5")
    assert len(app.given) == 2 and app.named["num"] == 8 and app.named["strength"] == 0.5


# ------------------------------------------------------------------------------- numbers in options


def numeric_options():
    """Every option of every command that becomes a number, by its type or its default."""
    (commands,) = [
        one for one in cli.build_parser()._actions if isinstance(one, argparse._SubParsersAction)
    ]
    for verb, parser in commands.choices.items():
        for action in parser._actions:
            is_number = isinstance(action.default, int | float) and not isinstance(
                action.default, bool
            )
            if action.type is not None or is_number:
                yield pytest.param(parser, action, id=f"{verb} {action.option_strings[0]}")


def refused(parser, action, text):
    try:
        parser._get_value(action, text)
    except argparse.ArgumentError as error:
        return "\n" not in str(error)
    except VqkitError as error:
        return "\n" not in str(error)
    return False


@pytest.mark.parametrize(("parser", "action"), list(numeric_options()))
def test_numbers_are_finite_and_in_range_or_refused(parser, action):
    assert action.type is not None, "a number without a type is never checked"
    for text in (
        "nan",
        "-nan",
        "inf",
        "-inf",
        "infinity",
        "1e999",
        "-1e999",
        "",
        "x",
        "0x10",
        "1,2,3",
        "9" * 5000,
    ):
        assert refused(parser, action, text), text
    number = arguments.SHARE if "interval" in action.dest else action.type
    if not isinstance(number, arguments.Number):
        return
    assert number.low > -1e9, "every option has a least value"
    below = number.low if number.above else number.low - 1
    assert refused(parser, action, str(number.kind(below)))
    if number.high < 1e300:
        assert refused(parser, action, str(number.kind(number.high) + 1))
    if number.kind is int:
        assert refused(parser, action, "1.5")


def test_options_that_are_numbers_are_found():
    """The test above is of many."""
    found = {param.id for param in numeric_options()}
    assert len(found) > 30
    assert {
        "train --minutes",
        "generate --cfg",
        "denoise --sigma",
        "restyle --weights",
        "prune --tolerance",
    } <= found
    assert not [name for name in found if not re.fullmatch(r"[a-z-]+ --[a-z-]+", name)]
