"""Claim budget_overrun: `vqkit train photos --minutes N` takes N minutes, coders and report
included.

    python benchmarks/budget.py [--quick] [--seed 0] [--minutes 4] [--json FILE]

`photos` are 15 photographs that scikit-image and scikit-learn bring, at their own sizes, cut into
patches (data.fit=patches). Wall time of the whole process over N minutes, as a share above 1;
--quick: N = 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench.claims import Claim, machine, options, report
from PIL import Image

PARSER = options(__doc__)
PARSER.add_argument("--minutes", type=float, default=4.0)

FROM_SKIMAGE = (
    "astronaut",
    "brick",
    "camera",
    "cat",
    "clock",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "moon",
    "page",
    "rocket",
    "text",
)


def write_photographs(folder: Path) -> None:
    from skimage import data
    from sklearn.datasets import load_sample_images

    images = {name: np.asarray(getattr(data, name)()) for name in FROM_SKIMAGE}
    found = load_sample_images()
    images |= {
        Path(name).stem: image for name, image in zip(found.filenames, found.images, strict=True)
    }
    folder.mkdir()
    for name, image in images.items():
        Image.fromarray(image).convert("RGB").save(folder / f"{name}.png")


def measured(folder: Path, minutes: float, seed: int) -> dict:
    """Seconds of the command, and what it said of its plan."""
    out = folder / "run"
    command = [sys.executable, "-m", "vqkit", "train", str(folder / "photos"), "--out", str(out)]
    began = time.perf_counter()
    settings = ["data.fit=patches", f"seed={seed}"]
    done = subprocess.run(
        [*command, "--minutes", str(minutes), *settings], capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    assert (out / "report.html").exists() and (out / "coder.safetensors").exists()
    return {"seconds": seconds, "output": (done.stdout + done.stderr)[-4000:]}


def main() -> None:
    arguments = PARSER.parse_args()
    minutes = 1.0 if arguments.quick else arguments.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder / "photos")
        row = measured(folder, minutes, arguments.seed)
    overrun = 100 * (row["seconds"] / (60 * minutes) - 1)
    print(row["output"])
    settings = {**machine(), "minutes": minutes, "seed": arguments.seed, **row}
    report([Claim("budget_overrun", overrun, "%", "<= 10", None, settings)], arguments)


if __name__ == "__main__":
    main()
