"""Claims family_*: every quantizer at equal bits, beside those of vector-quantize-pytorch, in one
network and trainer.

    python benchmarks/families.py [--quick] [--seed 0] [--json FILE]

Fashion-MNIST at 441 bits an image (7x7 positions of 9 bits) and the built-in emoji at 576 (8x8 of
9), 200 steps of 48 images, patch network of 2+2 blocks, three seeds from --seed on; hierarchical at
439 and 576 bits, pyramid at 441 and 576. PSNR and SSIM of the test images, read once after
training; all choices were made on validation splits. One thread and core for each run.
"""

from __future__ import annotations

from statistics import mean, stdev

from bench.claims import Claim, machine, options, report
from bench.quantizer_contenders import PEERS, STEPS, families, run
from bench.short_runs import in_parallel

PARSER = options(__doc__)


def main() -> None:
    arguments = PARSER.parse_args()
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
