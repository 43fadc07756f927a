"""Claims family_*: every quantizer at equal bits, beside those of vector-quantize-pytorch, in one network and trainer.

    python benchmarks/families.py [--quick] [--seed 0] [--json FILE]

Fashion-MNIST at 441 bits an image (7x7 positions of 9 bits) and the built-in emoji at 576 (8x8 of 9), 200 steps of 48
images, patch network of 2+2 blocks, three seeds from --seed on; hierarchical at 439 and 576 bits. PSNR and SSIM of the
test images, read once after training; all choices were made on validation splits. One thread and core for each run.
"""

from __future__ import annotations

import json
from statistics import mean, stdev

from _common import Claim, machine, options, report
from _runs import fit, in_parallel

STEPS = 200
LEVELS = {8: "[8,6,5]", 9: "[8,8,8]", 10: "[8,5,5,5]", 12: "[7,5,5,5,5]", 14: "[8,8,8,6,5]", 16: "[8,8,8,5,5,5]"}
PULL = "losses.transform=1"
"""latents pulled to N(0, 1), which the Gaussian codebooks are made for"""
PEERS = ("vq", "vq-cosine", "simvq", "fsq", "lfq", "bsq", "residual", "product")


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
        "gaussian-bins": ["kind=gaussian_codebook", f"levels={LEVELS[bits]}", PULL],
        "gaussian-draws": ["kind=gaussian_codebook", "layout=draws", f"codebook_size={size}", PULL],
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
        result, data = fit(
            source, [setting if setting == PULL else f"model.quantizer.{setting}" for setting in overrides], seed, steps
        )
        found = evaluate(result.artifact, data).metrics
    finally:
        autoencoder.build_quantizer = original
    keys = ("psnr", "ssim", "usage", "entropy_bits", "perplexity", "bits_per_image")
    row = {key: found[key] for key in keys} | {"seconds": result.figures["training_seconds"]}
    row = {"source": source, "name": name, "bits": bits, "seed": seed} | row
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    arguments = options(__doc__)
    steps, seeds, sources = (20, 1, ["emoji"]) if arguments.quick else (STEPS, 3, ["fashion-mnist", "emoji"])
    names = [*families(9, False), *(f"peer {name}" for name in PEERS)]
    jobs = [(source, name, 9, arguments.seed + index, steps)
            for source in sources for name in names for index in range(seeds)]  # fmt: skip
    rows = in_parallel(run, jobs)
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
    return [*found, Claim("best_ours_minus_best_theirs_db", best[False] - best[True], "dB", "> 0", peer, settings)]


if __name__ == "__main__":
    main()
