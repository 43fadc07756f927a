"""How good is a model on a set of images: distortion, use of the codebook, rate, and the images that tell most."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..artifact import Artifact
from ..data import ImageData, open_images, split_batches
from ..errors import VqkitError
from ..metrics import code_counts, code_figures, psnr, ssim, to_pixels

BATCH_SIZE = 128
GALLERY = 48
RANKED = 8


@dataclass(frozen=True)
class Examples:
    """Images beside what the model makes of them: uint8 (N, H, W, C) twice, names and PSNR in dB, one each."""

    names: list[str]
    psnr: list[float]
    originals: np.ndarray
    reconstructions: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Figures of one split.

    metrics: psnr (dB, mean over images), ssim, usage (share of codes hit), perplexity, entropy_bits, code_entropy (its
    share of log2 K), bits_per_image, bpp, images, split; those of codes are None where there are none to count.
    code_counts: (K,) int64 for each codebook, or None. psnr_per_image: (N,). gallery: spread evenly over the split.
    """

    metrics: dict[str, Any]
    code_counts: list[np.ndarray] | None
    psnr_per_image: np.ndarray
    gallery: Examples
    worst: Examples
    best: Examples


def open_for(artifact: Artifact, source: str | Path, split: str) -> ImageData:
    """The images of `source` as the artifact was trained to see them: its size, channels, normalisation and splits."""
    shares = {"validation": 0.0, "test": 0.0} if split == "all" else {}
    settings = artifact.config.data.model_copy(
        update={"image_size": artifact.size, "channels": artifact.channels, **shares}
    )
    return open_images(source, settings, artifact.config.seed, artifact.normalisation)


@torch.no_grad()
def evaluate(
    artifact: Artifact, data: ImageData, split: str = "test", progress: Callable[[float], None] | None = None
) -> Evaluation:
    """Measure a model on a split of `data` (train, validation, test or all).

    Pixels are rounded to 8 bits before they are compared. `progress` is called with the share that is done.
    Errors: VqkitError when the split is empty.
    """
    quantizer = artifact.model.quantizer
    counts = torch.zeros(quantizer.num_codebooks, quantizer.codebook_size if quantizer.is_countable else 1).long()
    indices, distortions, similarities = [], [], []
    name = "train" if split == "all" else split
    total = len(data.splits[name]) + (len(data.splits["test"]) if split == "all" else 0)
    if total == 0:
        raise VqkitError(f"the {split} split of {data.name} is empty; choose another with --split")
    for part in ("train", "test") if split == "all" else (name,):
        for chosen, images in split_batches(data, part, BATCH_SIZE):
            output = artifact.model(artifact.standardise(images))
            pixels = to_pixels(artifact.normalisation.undo(output.reconstruction))
            distortions.append(psnr(pixels, images))
            similarities.append(ssim(pixels, images))
            indices.append(np.asarray(chosen))
            if quantizer.is_countable:
                counts += code_counts(output.codes, quantizer.codebook_size)
            if progress:
                progress(sum(map(len, indices)) / total)
    return _collect(
        artifact, data, split, np.concatenate(indices), torch.cat(distortions), torch.cat(similarities), counts
    )


def _collect(
    artifact: Artifact,
    data: ImageData,
    split: str,
    indices: np.ndarray,
    distortions: torch.Tensor,
    similarities: torch.Tensor,
    counts: torch.Tensor,
) -> Evaluation:
    quantizer, values = artifact.model.quantizer, distortions.numpy()
    bits = artifact.model.bits_per_image(data.size)
    counted = quantizer.per_codebook(counts) if quantizer.is_countable else []
    figures = code_figures(counted) if counted else {}
    metrics: dict[str, Any] = {
        "split": split,
        "images": len(values),
        "psnr": float(distortions.double().mean()),
        "ssim": float(similarities.double().mean()),
        **{key: figures.get(key) for key in ("usage", "perplexity", "code_entropy", "entropy_bits")},
        "bits_per_image": bits,
        "bpp": bits / math.prod(data.size),
    }
    order = np.argsort(values, kind="stable")
    spread = np.linspace(0, len(values) - 1, min(GALLERY, len(values))).round().astype(int)

    def examples(positions: np.ndarray) -> Examples:
        originals = data.read(indices[positions]).permute(0, 2, 3, 1).contiguous().numpy()
        names = [str(data.names[int(index)]) for index in indices[positions]]
        return Examples(names, values[positions].tolist(), originals, artifact.reconstruct(originals))

    return Evaluation(
        metrics,
        [row.numpy() for row in counted] or None,
        values,
        examples(spread),
        examples(order[:RANKED]),
        examples(order[::-1][:RANKED]),
    )
