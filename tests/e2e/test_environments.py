"""The main verbs where Python is started in unusual ways."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

VERBS = """
import contextlib, io, json, os, sys
os.umask(int(sys.argv[1], 8))
from vqkit import cli
small = ["train.steps=2", "train.batch_size=8", "train.precision=float32", "coder.steps=0",
         "data.validation=0.1", "data.test=0.1", "model.network.width=16",
         "model.network.encoder_blocks=1", "model.network.decoder_blocks=1",
         "model.quantizer.codebook_size=16", "data.image_size=[16,16]"]
printed = io.StringIO()
codes = []
with contextlib.redirect_stdout(printed):
    for words in (
        ["recipes", "--quantizers"],
        ["data", "images"],
        ["train", "images", "--out", "run", *small],
        ["info", "run"],
        ["compress", "run", "images", "--out-dir", "files"],
    ):
        codes.append(cli.main(words))
    files = sorted("files/" + name for name in os.listdir("files"))
    codes.append(cli.main(["decompress", "--model", "run", "--out-dir", "back", *files]))
print(json.dumps({"codes": codes, "printed": printed.getvalue()}))
"""
# Docstrings and assertions are left out, and there is no home.
BARE: dict[str, str | None] = {
    "PYTHONOPTIMIZE": "2",
    "HOME": None,
    "USER": None,
    "LOGNAME": None,
    "XDG_CACHE_HOME": None,
}
# File names are ASCII to Python, and others come with escapes.
C_LOCALE: dict[str, str | None] = {
    "LANG": "C",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


@pytest.mark.parametrize(
    ("environment", "umask"), [(BARE, "022"), (C_LOCALE, "077")], ids=["bare", "C-locale"]
)
def test_main_verbs(environment, umask, tmp_path):
    found = run(tmp_path, environment, umask)
    assert found["codes"] == [0] * 6
    assert "model.quantizer.kind=fsq" in found["printed"]
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == sorted(
        path.name for path in (tmp_path / "images").iterdir()
    )
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000

    made = [path for folder in ("run", "files", "back") for path in (tmp_path / folder).rglob("*")]
    assert len(made) > 50
    modes = {path.is_dir(): set() for path in made}
    for path in made:
        modes[path.is_dir()].add(oct(stat.S_IMODE(path.stat().st_mode)))
    expected = {"022": ("0o644", "0o755"), "077": ("0o600", "0o700")}[umask]
    assert modes == {False: {expected[0]}, True: {expected[1]}}


def run(folder: Path, changes: dict[str, str | None], umask: str) -> dict:
    (folder / "images").mkdir()
    values = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    for number, one in enumerate(values):
        Image.fromarray(one).save(folder / "images" / f"größe-{number}.png")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **changes}
    kept = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, "-c", VERBS, umask]
    done = subprocess.run(
        command, cwd=folder, env=kept, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
