"""Claims family_*: every quantizer at equal bits, beside those of vector-quantize-pytorch, in one network and trainer.

    python benchmarks/families.py [--quick] [--seed 0] [--json FILE]

Fashion-MNIST at 441 bits an image (7x7 positions of 9 bits) and the built-in emoji at 576 (8x8 of 9), 300 steps of 48
images, patch network of 2+2 blocks, three seeds from --seed on; hierarchical at 439 and 576 bits. Then K of 2^8 to 2^16
on Fashion-MNIST, one seed, drawn to docs/figures/codebook-sizes.png. PSNR and SSIM of the test images, read once after
training; all choices were made on validation splits. Two runs at a time, one thread and one core each.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev

from _common import Claim, machine, options, report
from _runs import fit, in_parallel

STEPS = 300
LEVELS = {8: "[8,6,5]", 9: "[8,8,8]", 10: "[8,5,5,5]", 12: "[7,5,5,5,5]", 14: "[8,8,8,6,5]", 16: "[8,8,8,5,5,5]"}
PEERS = ("vq", "vq-cosine", "simvq", "fsq", "lfq", "bsq", "residual", "product")
SWEEP = (8, 10, 12, 14, 16)
SWEPT = ("vq", "simvq", "fsq", "lfq", "gaussian-bins", "peer vq", "peer simvq", "peer fsq", "peer lfq")
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "codebook-sizes.png"


def families(bits: int, emoji: bool) -> dict[str, list[str]]:
    """Overrides of model.quantizer for every family of ours at `bits` a position."""
    size, third = 1 << bits, 1 << (bits // 3)
    vq = ["kind=vq", f"codebook_size={size}", "decay=0.98", "revive_threshold=0.1"]
    top, bottom = (16, 256) if emoji else (11, 64)
    return {
        "vq": vq,
        "vq-gradient": [*vq, "update=gradient"],
        "vq-cosine": [*vq, "distance=cosine"],
        "vq-rotation": [*vq, "estimator=rotation"],
        "vq-gumbel": [*vq, "estimator=gumbel", f"temperature_steps={STEPS * 2 // 3}"],
        "vq-map": [*vq, "neighbourhood=4", f"neighbourhood_steps={STEPS * 2 // 3}"],
        "simvq": ["kind=simvq", f"codebook_size={size}"],
        "fsq": ["kind=fsq", f"levels={LEVELS[bits]}"],
        "lfq": ["kind=lfq", f"bits={bits}"],
        "bsq": ["kind=bsq", f"bits={bits}"],
        "gaussian-bins": ["kind=gaussian_codebook", f"levels={LEVELS[bits]}"],
        "gaussian-draws": ["kind=gaussian_codebook", "layout=draws", f"codebook_size={size}"],
        "residual": ["kind=residual", "num_stages=3", f"stage={{kind: vq, codebook_size: {third}, decay: 0.98}}"],
        "product": [
            "kind=product", "num_groups=3", f"group={{kind: vq, codebook_size: {third}, code_dim: 6, decay: 0.98}}"
        ],
        "hierarchical": [
            "kind=hierarchical", f"top={{kind: vq, codebook_size: {top}, decay: 0.98}}",
            f"bottom={{kind: vq, codebook_size: {bottom}, decay: 0.98}}", "latent_dim=64",
        ],
    }  # fmt: skip


def run(job: tuple[str, str, int, int, int]) -> dict:
    """Train one contender and measure it on the test split."""
    source, name, bits, seed, steps = job
    import vqkit.model.autoencoder as autoencoder
    from vqkit.apps.evaluate import evaluate

    overrides = [] if name.startswith("peer") else families(bits, source == "emoji")[name]
    original = autoencoder.build_quantizer
    if name.startswith("peer"):
        from _peers import build_peer

        autoencoder.build_quantizer = lambda _: build_peer(name.removeprefix("peer "), bits)
    try:
        result, data = fit(source, [f"model.quantizer.{setting}" for setting in overrides], seed, steps)
        found = evaluate(result.artifact, data).metrics
    finally:
        autoencoder.build_quantizer = original
    keys = ("psnr", "ssim", "usage", "entropy_bits", "perplexity", "bits_per_image")
    row = {key: found[key] for key in keys} | {"seconds": result.figures["training_seconds"]}
    line = f"{source:<14} {name:<15} {bits:>2} bits seed {seed}: {row['psnr']:.2f} dB, usage {row['usage']:.1%}, "
    print(line + f"{row['seconds']:.0f} s", flush=True)
    return {"source": source, "name": name, "bits": bits, "seed": seed} | row


def main() -> None:
    arguments = options(__doc__)
    steps, seeds, sources = (20, 1, ["emoji"]) if arguments.quick else (STEPS, 3, ["fashion-mnist", "emoji"])
    names = [*families(9, False), *(f"peer {name}" for name in PEERS)]
    jobs = [(source, name, 9, arguments.seed + index, steps)
            for source in sources for name in names for index in range(seeds)]  # fmt: skip
    if not arguments.quick:
        jobs += [("fashion-mnist", name, bits, arguments.seed, steps) for bits in SWEEP for name in SWEPT]
    rows = in_parallel(run, jobs)
    if not arguments.quick:
        draw([row for row in rows if row["source"] == "fashion-mnist" and row["seed"] == arguments.seed])
    report(claims(rows, sources[0], {**machine(), "steps": steps, "rows": rows}), arguments.json)


def claims(rows: list[dict], source: str, settings: dict) -> list[Claim]:
    """One line a family on Fashion-MNIST, use of 2^14 codes, and the best of ours against the best of theirs."""
    peer, found, best = "vector-quantize-pytorch", [], {True: 0.0, False: 0.0}
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name and row["source"] == source and row["bits"] == 9]
        values = [row["psnr"] for row in mine]
        best[name.startswith("peer")] = max(best[name.startswith("peer")], mean(values))
        key = name.replace(" ", "_").replace("-", "_")
        spread = {"stdev": stdev(values) if len(values) > 1 else None}
        found.append(Claim(f"family_psnr_{key}", mean(values), "dB", "reported", peer, {**spread, "rows": mine}))
        found.append(Claim(f"family_usage_{key}", 100 * min(row["usage"] for row in mine), "%", ">= 99", peer, {}))
        for row in rows:
            if row["name"] == name and row["bits"] == 14:
                found.append(Claim(f"family_usage_{key}_16384", 100 * row["usage"], "%", ">= 90", peer, {}))
    return [*found, Claim("best_ours_minus_best_theirs_db", best[False] - best[True], "dB", "> 0", peer, settings)]


def draw(rows: list[dict]) -> None:
    """PSNR and usage over the codebook size, ours solid, theirs dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, label in zip(figure.subplots(1, 2), ("psnr", "usage"), ("PSNR, dB", "usage, %"), strict=True):
        for name in SWEPT:
            points = sorted((row["bits"], row[key] * (100 if key == "usage" else 1)) for row in rows
                            if row["name"] == name and row["bits"] in SWEEP)  # fmt: skip
            colour = f"C{SWEPT.index(name.removeprefix('peer '))}"
            axes.plot(
                *zip(*points, strict=True), "o--" if name.startswith("peer") else "o-", color=colour, label=name, ms=3
            )
        axes.set_xlabel("bits a code (log2 K)")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=144)


if __name__ == "__main__":
    main()
