"""Pairs on the hub, which a small server stands in for."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

import vqkit
from vqkit import cli
from vqkit.artifact.pair_store import load_pair

from ..hub_server import TOKEN
from .test_hub import GOLDEN, TINY_PAIR, said, server, vqkit_with  # noqa: F401

NAME = "user/both"
HALF = {f"first/{name}" for name in ("config.json", "metrics.json", "model.safetensors")}
FILES = {"config.json", "metrics.json", "recipe.yaml", "pair.safetensors", *HALF}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of images and bytes. Tests must not write there."""
    images = tmp_path_factory.mktemp("captioned")
    for number in range(20):
        Image.new("RGB", (32, 32), (12 * number, 40, 90)).save(images / f"{number}.png")
        (images / f"{number}.txt").write_text(f"shade {number}", encoding="utf-8")
    folder = tmp_path_factory.mktemp("pairs") / "both"
    vqkit.train_pairs(GOLDEN, "bytes", images, folder, overrides=TINY_PAIR)
    return folder


@pytest.fixture
def both(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "both")
    return tmp_path / "both"


def test_a_pushed_pair_comes_back(vqkit_with, server, both, tmp_path):  # noqa: F811
    (both / "first" / "checkpoint").mkdir()
    (both / "first" / "checkpoint" / "state.safetensors").write_bytes(b"x")
    (both / "second").mkdir()
    (both / "second" / "notes.txt").write_text("mine")
    words = ("push", "both", NAME, "--licence", "cc-by-4.0")
    done = vqkit_with(*words, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert f"vqkit.load('hf://{NAME}')" in done.stdout
    # The model in it has a licence of its own, or none, which is said.
    assert [line for line in done.stderr.splitlines() if "no licence" in line] == [
        "vqkit: both/first has no licence, so that others may not use it; name one: vqkit check "
        "both/first --licence ID"
    ]
    sent = server.repositories[NAME]["main"]
    assert set(sent) == {*FILES, "README.md", "report.html"}
    card = yaml.safe_load(sent["README.md"].decode().split("---")[1])
    assert card["license"] == "cc-by-4.0" and card["pipeline_tag"] == "image-to-text"
    told = vqkit_with(
        "generate", f"hf://{NAME}", "--from", "shade 3", "--num", "1", "--out", "a.png"
    )
    assert told.returncode == 0, told.stderr
    assert sorted(set(server.fetched)) == sorted(server.fetched) == sorted(FILES)
    # The same as of the folder, and what is fetched is used offline.
    server.close()
    scored = vqkit_with("score", f"hf://{NAME}", "a.png", "shade 3", HF_HUB_OFFLINE="1")
    assert scored.returncode == 0, scored.stderr
    here = vqkit_with("score", "both", "a.png", "shade 3")
    assert scored.stdout == here.stdout and "shade 3" in here.stdout


@pytest.mark.parametrize(
    "name", ["pair.safetensors", "first/config.json", "first/model.safetensors"]
)
def test_of_a_pair_no_file_is_fetched_that_no_loader_would_read(
    name,
    vqkit_with,  # noqa: F811
    server,  # noqa: F811
    both,
):
    files = {path: (both / path).read_bytes() for path in FILES}
    server.repositories[NAME] = {"main": files}
    server.lies[name] = 1 << 40
    refused = said(vqkit_with("info", f"hf://{NAME}"))
    assert f"was not fetched: its {name} has 1099511627776 bytes" in refused
    assert name not in server.fetched
    server.lies.clear()
    del files[name]
    missing = name.rpartition("/")[2]
    assert re.search(f"has no (first/)?{missing}", said(vqkit_with("info", f"hf://{NAME}")))
    # What nothing describes is not fetched either.
    assert missing != "config.json" or "first/model.safetensors" not in server.fetched


def test_a_pair_and_its_halves_get_licences(both, capsys):
    before = load_pair(both, "cpu")
    assert before.licence is None
    assert cli.main(["check", str(both), "--licence", "mit"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["licence", "mit:", str(both)]
    assert lines[1].startswith("licence            missing") and lines[1].endswith("first")
    after = load_pair(both, "cpu")
    assert after.licence == "mit"
    card = (both / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["license"] == "mit"
    tree = json.loads((both / "config.json").read_text(encoding="utf-8"))
    # The process ended after the weights were written, and before config.json was.
    del tree["licence"]
    (both / "config.json").write_text(json.dumps(tree), encoding="utf-8")
    assert load_pair(both, "cpu").licence is None
    tree["name"] = "another"
    (both / "config.json").write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(vqkit.VqkitError, match="do not belong together"):
        load_pair(both, "cpu")
