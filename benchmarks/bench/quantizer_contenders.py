"""Every quantizer of ours, and those of vector-quantize-pytorch, in one network and trainer."""

from __future__ import annotations

import json
from contextlib import nullcontext
from unittest.mock import patch

import torch

from bench.short_runs import fit

STEPS = 200
LEVELS = {
    8: "[8,6,5]",
    9: "[8,8,8]",
    10: "[8,5,5,5]",
    12: "[7,5,5,5,5]",
    14: "[8,8,8,6,5]",
    16: "[8,8,8,5,5,5]",
}
# Latents pulled to N(0, 1), which the Gaussian codebooks are made for.
PULL = "losses.transform=1"
# Rows of benchmarks/families.py --ideas: a way to train, or the weight of a bit in vq, which has
# a curve that the others are held beside; more settings of the quantizer.
IDEAS = {
    "vq-rate 0": [],
    "vq-frozen 0.85": [],
    "vq-causal 0.1": [],
    "vq-diveq 0.001": ["update=gradient"],
    "vq-rate 0.1": ["rate=0.1"],
}
PEERS = ("vq", "vq-cosine", "simvq", "fsq", "lfq", "bsq", "residual", "product")


def families(bits: int, emoji: bool) -> dict[str, list[str]]:
    """Overrides of model.quantizer for every family of ours at `bits` a position."""
    size = 1 << bits
    third = 1 << (bits // 3)
    vq = ["kind=vq", f"codebook_size={size}", "decay=0.98", "revive_threshold=0.1"]
    top, bottom = (16, 256) if emoji else (11, 64)
    # Positions of the latents' grid; those of Fashion-MNIST are padded to as many as emoji have,
    # which have 4 + 16 + 64 codes.
    positions = 64 if emoji else 49
    of_a_grid = round(2 ** (bits * positions / 84))
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
        "residual": [
            "kind=residual",
            "num_stages=3",
            f"stage={{kind: vq, codebook_size: {third}, decay: 0.98}}",
        ],
        "product": [
            "kind=product",
            "num_groups=3",
            f"group={{kind: vq, codebook_size: {third}, code_dim: 6, decay: 0.98}}",
        ],
        "hierarchical": [
            "kind=hierarchical",
            f"top={{kind: vq, codebook_size: {top}, decay: 0.98}}",
            f"bottom={{kind: vq, codebook_size: {bottom}, decay: 0.98}}",
            "latent_dim=64",
        ],
        "pyramid": [
            "kind=pyramid",
            f"stage={{kind: vq, codebook_size: {of_a_grid}, decay: 0.98}}",
        ],
    }


def run(job: tuple[str, str, int, int, int]) -> dict:
    """Train one contender and measure it on the test split. job: source, name, bits a position,
    seed, steps.
    """
    from vqkit.apps.evaluate import evaluate

    source, name, bits, seed, steps = job
    overrides = [] if name.startswith("peer") else families(bits, source == "emoji")[name]
    settings = [
        setting if setting == PULL else f"model.quantizer.{setting}" for setting in overrides
    ]
    with (
        peer_quantizer(name.removeprefix("peer "), bits)
        if name.startswith("peer")
        else nullcontext()
    ):
        trained = fit(source, settings, seed, steps)
        found = evaluate(trained.model, trained.data).metrics
    keys = ("psnr", "ssim", "usage", "entropy_bits", "perplexity", "bits_per_item")
    row = {key: found[key] for key in keys} | {"seconds": trained.figures["training_seconds"]}
    row = {"source": source, "name": name, "bits": bits, "seed": seed} | row
    print(json.dumps(row), flush=True)
    return row


def run_idea(job: tuple[str, str, int, int, int]) -> dict:
    """As `run`, of a name in IDEAS, with the bits of a code in files."""
    from bench.training_ideas import bits_of_files, idea, in_place
    from vqkit.apps.evaluate import evaluate

    source, name, bits, seed, steps = job
    chosen = idea(name)
    overrides = [*families(bits, source == "emoji")["vq"], *IDEAS[name]]
    settings = [f"model.quantizer.{setting}" for setting in overrides]
    with in_place(chosen):
        trained = fit(source, settings, seed, steps, chosen.task)
    found = evaluate(trained.model, trained.data).metrics
    codes = torch.cat(
        [trained.model.tokenizer.encode(batch.values) for batch in trained.data.split("test", 500)]
    )
    row = {key: found[key] for key in ("psnr", "ssim", "usage", "entropy_bits")}
    row["file_bits"] = bits_of_files(codes, 1 << bits)
    row["seconds"] = trained.figures["training_seconds"]
    row = {"source": source, "name": name, "bits": bits, "seed": seed} | row
    print(json.dumps(row), flush=True)
    return row


def peer_quantizer(name: str, bits: int):
    """Inside, every autoencoder that is built has a quantizer of the peer, whatever its settings
    say.
    """
    from bench.peer_quantizers import build_peer

    return patch("vqkit.model.autoencoder.build_quantizer", lambda settings: build_peer(name, bits))
