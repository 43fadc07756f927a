"""Models of the built-in emoji that are trained in seconds, whole: with a prior, coders and an
older coder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .image_sets import arrays, open_set

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


# Stages of the residual models that `train_tiny` makes.
STAGES = {
    "codebooks": "{kind: vq, codebook_size: 16}",
    "scalar": "{kind: scalar, channels: 10, levels: 63}",
}


def train_tiny(folder: Path, seed: int, stage: str = STAGES["codebooks"]) -> Path:
    """A residual model with everything that an artifact can hold."""
    import vqkit

    residual = ["model.quantizer.kind=residual", "model.quantizer.num_stages=2"]
    residual += [f"model.quantizer.stage={stage}"]
    vqkit.train("emoji", folder, "emoji", [*TINY, *residual, f"seed={seed}"])
    vqkit.train_prior(folder, "emoji", "emoji", [*TINY_PRIOR, f"seed={seed}"])
    # Of other images, as a coder of scalar codes is the same for the same ones.
    others = folder.with_name(f"{folder.name}-others.npy")
    np.save(others, arrays(open_set("emoji", seed), range(64)))
    vqkit.train_coder(folder, others, steps=2, force=True)
    return folder
