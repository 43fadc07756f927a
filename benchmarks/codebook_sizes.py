"""Claims family_*_16384: quality and usage from 2^8 to 2^16 codes, drawn to
docs/figures/codebook-sizes.png.

    python benchmarks/codebook_sizes.py [--quick] [--seed 0] [--json FILE]

Fashion-MNIST, 7x7 positions, 200 steps of 48 images, one seed, network, trainer and peers of
benchmarks/families.py. The peer's vq stops at 2^14: its step takes seconds above. Usage is over the
10,000 test images: 490,000 codes.
"""

from __future__ import annotations

from pathlib import Path

from bench.claims import Claim, machine, options, report
from bench.image_sets import shorten_fashion_mnist
from bench.quantizer_contenders import STEPS, run
from bench.short_runs import in_parallel

PARSER = options(__doc__)

SWEEP = (8, 10, 12, 14, 16)
# Bits of the codebook size that the claims are of.
CLAIMED = 14
SWEPT = ("vq", "simvq", "fsq", "lfq", "peer vq", "peer fsq")
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "codebook-sizes.png"


def main() -> None:
    arguments = PARSER.parse_args()
    if arguments.quick:
        shorten_fashion_mnist()
    steps, sizes = (10, (8, CLAIMED)) if arguments.quick else (STEPS, SWEEP)
    jobs = [
        ("fashion-mnist", name, bits, arguments.seed, steps)
        for bits in sizes
        for name in SWEPT
        if (name, bits) != ("peer vq", 16)
    ]
    rows = in_parallel(run, jobs)
    if not arguments.quick:
        draw(rows)
    settings = {**machine(), "steps": steps, "rows": rows}
    claims = []
    for row in (row for row in rows if row["bits"] == CLAIMED):
        key = row["name"].replace(" ", "_").replace("-", "_")
        claims.append(
            Claim(
                f"family_psnr_{key}_16384",
                row["psnr"],
                "dB",
                "reported",
                "vector-quantize-pytorch",
                settings,
            )
        )
        claims.append(
            Claim(
                f"family_usage_{key}_16384",
                100 * row["usage"],
                "%",
                ">= 90",
                "vector-quantize-pytorch",
                {},
            )
        )
    report(claims, arguments)


def draw(rows: list[dict]) -> None:
    """PSNR and usage over the codebook size, ours solid, theirs dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, label in zip(
        figure.subplots(1, 2), ("psnr", "usage"), ("PSNR, dB", "usage, %"), strict=True
    ):
        for name in SWEPT:
            points = sorted(
                (row["bits"], row[key] * (100 if key == "usage" else 1))
                for row in rows
                if row["name"] == name and row["bits"] in SWEEP
            )
            colour = f"C{SWEPT.index(name.removeprefix('peer '))}"
            axes.plot(
                *zip(*points, strict=True),
                "o--" if name.startswith("peer") else "o-",
                color=colour,
                label=name,
                ms=3,
            )
        axes.set_xlabel("bits a code (log2 K)")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside right center",
        frameon=False,
        fontsize=8,
    )
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=144)


if __name__ == "__main__":
    main()
