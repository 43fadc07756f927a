"""A second signal moves in: sequences of bytes of any length, as tests/signals/sequence has them.

They are copied beside images into a copy of the package. Outside of their folder this takes one
line of the registry, a member of each union of the settings, and a recipe.
"""

from __future__ import annotations

import filecmp
import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

import vqkit

from .. import processes
from ..report.pages import assert_sound

PACKAGE = Path(vqkit.__file__).parent
# A line of the module, and the one that goes behind it.
REGISTERED = (
    '    "audio": ("audio.signal", "AUDIO"),\n',
    '    "sequence": ("sequence.signal", "SEQUENCE"),\n',
)
SETTINGS = {
    "from .signals.image import config as image\n": (
        "from .signals.sequence import config as sequence\n"
    ),
    "    image.DataConfig\n": "    | sequence.DataConfig\n",
    "    image.NetworkConfig\n": "    | sequence.StrideConfig\n",
}
RECIPE = """# sequences of bytes
data: {signal: sequence, length: 32, validation: 0.1, test: 0.1}
model:
  network: {kind: stride}
  quantizer: {kind: vq, codebook_size: 32, code_dim: 8}
train:
  {steps: 60, batch_size: 32, max_minutes: null, precision: float32, optimizer: adamw, lr: 0.002}
coder: {steps: 3}
"""
USE = """
import contextlib, io, json, sys
# Kernels would be compiled again for this copy, which takes longer than all the rest.
sys.modules["numba"] = None
import numpy as np
import vqkit
from vqkit import cli

def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(list(arguments)) == 0, arguments
    return out.getvalue()

run("train", "data", "--out", "run", "--recipe", "sequences")
run("evaluate", "run", "data", "--json", "evaluation.json")
run("compress", "run", "data", "--bundle", "--lossless", "--out", "all.vq")
run("decompress", "all.vq", "--model", "run", "--out-dir", "back")
run("train-prior", "run", "data", "train.steps=10", "network.width=32", "train.precision=float32")
run("explain", "run", "data", "--out", "codes.html")
run("generate", "run", "--num", "3", "--out", "sheet.png", "--each", "drawn")
model = vqkit.load("run", device="cpu")
items = [np.fromfile(path, np.uint8) for path in ("long.seq", "data/000.seq", "data/001.seq")]
back = model.reconstruct(items)
file = model.compress(items[0])
exact = model.compress(items[0], lossless=True)
print(json.dumps({
    "codes": [list(one.shape) for one in model.encode(items)],
    "lengths": [len(one) for one in back],
    "psnr": [
        10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)) for a, b in zip(items, back)
    ],
    "file": len(file),
    "decoded": bool((model.decompress(file) == back[0]).all()),
    "exact": bool((model.decompress(exact) == items[0]).all()),
    "scored": run("score", "run", "long.seq"),
}))
"""


def test_it_changes_no_more_than_registry_settings_and_recipe(house: Path) -> None:
    compared = filecmp.dircmp(PACKAGE, house / "src" / "vqkit", ignore=["__pycache__"])
    changed, added = [], []

    def walk(part: filecmp.dircmp, where: str) -> None:
        changed.extend(where + name for name in part.diff_files)
        added.extend(where + name for name in part.right_only)
        for name, inner in part.subdirs.items():
            walk(inner, f"{where}{name}/")

    walk(compared, "")
    assert sorted(changed) == ["settings.py", "signals/registry.py"]
    assert sorted(added) == ["recipes/sequences.yaml", "signals/sequence"]


def test_it_trains_evaluates_compresses_and_generates(house: Path) -> None:
    long = house / "long.seq"
    long.write_bytes(bytes(int(127 + 100 * math.sin(0.3 * time)) for time in range(77)))
    done = processes.run(["-c", USE], folder=house, sources=house / "src")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)

    found = json.loads((house / "run" / "metrics.json").read_text())
    # The mean of all values gives 11 dB, 32 codes of 4 values each over twice that.
    assert found["psnr"] > 22
    assert found["bits_per_sample"] == 5 / 4
    assert json.loads((house / "evaluation.json").read_text())["psnr"] == pytest.approx(
        found["psnr"]
    )

    lengths = [77, *(len((house / "data" / f"00{number}.seq").read_bytes()) for number in range(2))]
    assert shown["lengths"] == lengths
    assert shown["codes"] == [[1, -(-length // 4)] for length in lengths]
    assert min(shown["psnr"]) > 18
    assert shown["decoded"] and shown["exact"]
    assert shown["file"] < 77
    assert "long.seq" in shown["scored"]
    page = (house / "codes.html").read_text(encoding="utf-8")
    assert_sound(page)
    assert "training sequences" in page and "What surprises" not in page
    assert "bits that the prior" in page and "<audio" not in page

    for path in (house / "data").iterdir():
        assert (house / "back" / path.name).read_bytes() == path.read_bytes()
    drawn = sorted((house / "drawn").iterdir())
    assert len(drawn) == 3
    assert {len(path.read_bytes()) for path in drawn} == {32}
    assert np.frombuffer(drawn[0].read_bytes(), np.uint8).std() > 0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the second signal in it, and 120 sequences: sines of random
    lengths and pitches.
    """
    folder = tmp_path_factory.mktemp("house")
    package = folder / "src" / "vqkit"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent / "sequence", package / "signals" / "sequence")
    registry = package / "signals" / "registry.py"
    line, added = REGISTERED
    assert line in registry.read_text()
    registry.write_text(registry.read_text().replace(line, line + added))
    settings = package / "settings.py"
    text = settings.read_text()
    for line, other in SETTINGS.items():
        assert line in text
        text = text.replace(line, line + other)
    settings.write_text(text)
    (package / "recipes" / "sequences.yaml").write_text(RECIPE)
    (folder / "data").mkdir()
    rng = random.Random(0)
    for number in range(120):
        pitch, phase = rng.uniform(0.1, 0.6), rng.uniform(0, 6)
        values = [
            int(127 + 100 * math.sin(pitch * time + phase)) for time in range(rng.randint(9, 32))
        ]
        (folder / "data" / f"{number:03}.seq").write_bytes(bytes(values))
    return folder
