"""Claims fmnist_psnr, fmnist_usage, fmnist_minutes: quality at 441 bits an image after eight
minutes of training.

    python benchmarks/fashion_mnist.py [--quick] [--seed 0] [--json FILE]

Trains with the command that users type, `vqkit train fashion-mnist --recipe fashion-mnist --out DIR
train.max_minutes=8`, at three seeds from --seed on (--quick: one seed, some seconds, a part of the
images). Figures are of the 10,000 test images, which are read once, after training; the recipe was
chosen on a validation split.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean, stdev

from bench.claims import Claim, machine, options, report
from bench.command_line import train_fashion_mnist
from bench.image_sets import SHORT, shorten_fashion_mnist

PARSER = options(__doc__)


# Settings of the command, and seeds.
FULL = ["train.max_minutes=8"], 3
QUICK = ["train.max_minutes=0.1", "coder.steps=0"], 1


def train(seed: int, settings: list[str], folder: Path) -> dict:
    """metrics.json of one run."""
    return train_fashion_mnist(folder / str(seed), [*settings, f"seed={seed}"])


def main() -> None:
    arguments = PARSER.parse_args()
    if arguments.quick:
        shorten_fashion_mnist()
    settings, seeds = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        runs = [train(arguments.seed + index, settings, Path(folder)) for index in range(seeds)]
    values = [run["psnr"] for run in runs]
    where = {
        **machine(),
        "seeds": [arguments.seed + index for index in range(seeds)],
        "psnr": values,
        "psnr_stdev": stdev(values) if seeds > 1 else None,
        "ssim": [run["ssim"] for run in runs],
        "steps": [run["step"] for run in runs],
        "bits_per_item": runs[0]["bits_per_item"],
        "images": runs[0]["items"],
        "split": runs[0]["split"],
    }
    assert runs[0]["bits_per_item"] == 441
    assert runs[0]["items"] == (SHORT[1] if arguments.quick else 10_000)
    assert runs[0]["split"] == "test"
    minutes_used = max(run["training_seconds"] for run in runs) / 60
    claims = [
        Claim("fmnist_psnr", mean(values), "dB", ">= 26.5", None, where),
        Claim("fmnist_usage", 100 * min(run["usage"] for run in runs), "%", "100", None, where),
        Claim("fmnist_minutes", minutes_used, "minutes", "<= 8", None, where),
    ]
    report(claims, arguments)


if __name__ == "__main__":
    main()
