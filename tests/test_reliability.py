"""What killed processes leave behind, and files of an artifact that are not what they say."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vqkit.artifact.coder_files import coding_id_of
from vqkit.artifact.store import load_artifact
from vqkit.artifact.tensor_files import read_tensors
from vqkit.config import load
from vqkit.errors import VqkitError
from vqkit.files import write_folder, write_text
from vqkit.settings import Config
from vqkit.signals.registry import signal_of
from vqkit.training.loop import fit
from vqkit.training.tasks.autoencoder import AutoencoderTask

from .conftest import TINY

MODEL = Path(__file__).parent / "golden" / "emoji-model"
# Writes a part of a file or a folder and waits.
WRITER = """
import sys, time
from pathlib import Path
from vqkit.files import {function}
def write(path):
    {write}
    print("there", flush=True)
    time.sleep(60)
{function}(Path(sys.argv[1]), write)
"""
WRITERS = {
    "write_whole": "path.write_text('half')",
    "write_folder": "path.mkdir(); (path / 'half').write_text('half')",
}


def writing(target: Path, function: str) -> subprocess.Popen:
    """A process that is in the midst of writing."""
    code = WRITER.format(function=function, write=WRITERS[function])
    process = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"there\n"
    return process


@pytest.mark.parametrize("function", WRITERS)
def test_what_a_killed_process_was_writing_goes_and_what_a_living_one_writes_stays(
    function, tmp_path
):
    with (
        writing(tmp_path / "killed", function) as killed,
        writing(tmp_path / "living", function) as living,
    ):
        assert len(list(tmp_path.iterdir())) == 2
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        write_text(tmp_path / "next", "whole")
        names = sorted(path.name for path in tmp_path.iterdir())
        living.kill()
        assert names[1:] == ["next"] and str(living.pid) in names[0]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "target"

    def write(folder: Path, fails: bool) -> None:
        folder.mkdir()
        (folder / "one").write_text("one")
        assert not target.exists() or not list(target.iterdir())
        if fails:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder(target, lambda folder: write(folder, fails=True))
    assert not list(tmp_path.iterdir())
    # An empty folder that waits for it is taken.
    target.mkdir()
    write_folder(target, lambda folder: write(folder, fails=False))
    assert [path.name for path in target.iterdir()] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def test_a_replaced_coder_in_the_place_of_its_successor_is_told(model):
    shutil.copyfile(
        model / "coder.safetensors",
        model / f"coder-{coding_id_of(model / 'coder.safetensors')}.safetensors",
    )
    (problem,) = load_artifact(model).problems
    assert "the coder that replaced it is gone" in problem


def test_a_coder_under_the_name_of_another_is_told(model):
    shutil.copyfile(model / "coder.safetensors", model / "coder-0011223344556677.safetensors")
    (problem,) = load_artifact(model).problems
    assert "was replaced" in problem


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float16, torch.bfloat16, torch.float64, torch.complex64]
)
def test_tensors_of_kinds_that_are_never_written_are_refused(dtype, tmp_path):
    save_file({"a": torch.ones(3).to(dtype)}, tmp_path / "a.safetensors", {"key": "value"})
    with pytest.raises(VqkitError, match="which vqkit never writes"):
        read_tensors(tmp_path / "a.safetensors", 1000, frozenset({"key"}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(value, tmp_path):
    save_file({"a": torch.tensor([1.0, value])}, tmp_path / "a.safetensors", {"key": "value"})
    with pytest.raises(VqkitError, match="not finite"):
        read_tensors(tmp_path / "a.safetensors", 1000, frozenset({"key"}))


def test_a_fit_without_time_for_a_step_is_measured(tmp_path, emoji):
    config = load("emoji", TINY, Config)
    task = AutoencoderTask(emoji, config, signal_of(config.data))
    finished = fit(task, tmp_path / "run", deadline=time.monotonic() - 1)
    assert finished is not None and finished.figures["step"] == 0
    assert [row["split"] for row in finished.history] == ["validation"]
    assert os.listdir(tmp_path / "run" / "checkpoint")
