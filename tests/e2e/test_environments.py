"""The main verbs where Python is started in unusual ways."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# Run in a folder of its own for each umask, given by its name.
VERBS = """
import contextlib, io, json, os, sys
from pathlib import Path
from vqkit import cli
small = ["train.steps=2", "train.batch_size=8", "train.precision=float32", "coder.steps=0",
         "data.validation=0.1", "data.test=0.1", "model.network.width=16",
         "model.network.encoder_blocks=1", "model.network.decoder_blocks=1",
         "model.quantizer.codebook_size=16", "data.image_size=[16,16]"]
found = {}
for umask in sys.argv[1:]:
    os.umask(int(umask, 8))
    printed = io.StringIO()
    codes = []
    with contextlib.chdir(umask), contextlib.redirect_stdout(printed):
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
    found[umask] = {"codes": codes, "printed": printed.getvalue()}
print(json.dumps(found))
"""
ENVIRONMENT: dict[str, str | None] = {
    # Docstrings and assertions are left out.
    "PYTHONOPTIMIZE": "2",
    # There is no home.
    "HOME": None,
    "USER": None,
    "LOGNAME": None,
    "XDG_CACHE_HOME": None,
    # File names are ASCII to Python, and others come with escapes.
    "LANG": "C",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}
# By umask: what files and folders may be done with.
MODES = {"022": ("0o644", "0o755"), "077": ("0o600", "0o700")}


def test_main_verbs_without_docstrings_home_and_locale(tmp_path):
    found = run(tmp_path)
    for umask, (of_files, of_folders) in MODES.items():
        folder = tmp_path / umask
        assert found[umask]["codes"] == [0] * 6
        assert "model.quantizer.kind=fsq" in found[umask]["printed"]
        assert sorted(path.name for path in (folder / "back").iterdir()) == sorted(
            path.name for path in (folder / "images").iterdir()
        )
        assert (folder / "run" / "report.html").stat().st_size > 10_000

        made = [path for name in ("run", "files", "back") for path in (folder / name).rglob("*")]
        assert len(made) > 50
        modes = {path.is_dir(): set() for path in made}
        for path in made:
            modes[path.is_dir()].add(oct(stat.S_IMODE(path.stat().st_mode)))
        assert modes == {False: {of_files}, True: {of_folders}}


def run(folder: Path) -> dict:
    """What the verbs print and give, by umask."""
    values = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    for umask in MODES:
        (folder / umask / "images").mkdir(parents=True)
        for number, one in enumerate(values):
            Image.fromarray(one).save(folder / umask / "images" / f"größe-{number}.png")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **ENVIRONMENT}
    kept = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, "-c", VERBS, *MODES]
    done = subprocess.run(
        command, cwd=folder, env=kept, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
