"""Runs of the command line, as a user starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def train_fashion_mnist(out: Path, settings: Iterable[str], *, quiet: bool = False) -> dict:
    """metrics.json of `vqkit train` with the recipe of that set, in a process of its own."""
    command = [sys.executable, "-m", "vqkit", "train", "fashion-mnist"]
    command += ["--recipe", "fashion-mnist", "--out", str(out), *settings]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL if quiet else None)
    return json.loads((out / "metrics.json").read_text())
