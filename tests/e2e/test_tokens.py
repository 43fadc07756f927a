"""The verbs tokenize and tokens, from images to files of tokens and back."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.untrained import PATCH, untrained
from vqkit.artifact.store import save_artifact

from .test_cli import vqkit


@pytest.fixture(scope="module")
def model():
    return untrained()


@pytest.fixture(scope="module")
def work(model, photo, tmp_path_factory):
    """A model and images of two sizes with captions, one of them broken, and their tokens."""
    folder = tmp_path_factory.mktemp("work")
    save_artifact(model.artifact, folder / "model")
    (folder / "images").mkdir()
    with Image.open(photo) as image:
        for number in range(5):
            side = 20 if number else 27
            part = image.convert("RGB").crop((9 * number, 0, 9 * number + side, 16))
            part.save(folder / "images" / f"{number}.png")
            (folder / "images" / f"{number}.txt").write_text(f"caption {number}")
    (folder / "images" / "broken.png").write_bytes(b"no image")
    done = vqkit("tokenize", folder / "model", folder / "images", "--out", folder / "tokens")
    assert done.returncode == 1, done.stderr
    assert "skipped: broken.png: not an image" in done.stderr
    assert "5, and 1 skipped" in done.stdout and "4 of 16 codes" in done.stdout
    return folder


def materialized(work, out, *words):
    done = vqkit("tokens", "materialize", work / "tokens", "--out", out, *words)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("order", ["raster", "coarse-first", "delay"])
def test_an_item_comes_back_as_the_model_shows_it(model, work, tmp_path, order):
    materialized(work, tmp_path / "ds", "--to", "bin16", "--order", order, "--base", 1000)
    for number in (0, 3):
        target = tmp_path / f"{number}.png"
        done = vqkit("tokens", "decode", tmp_path / "ds", "--item", number, "--out", target)
        assert done.returncode == 0, done.stderr
        assert f"{number}.png" in done.stdout
        source = work / "images" / f"{number}.png"
        wanted = np.asarray(model.reconstruct(source))
        with Image.open(target) as image:
            assert (np.asarray(image) == wanted).all()
    assert vqkit("tokens", "verify", tmp_path / "ds").returncode == 0
    said = vqkit("tokens", "info", tmp_path / "ds").stdout
    assert "items       5" in said and "codes from 1000 on, bos 1064, eos 1065, pad 1066" in said


def test_ids_that_a_language_model_wrote_are_decoded_or_refused(model, work, tmp_path):
    materialized(work, tmp_path / "ds", "--to", "bin16")
    manifest = json.loads((tmp_path / "ds" / "manifest.json").read_text())
    # The first image is larger; the others have the grid that most items have.
    tokens = np.fromfile(tmp_path / "ds" / "train.bin", np.uint16)
    bos = np.flatnonzero(tokens == manifest["vocabulary"]["special"]["bos"])
    item = tokens[bos[3] : bos[4]]
    ids = tmp_path / "ids.txt"
    ids.write_text(", ".join(map(str, item)))
    words = ("tokens", "decode", tmp_path / "ds", "--ids", ids, "--out")
    assert vqkit(*words, tmp_path / "new.png").returncode == 0
    with Image.open(tmp_path / "new.png") as image:
        shown = np.asarray(image)[:16, :20]
    assert (shown == np.asarray(model.reconstruct(work / "images" / "3.png"))).all()
    for wrong, words_said in (("5 6 7", "tokens, not 3"), ("no ids", "holds no ids")):
        ids.write_text(wrong)
        done = vqkit(*words, tmp_path / "wrong.png")
        assert done.returncode == 2 and words_said in done.stderr
    assert not (tmp_path / "wrong.png").exists()


def test_tokens_with_row_ends_are_decoded_at_the_size_that_they_say(model, work, tmp_path):
    words = ("tokens", "materialize", work / "tokens", "--to", "bin16", "--out")
    assert "do not show how wide" in vqkit(*words, tmp_path / "plain").stderr
    done = vqkit(*words, tmp_path / "ds", "--row-ends")
    assert done.returncode == 0 and "how wide" not in done.stderr and "row_end 67" in done.stdout
    tokens = np.fromfile(tmp_path / "ds" / "train.bin", np.uint16)
    # The first image is larger than most others.
    ids = tmp_path / "ids.txt"
    ids.write_text(" ".join(map(str, tokens[: tokens.tolist().index(65) + 1])))
    target = tmp_path / "new.png"
    done = vqkit("tokens", "decode", tmp_path / "ds", "--ids", ids, "--out", target)
    assert done.returncode == 0, done.stderr
    wanted = np.asarray(model.reconstruct(work / "images" / "0.png"))
    with Image.open(target) as image:
        shown = np.asarray(image)[: wanted.shape[0], : wanted.shape[1]]
    assert (shown == wanted).all()


def test_another_model_than_that_of_the_tokens_is_refused(model, work, tmp_path):
    materialized(work, tmp_path / "ds", "--to", "jsonl", "--text-column", "caption")
    other = untrained(network={**PATCH, "width": 8})
    save_artifact(other.artifact, tmp_path / "other")
    words = ("tokens", "decode", tmp_path / "ds", "--item", 1, "--out", tmp_path / "1.png")
    done = vqkit(*words, "--model", tmp_path / "other")
    assert done.returncode == 2 and "give that one with --model DIR" in done.stderr
    shutil.copytree(work, tmp_path / "moved")
    manifest = tmp_path / "ds" / "manifest.json"
    text = manifest.read_text().replace(str(work.resolve()), str(tmp_path / "gone"))
    manifest.write_text(text)
    done = vqkit(*words)
    assert done.returncode == 2 and "not there any more" in done.stderr
    assert vqkit(*words, "--model", tmp_path / "moved" / "model").returncode == 0


def test_what_cannot_be_is_one_sentence(work, tmp_path, monkeypatch):
    model, images, tokens = work / "model", work / "images", work / "tokens"
    out = tmp_path / "ds"
    materialized(work, out, "--to", "parquet", "--text-column", "caption")
    cases = {
        "add --resume to go on": ("tokenize", model, images, "--out", tokens),
        "choose another --out": ("tokens", "materialize", tokens, "--to", "bin16", "--out", out),
        "ids below 65536": (
            *("tokens", "materialize", tokens, "--to", "bin16"),
            *("--base", 65500, "--out", tmp_path / "x"),
        ),
        "rank 3 of 2 is none": (
            *("tokenize", model, images, "--out", tmp_path / "x"),
            *("--rank", 3, "--world", 2),
        ),
        "has no item 5": ("tokens", "decode", out, "--item", 5, "--out", tmp_path / "x.png"),
        "holds no tokens": ("tokens", "info", images),
        "did you mean '--order'": (
            *("tokens", "materialize", tokens, "--to", "bin16"),
            *("--out", tmp_path / "x", "--ordr", "delay"),
        ),
    }
    for said, words in cases.items():
        done = vqkit(*words)
        (sentence,) = done.stderr.removeprefix("loading ...\n").splitlines()
        assert done.returncode == 2 and said in sentence
    monkeypatch.setitem(sys.modules, "ray", None)
    done = vqkit("tokenize", model, images, "--out", tmp_path / "ray", "--engine", "ray")
    assert done.returncode == 2 and "pip install 'vqkit[cluster]'" in done.stderr
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = vqkit("tokenize", model, images, "--out", tmp_path / "no")
    assert done.returncode == 2 and "pip install 'vqkit[parquet]'" in done.stderr
    assert not (tmp_path / "no").exists() and not (tmp_path / "x").exists()


def test_the_number_of_ranks_comes_from_the_environment(work, tmp_path, monkeypatch):
    words = ("tokenize", work / "model", "emoji", "--out", tmp_path / "tokens", "--workers", 1)
    monkeypatch.setenv("WORLD_SIZE", "17")
    monkeypatch.setenv("RANK", "16")
    done = vqkit(*words)
    assert done.returncode == 0 and "1 of 17 shards are done, other ranks do" in done.stdout
    (receipt,) = (tmp_path / "tokens").glob("shard-*.json")
    assert receipt.name == "shard-000016.json"


def limited(free, *words):
    """A command that can write so many bytes to a file, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        return vqkit(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("free", [0, 300, 900, 1400])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(work, tmp_path, free):
    out = tmp_path / "tokens"
    words = ("tokenize", work / "model", work / "images", "--out", out, "--workers", 1)
    done = limited(free, *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith(f"vqkit: cannot write {out}") and "File too large" in said
    assert not (out / "manifest.json").exists() and not list(out.glob(".*.tmp"))
    assert vqkit(*words, "--resume").returncode == 1, "a broken image was skipped, nothing else"
    assert {path.name for path in out.iterdir()} == {path.name for path in work.glob("tokens/*")}
    for form in ("megatron", "parquet", "webdataset", "jsonl"):
        made = tmp_path / form
        materialize = ("tokens", "materialize", out, "--to", form, "--out", made)
        done = limited(free, *materialize)
        assert done.returncode == 2 and "cannot write" in done.stderr, done.stderr
        assert not made.exists() and not list(tmp_path.glob(".*"))
        assert vqkit(*materialize).returncode == 0


def test_ctrl_c_keeps_what_is_done_and_leaves_no_process(tmp_path):
    out = tmp_path / "tokens"
    model = Path(__file__).parents[1] / "golden" / "emoji-model"
    # So many that no machine is done before it is stopped.
    source = tmp_path / "images.npy"
    np.save(source, np.random.default_rng(0).integers(0, 256, (10_000, 8, 8, 3), np.uint8))
    words = ["-m", "vqkit", "tokenize", model, source, "--out", out, "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What is started in the background has Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while len(list(out.glob("shard-*.json"))) < 2 and process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    # As a terminal sends it: to the process and to its workers.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130 and "Traceback" not in errors
    assert f"{out} keeps the shards that are done; --resume does the others" in errors
    names = {path.name.split("-")[0] for path in out.iterdir()}
    assert names == {"plan.json", "codebooks.safetensors", "shard"}
    group = []
    for one in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(one.pid) == process.pid:
                group.append(one)
    # The process that tracks resources ends a moment after it.
    assert not psutil.wait_procs(group, timeout=100)[1]
