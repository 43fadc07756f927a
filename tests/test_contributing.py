"""The walk-through of CONTRIBUTING.md, followed to the letter on a copy of the package."""

import json
import re
import shutil
from pathlib import Path

import pytest

import vqkit

from . import processes

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(diff|python)\n# (src/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    """Language, file and text of every block under "Adding a quantizer"."""
    return BLOCK.findall(
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Adding a quantizer")[1]
    )


def patched(text: str, change: str) -> str:
    """The text with the added and removed lines of every hunk; hunks are separated by a line of
    three dots.
    """
    for hunk in change.split("...\n"):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if not line.startswith("+"))
        after = "".join(line[1:] for line in lines if not line.startswith("-"))
        assert text.count(before) == 1, f"not in the file as the walk-through has it:\n{before}"
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def patched_root(tmp_path_factory) -> Path:
    """A folder with src/vqkit as it is after the walk-through."""
    root = tmp_path_factory.mktemp("walk-through")
    shutil.copytree(
        Path(vqkit.__file__).parent,
        root / "src" / "vqkit",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for language, name, text in blocks():
        file = root / name
        assert file.exists() == (language == "diff"), name
        file.write_text(
            patched(file.read_text(encoding="utf-8"), text) if language == "diff" else text,
            encoding="utf-8",
        )
    return root


def run(root: Path, *words: str) -> str:
    done = processes.run(words, folder=ROOT, sources=root / "src")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_it_touches_at_most_three_files():
    assert 0 < len({name for _, name, _ in blocks()}) <= 3


def test_the_new_family_keeps_the_contract(patched_root):
    chosen = [
        f"tests/model/quantizers/test_{name}.py" for name in ("contract", "settings", "estimators")
    ]
    told = run(patched_root, "-m", "pytest", "-o", "addopts=", "-k", "ternary", *chosen)
    assert int(re.search(r"(\d+) passed", told)[1]) > 50


TRAINING = """
import sys
import vqkit
more = ["train.steps=20", "train.batch_size=16", "coder.steps=0"]
more += ["model.network.width=16", "train.log_every=1"]
more += ["data.image_size=null"]
model = vqkit.train("digits", sys.argv[1], "emoji", ["model.quantizer.kind=ternary", *more])
print(model.network.quantizer.codebook_sizes)
"""


def test_it_is_listed_and_trained(patched_root, tmp_path):
    told = run(patched_root, "-m", "vqkit", "recipes", "--quantizers")
    assert "model.quantizer.kind=ternary\n    num_channels=6 " in told
    assert run(patched_root, "-c", TRAINING, str(tmp_path / "run")).splitlines()[-1] == "(729,)"
    lines = [
        json.loads(line)
        for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    losses = [line["loss"] for line in lines if line.get("split") == "train"]
    assert losses[-1] < losses[0]
