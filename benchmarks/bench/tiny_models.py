"""Models of the built-in emoji that are trained in seconds, whole: with a prior, coders and an
older coder.
"""

from __future__ import annotations

from pathlib import Path

TINY = [
    "train.steps=10",
    "train.batch_size=32",
    "train.guard=off",
    "model.network.width=32",
    "model.network.encoder_blocks=1",
    "model.network.decoder_blocks=1",
    "coder.steps=5",
]
TINY_PRIOR = [
    "train.steps=3",
    "train.batch_size=16",
    "network.width=32",
    "network.num_blocks=1",
    "network.num_heads=2",
]


def train_tiny(folder: Path, seed: int) -> Path:
    """A residual model with everything that an artifact can hold."""
    import vqkit

    residual = ["model.quantizer.kind=residual", "model.quantizer.num_stages=2"]
    residual += ["model.quantizer.stage={kind: vq, codebook_size: 16}"]
    vqkit.train("emoji", folder, "emoji", [*TINY, *residual, f"seed={seed}"])
    vqkit.train_prior(folder, "emoji", "emoji", [*TINY_PRIOR, f"seed={seed}"])
    vqkit.train_coder(folder, "emoji", steps=2, force=True)
    return folder
