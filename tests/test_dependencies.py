"""What a bare installation holds, and that all but training works with it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What the suite has and a bare installation has not.
EXTRAS = (
    "aiohttp",
    "fastapi",
    "lightning_fabric",
    "lightning_utilities",
    "matplotlib",
    "prometheus_client",
    "numba",
    "pyarrow",
    "rich",
    "scipy",
    "skimage",
    "sklearn",
    "soundfile",
    "soxr",
    "tensorboard",
    "torchmetrics",
    "uvicorn",
)
BLOCKED = f"import sys\nfor name in {EXTRAS!r}: sys.modules[name] = None\n"
GOLDEN = ROOT / "tests" / "golden" / "emoji-model"


def run(code: str, *words: object) -> list[str]:
    """The lines that code prints in a process that has no extras."""
    command = [sys.executable, "-c", BLOCKED + code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def all_of(requirements: Iterable[str]) -> set[str]:
    """Names of the packages that these need, and of all that those need, on this system."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        one = waiting.pop()
        extras = one.extras or {""}
        if one.marker and not any(one.marker.evaluate({"extra": ""}) for _ in extras):
            continue
        name = canonicalize_name(one.name)
        if name in found:
            continue
        found.add(name)
        for line in requires(one.name) or []:
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
                inner.marker = None
                waiting.append(inner)
    return found


def test_a_bare_installation_holds_few_packages_beyond_torch():
    bare = all_of(PROJECT["dependencies"])
    beyond = bare - all_of(["torch"])
    assert {"numpy", "pillow", "pydantic", "pydantic-core", "safetensors"} <= beyond
    assert len(beyond) <= 12, sorted(beyond)
    assert not {canonicalize_name(name) for name in EXTRAS} & bare
    training = all_of(PROJECT["optional-dependencies"]["train"])
    assert {"lightning-fabric", "aiohttp", "matplotlib", "rich"} <= training


def test_models_and_layers_work_without_extras():
    code = """
import json, numpy, torch, vqkit
from vqkit.nn import VectorQuantizer
folder = sys.argv[1]
model = vqkit.load(folder, device="cpu")
expected = numpy.load(folder + "/expected.npz")
codes = model.encode(expected["images"])
again = model.decode(codes)
small = [model.compress(image) for image in expected["images"][:2]]
pixels = [model.decompress(content) for content in small]
layer = VectorQuantizer(8, 16)
out = layer(torch.randn(2, 5, 8))
print(json.dumps({
    "codes": bool((codes.numpy() == expected["codes"]).all()),
    "pixels": [bool(numpy.array_equal(one, two)) for one, two in zip(pixels, again[:2])],
    "layer": list(layer.decode(out.codes).shape),
    "public": [name for name in vqkit.__all__ if getattr(vqkit, name) is None],
}))
"""
    found = json.loads(run(code, GOLDEN)[-1])
    assert found == {"codes": True, "pixels": [True, True], "layer": [2, 5, 8], "public": []}


def test_verbs_that_do_not_train_work_without_extras(few_images, tmp_path):
    code = """
import numpy
from PIL import Image
from vqkit import cli
folder, items, out = sys.argv[1:]
# A small one: without numba every code takes its time.
image = out + "/image.png"
Image.fromarray(numpy.load(items)[0]).save(image)
for words in (
    ["data", items, "--sheet", out + "/sheet.png"],
    ["info", folder],
    ["evaluate", folder, items, "--split", "all"],
    ["reconstruct", folder, image, "--out", out],
    ["compress", folder, image, "--out", out + "/image.vq"],
    ["decompress", out + "/image.vq", "--model", folder, "--out-dir", out + "/back"],
    ["generate", folder, "--num", "1", "--out", out + "/sample.png"],
):
    assert cli.main(words) == 0, words
print("done")
"""
    assert run(code, GOLDEN, few_images, tmp_path)[-1] == "done"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["train", "emoji", "--out", "run"],
            "vqkit: training needs lightning-fabric, matplotlib, rich: pip install 'vqkit[train]'",
        ),
        (
            ["train-prior", "run", "emoji"],
            "vqkit: training needs lightning-fabric, matplotlib, rich: pip install 'vqkit[train]'",
        ),
        (
            ["explain", "run", "emoji", "--out", "page.html"],
            "vqkit: drawing figures needs matplotlib: pip install 'vqkit[train]'",
        ),
    ],
)
def test_verbs_that_need_extras_say_which(words, said, tmp_path):
    code = f"""
import contextlib, io, os
from vqkit import cli
os.chdir({str(tmp_path)!r})
printed = io.StringIO()
with contextlib.redirect_stderr(printed):
    assert cli.main({words!r}) == 2
print(printed.getvalue().splitlines()[-1])
"""
    assert run(code) == [said]
    assert not list(tmp_path.iterdir())
