"""What the options of a command become on their way to the function that it calls."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vqkit import cli
from vqkit.apps import inpaint, variations
from vqkit.cli import priors

IMAGES = np.zeros((2, 8, 8, 3), np.uint8)


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
        ("vqkit.run", "train", ["train", "pictures", "--out", "model"], ("pictures", "model")),
        ("vqkit.run_prior", "train_prior", ["train-prior", "model", "pictures"], ("model", "pictures")),
    ],
)
def test_both_commands_that_train_take_the_same_options(module, name, words, paths, monkeypatch, capsys):
    train = Recorder()
    monkeypatch.setattr(f"{module}.{name}", train)
    assert cli.main([*words, "a.b=1", "--recipe", "mine.yaml", "--resume", "train.lr=2"]) == 0
    assert train.given == (*paths, "mine.yaml", ["a.b=1", "train.lr=2"])
    assert train.named["resume"] is True and train.named["display"] is not None
    assert cli.main(words) == 0
    assert train.given == (*paths, None, []) and train.named["resume"] is False
    printed = capsys.readouterr()
    assert printed.err.splitlines() == ["loading ..."] * 2 and not printed.out, "other ranks have nothing to show"


def test_only_the_first_rank_announces(monkeypatch, capsys):
    monkeypatch.setattr("vqkit.run.train", Recorder())
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["train", "pictures", "--out", "model"]) == 0
    assert not capsys.readouterr().err


@pytest.fixture
def anew(tmp_path, monkeypatch):
    """Runs a command on a black picture with a recorder in place of the app; gives what the app was called with."""
    Image.fromarray(IMAGES[0]).save(tmp_path / "image.png")
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    artifact = SimpleNamespace(channels=3, config=SimpleNamespace(data=SimpleNamespace(background=(255, 255, 255))))
    monkeypatch.setattr(priors, "_artifact", lambda options: artifact)
    monkeypatch.chdir(tmp_path)

    def run(module, name, result, *options):
        app = Recorder(result)
        monkeypatch.setattr(module, name, app)
        assert cli.main([name, "model", "image.png", "--out", "out.png", "--seed", "7", *options]) == 0
        assert app.given[0] is artifact and np.array_equal(app.given[1], IMAGES[0])
        assert app.named["drawing"].seed == 7 and callable(app.named["progress"])
        assert (tmp_path / "out.png").exists()
        return app

    return run


def test_inpaint(anew):
    app = anew(inpaint, "inpaint", SimpleNamespace(images=IMAGES), "--mask", "mask.png", "--num", "2", "--blend", "5")
    assert np.array_equal(app.given[2], np.eye(8, dtype=bool)) and len(app.given) == 3
    assert app.named["num"] == 2 and app.named["blend"] == 5


def test_outpaint(anew):
    app = anew(inpaint, "outpaint", SimpleNamespace(images=IMAGES), "--expand", "3")
    assert app.given[2:] == (3,) and app.named["num"] == 1 and app.named["blend"] == 2


def test_variations(anew):
    app = anew(variations, "variations", IMAGES, "--strength", "0.5")
    assert len(app.given) == 2 and app.named["num"] == 8 and app.named["strength"] == 0.5
