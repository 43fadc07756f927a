"""Folders of runs: one process alone writes to each, and a run goes on with its own settings."""

import json
import os
import signal
import subprocess
import sys

import pytest

import vqkit
from tests.conftest import TINY
from vqkit.config.loading import load
from vqkit.errors import VqkitError
from vqkit.files import _HOST
from vqkit.pipelines.session import (
    LOCK_FILE,
    RECIPE_FILE,
    begun,
    check_unlocked,
    locked,
    recipe_remarks,
)
from vqkit.settings import Config
from vqkit.training.progress import Silent

SHORT = [*TINY, "train.steps=2", "data.image_size=[16,16]"]
# Holds a folder's lock until its input ends.
HOLD = """
import sys
from pathlib import Path
from vqkit.pipelines.session import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


class Notes(Silent):
    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("losses.perceptual_distance=features", "needs a network for images"),
        ("adversary.num_layers=5", "set 1 or fewer"),
        ("train.strategy=fsdp2", "start it with torchrun"),
    ],
)
def test_settings_that_are_refused_late_leave_the_folder_to_better_ones(
    few_images, tmp_path, monkeypatch, setting, told
):
    monkeypatch.setattr("vqkit.signals.image.perceptual.has_features", lambda: False)
    settings = [*SHORT, "coder.steps=0", "adversary.kind=patch", "losses.perceptual=1"]
    folder = tmp_path / "run"
    with pytest.raises(VqkitError, match=told):
        vqkit.train(few_images, folder, "emoji", [*settings, setting])
    assert not list(folder.iterdir())
    assert vqkit.train(few_images, folder, "emoji", settings).metrics["step"] == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, VqkitError])
def test_a_run_that_has_begun_keeps_its_settings(tmp_path, error):
    """Whatever ends it; before that, they are taken away."""
    config = load("emoji", (), Config)
    for name, is_kept in (("early", False), ("late", True)):
        folder = tmp_path / name
        with pytest.raises(error), begun(folder, config):
            if is_kept:
                (folder / "metrics.jsonl").touch()
            raise error
        assert (folder / RECIPE_FILE).exists() == is_kept


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path / "run"."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_is_refused_at_once_with_owner_and_time(holder, tmp_path):
    folder = tmp_path / "run"
    owner = json.loads((folder / LOCK_FILE).read_text())
    assert owner["pid"] == holder.pid
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    tries = [
        lambda: vqkit.train("emoji", folder, overrides=TINY),
        lambda: vqkit.train("emoji", folder, resume=True),
        lambda: check_unlocked(folder),
        lambda: locked(folder).__enter__(),
    ]
    for one in tries:
        with pytest.raises(
            VqkitError, match=f"is being written by process {holder.pid} "
        ) as caught:
            one()
        assert owner["since"] in str(caught.value) and "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_lock_of_a_dead_process_is_taken_over_and_said(holder, tmp_path):
    folder = tmp_path / "run"
    half = folder / f".model.safetensors.{_HOST}.{holder.pid}.tmp"
    half.write_bytes(b"half")
    alive = folder / f".model.safetensors.{_HOST}.{os.getppid()}.tmp"
    alive.write_bytes(b"of another process")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    notes = Notes()
    with locked(folder, notes):
        assert json.loads((folder / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert len(notes.messages) == 1 and f"process {holder.pid} " in notes.messages[0]
    assert not half.exists() and alive.exists() and not (folder / LOCK_FILE).exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff" * 100, b"0" * 10_000]
)
def test_a_lock_without_an_owner_is_no_obstacle(tmp_path, content):
    (tmp_path / LOCK_FILE).write_bytes(content)
    check_unlocked(tmp_path)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, few_images):
    """A run that was stopped after its first checkpoint."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:

        def interrupted(*given, **named):
            raise KeyboardInterrupt

        patch.setattr("vqkit.pipelines.autoencoder.fit_coders", interrupted)
        with pytest.raises(KeyboardInterrupt):
            vqkit.train(few_images, folder, "emoji", SHORT)
    return folder


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("emoji", [*SHORT, "train.steps=3"], "steps: 3"),
        ("emoji", [], "differ"),
        ("images", SHORT, "differ"),
        (None, ["train.lr=0.5"], "lr: 0.5"),
        (None, ["model.quantizer.kind=fsq"], "kind: fsq"),
    ],
)
def test_other_settings_are_refused_on_resuming(stopped, few_images, recipe, overrides, message):
    with pytest.raises(VqkitError, match=message) as caught:
        vqkit.train(few_images, stopped, recipe, overrides, resume=True)
    assert "start a new run" in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_goes_on_with_its_own_settings_repeated(stopped, few_images):
    model = vqkit.train(few_images, stopped, "emoji", SHORT, resume=True)
    assert model.config == load("emoji", SHORT, Config)
    with pytest.raises(VqkitError, match="is finished: nothing to resume"):
        vqkit.train(few_images, stopped, "emoji", SHORT, resume=True)
    with pytest.raises(VqkitError, match="is not empty"):
        vqkit.train(few_images, stopped, "emoji", SHORT)


def test_a_run_that_goes_on_still_says_why_it_has_its_settings(tmp_path, monkeypatch):
    def interrupted(*given, **named):
        raise KeyboardInterrupt

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("vqkit.pipelines.autoencoder.fit_coders", interrupted)
        with pytest.raises(KeyboardInterrupt):
            vqkit.train("emoji", folder, None, [*TINY, "train.steps=2", "coder.steps=0"])
    before = recipe_remarks(folder)
    assert [line.partition(":")[0] for line in before] == ["chosen", "because"]
    vqkit.train("emoji", folder, resume=True)
    assert recipe_remarks(folder) == before
    assert all(line in (folder / "report.html").read_text() for line in before)
