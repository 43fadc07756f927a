"""The equal-bits table: none (same width, no quantiser), vq and fsq in one network, one trainer,
equal steps.

    python benchmarks/equal_bits.py [--quick] [--seed 0] [--json FILE]

Fashion-MNIST, 7x7 codes of 9 bits for vq and fsq (levels 8 8 8), three seeds from --seed on, a
fixed number of steps (--quick: one seed, few steps). PSNR and SSIM of the 10,000 test images.
Claims: equal_bits_psnr_<kind>.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean, stdev

from bench.claims import Claim, machine, options, report
from bench.command_line import train_fashion_mnist
from bench.image_sets import shorten_fashion_mnist

PARSER = options(__doc__)

KINDS = {
    "none": ["model.quantizer.kind=none", "model.quantizer.code_dim=16"],
    "vq": [],
    "fsq": ["model.quantizer.kind=fsq", "model.quantizer.levels=[8,8,8]"],
}


def main() -> None:
    arguments = PARSER.parse_args()
    if arguments.quick:
        shorten_fashion_mnist()
    steps, seeds = (40, 1) if arguments.quick else (800, 3)
    claims = []
    for kind, overrides in KINDS.items():
        runs = []
        for seed in range(arguments.seed, arguments.seed + seeds):
            with tempfile.TemporaryDirectory() as folder:
                settings = [f"seed={seed}", f"train.steps={steps}", "coder.steps=0", *overrides]
                runs.append(train_fashion_mnist(Path(folder) / "run", settings, quiet=True))
        values = [run["psnr"] for run in runs]
        names = (
            "psnr",
            "ssim",
            "usage",
            "perplexity",
            "bits_per_item",
            "training_seconds",
            "parameters",
        )
        settings = {**machine(), "steps": steps, "stdev": stdev(values) if seeds > 1 else None}
        settings |= {name: [run[name] for run in runs] for name in names}
        claims.append(
            Claim(
                f"equal_bits_psnr_{kind}", mean(values), "dB", "reported", "none, vq, fsq", settings
            )
        )
    report(claims, arguments)


if __name__ == "__main__":
    main()
