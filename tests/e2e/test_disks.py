"""Full disks and folders that cannot be written, for root too and for anyone else."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import vqkit

from ..conftest import TINY
from ..processes import run

SMALL = [
    *(setting for setting in TINY if "optimizer" not in setting),
    "train.steps=4",
    "train.batch_size=8",
    "train.validate_every=2",
    "train.checkpoint_every=2",
    "train.log_every=1",
    "train.optimizer=adamw",
    "model.network.width=16",
    "coder.steps=2",
    "data.image_size=[16,16]",
]
PRIOR = [
    "train.steps=2",
    "train.batch_size=8",
    "train.checkpoint_every=1",
    "train.validate_every=1",
    "train.log_every=1",
    "train.precision=float32",
    "network.width=16",
    "network.num_heads=2",
    "network.num_blocks=1",
]
# Bytes that can still be written: the first are not enough for anything, the last for everything.
# Between them it ends at the recipe, the log, a checkpoint, images or the report.
FREE = (100, 8_000, 150_000, 600_000, 14_000_000)


@pytest.fixture(scope="module")
def model(shared, few_images) -> Path:
    """A small artifact with coders."""
    return shared(
        "strained", lambda folder: vqkit.train(few_images, folder, "emoji", overrides=SMALL)
    )


def strained(kind: str, model: Path, work: Path, commands: list) -> dict:
    """What `strained.py` found; the artifact lies beside the folder that it works in."""
    work.mkdir()
    (work.parent / "model").symlink_to(model)
    (work.parent / "commands.json").write_text(json.dumps(commands))
    done = run(["-m", "tests.e2e.strained", kind, work])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_full_disk_is_one_sentence_with_the_file_and_the_artifact_stays_whole(
    model, few_images, tmp_path
):
    """On a real file system where mounting one is allowed, else by a limit on the size of files."""
    verbs = {
        "train-prior": ["train-prior", "model", str(few_images), *PRIOR],
        "train-coder": ["train-coder", "model", str(few_images), "--force", "--steps", "2"],
    }
    commands = [(free, words) for words in verbs.values() for free in FREE]
    before = vqkit.load(model)
    files = set()
    for (free, words), found in zip(
        commands, strained("tiny", model, tmp_path / "work", commands)["found"], strict=True
    ):
        told = f"{words[0]} with {free} bytes: {found}"
        if free in (FREE[0], FREE[-1]):
            assert found["code"] == (2 if free == FREE[0] else 0), told
        assert found["content_id"] == before.content_id, told
        assert found["coders"] == [True, True] and not found["problems"], told
        assert not found["leftovers"], told
        if found["code"]:
            assert found["code"] == 2, told
            said = found["said"].strip().splitlines()[-1]
            assert said.startswith("vqkit: cannot ") and " model/" in said, told
            assert "No space left" in said or "File too large" in said, told
            assert "Traceback" not in found["said"], told
            files.add(said.split(" model/")[1].split(":")[0])
        else:
            assert found["has_prior"] == (words[0] == "train-prior"), told
    assert len(files) > 3, "the disk was full at different moments"


def test_folders_that_cannot_be_written_are_named_and_can_be_read(
    model, few_images, photo, tmp_path
):
    locked = tmp_path / "locked"
    locked.mkdir()
    copied = locked / "model"
    subprocess.run(["cp", "-r", str(model), str(copied)], check=True)
    writing = [
        ["train", few_images, "--out", locked / "new", *SMALL],
        ["train", few_images, "--out", locked / "empty", *SMALL],
        ["train-prior", copied, few_images, *PRIOR],
        ["train-coder", copied, few_images, "--force", "--steps", "2"],
        ["compress", copied, photo, "--out", locked / "x.vq"],
        ["reconstruct", copied, photo, "--out", locked / "x.png"],
        ["evaluate", copied, few_images, "--json", locked / "x.json"],
    ]
    reading = [
        ["info", copied],
        ["evaluate", copied, few_images],
        ["compress", copied, photo, "--out", tmp_path / "x.vq"],
        ["reconstruct", copied, photo, "--out", tmp_path / "x.png"],
    ]
    (locked / "empty").mkdir()
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    folders = [locked, *(path for path in locked.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        commands = [(0, list(map(str, words))) for words in writing + reading]
        found = strained("read-only", model, tmp_path / "work", commands)["found"]
    finally:
        for path in folders:
            path.chmod(0o755)
    for words, one in zip(writing, found[: len(writing)], strict=True):
        said = one["said"].strip().splitlines()
        assert one["code"] == 2 and "Traceback" not in one["said"], (words, one)
        assert str(locked) in said[-1] and "Permission denied" in said[-1], (words, one)
    for words, one in zip(reading, found[len(writing) :], strict=True):
        assert one["code"] == 0, (words, one)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in locked.iterdir()) == ["empty", "model"]
