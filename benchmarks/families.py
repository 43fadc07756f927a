"""Claims family_*: every quantizer at equal bits, beside those of vector-quantize-pytorch, in one
network and trainer.

    python benchmarks/families.py [--quick] [--ideas] [--seed 0] [--json FILE]

Fashion-MNIST at 441 bits an image (7x7 positions of 9 bits) and the built-in emoji at 576 (8x8 of
9), 200 steps of 48 images, patch network of 2+2 blocks, three seeds from --seed on; hierarchical at
439 and 576 bits, pyramid at 441 and 576. PSNR and SSIM of the test images, read once after
training; all choices were made on validation splits. One thread and core for each run.

--ideas: published ways to train a codebook (bench/training_ideas.py) beside vq, on Fashion-MNIST,
400 steps, three seeds, one run at a time, all variants of a seed before the next seed. Bits a code
in files are those of context mixing over all test images. The gain in dB is over the line between
vq with different weights of bits, at the idea's own bits.
"""

from __future__ import annotations

from statistics import mean, stdev

import numpy as np
import torch
from bench.claims import Claim, machine, options, report
from bench.quantizer_contenders import IDEAS, PEERS, STEPS, families, run, run_idea
from bench.short_runs import in_parallel

PARSER = options(__doc__)
PARSER.add_argument("--ideas", action="store_true")
# Steps of an idea's run.
IDEA_STEPS = 400


def main() -> None:
    arguments = PARSER.parse_args()
    if arguments.ideas:
        report(ideas(arguments.seed, arguments.quick), arguments)
        return
    steps, seeds, sources = (
        (10, 1, ["emoji"]) if arguments.quick else (STEPS, 3, ["fashion-mnist", "emoji"])
    )
    names = [*families(9, False), *(f"peer {name}" for name in PEERS)]
    jobs = [
        (source, name, 9, arguments.seed + index, steps)
        for source in sources
        for name in names
        for index in range(seeds)
    ]
    rows = in_parallel(run, jobs)
    report(claims(rows, sources[0], {**machine(), "steps": steps, "rows": rows}), arguments)


def ideas(seed: int, quick: bool) -> list[Claim]:
    """One line an idea: dB over vq at the same bits in files, the mean of the seeds."""
    steps, seeds = (10, 1) if quick else (IDEA_STEPS, 3)
    source = "emoji" if quick else "fashion-mnist"
    torch.set_num_threads(1)
    rows = []
    for number in range(seeds):
        rows += [run_idea((source, name, 9, seed + number, steps)) for name in IDEAS]
    found = []
    for name in IDEAS:
        if name.startswith("vq-rate"):
            continue
        gains = []
        for number in range(seeds):
            of_seed = [row for row in rows if row["seed"] == seed + number]
            curve = [row for row in of_seed if row["name"].startswith("vq-rate")]
            curve.sort(key=lambda row: row["file_bits"])
            (mine,) = [row for row in of_seed if row["name"] == name]
            beside = [[row[key] for row in curve] for key in ("file_bits", "psnr")]
            gains.append(mine["psnr"] - float(np.interp(mine["file_bits"], *beside)))
        key = name.replace(" ", "_").replace("-", "_")
        settings = {**machine(), "steps": steps, "gains": gains, "rows": rows}
        found.append(Claim(f"idea_gain_{key}", mean(gains), "dB", ">= 0.1", "vq", settings))
    return found


def claims(rows: list[dict], source: str, settings: dict) -> list[Claim]:
    """One line a family on Fashion-MNIST, use of 2^14 codes, and the best of ours against the best
    of theirs.
    """
    peer = "vector-quantize-pytorch"
    found = []
    best = {True: 0.0, False: 0.0}
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [
            row
            for row in rows
            if row["name"] == name and row["source"] == source and row["bits"] == 9
        ]
        values = [row["psnr"] for row in mine]
        best[name.startswith("peer")] = max(best[name.startswith("peer")], mean(values))
        key = name.replace(" ", "_").replace("-", "_")
        spread = {"stdev": stdev(values) if len(values) > 1 else None}
        found.append(
            Claim(
                f"family_psnr_{key}", mean(values), "dB", "reported", peer, {**spread, "rows": mine}
            )
        )
        found.append(
            Claim(
                f"family_usage_{key}",
                100 * min(row["usage"] for row in mine),
                "%",
                ">= 99",
                peer,
                {},
            )
        )
    return [
        *found,
        Claim(
            "best_ours_minus_best_theirs_db", best[False] - best[True], "dB", "> 0", peer, settings
        ),
    ]


if __name__ == "__main__":
    main()
