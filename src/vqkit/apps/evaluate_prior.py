"""How well does a prior predict the codes of a set of images, and how near are its samples to what it was shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..artifact import Artifact
from ..data import ImageData, split_batches
from ..errors import VqkitError
from ..metrics import code_counts
from ..model.prior import Condition, Prior

BATCH_SIZE = 128
NUM_HELD_OUT = 512
NUM_COUNTED = 1 << 18
"""codes of training images, of each codebook, that are enough for the frequencies of a prior without context"""


@dataclass(frozen=True)
class PriorEvaluation:
    """Figures of one split.

    metrics: bits_per_code and bits_per_image (what the codes of an image cost under the prior that is told its class or
    caption), label_bits (what the class costs, uniformly; None for captions), bits_per_code_untold (told nothing),
    order0_bits (per code under the frequencies of training codes: the best that a prior without context does), and
    saving_vs_order0, of the cheaper of told with its class paid for, and untold. bits_per_image: (N,) float64, told.
    """

    metrics: dict[str, Any]
    bits_per_image: np.ndarray


@dataclass(frozen=True)
class Nearness:
    """How near images come to those that were trained on; distances are those of `nearest_images`.

    nearest: uint8 (N, H, W, C), the training image nearest to each sample. distances: (N,) of the samples.
    reconstructed_distances: (M,) of held-out images after the model has encoded and decoded them: the yardstick for
    samples, which come out of the same decoder. Decoded pictures are smoother than images and so lie nearer to
    everything: against held-out images as they are, samples of a prior that copies nothing would pass for copies. Or,
    where the model errs much, they lie farther from their originals than images from their near twins, and copies would
    pass for new.
    held_out_distances: (M,) of the same images as they are; 0 is one that was trained on as well.
    """

    nearest: np.ndarray
    distances: np.ndarray
    reconstructed_distances: np.ndarray
    held_out_distances: np.ndarray


@torch.no_grad()
def evaluate_prior(
    artifact: Artifact, data: ImageData, split: str = "test", progress: Callable[[float], None] | None = None
) -> PriorEvaluation:
    """Code lengths of a split (train, validation or test) under the artifact's prior.

    Errors: VqkitError without a prior, and when the split is empty.
    """
    prior, sizes = artifact.wanted_prior(), artifact.model.quantizer.codebook_sizes
    counts = torch.zeros(len(sizes), max(sizes), dtype=torch.long)
    told, untold = [], []
    for indices, images in split_batches(data, split, BATCH_SIZE):
        codes = artifact.model.encode(artifact.standardise(images))
        counts += code_counts(codes, max(sizes))
        condition = described(prior, data, indices)
        told.append(prior.bits(codes, condition))
        untold.append(told[-1] if condition.is_empty else prior.bits(codes))
        if progress:
            progress(sum(map(len, told)) / len(data.splits[split]))
    if not told:
        raise VqkitError(f"the {split} split of {data.name} is empty; choose another with --split")
    order0 = without_context(_training_counts(artifact, data), counts, sizes)
    return _collect(prior, split, torch.cat(told), torch.cat(untold), order0)


def _training_counts(artifact: Artifact, data: ImageData) -> Tensor:
    """How often each code occurs (Q, K) in the first training images; all 0 without any."""
    sizes = artifact.model.quantizer.codebook_sizes
    counts = torch.zeros(len(sizes), max(sizes), dtype=torch.long)
    for _, images in split_batches(data, "train", BATCH_SIZE):
        counts += code_counts(artifact.model.encode(artifact.standardise(images)), max(sizes))
        if int(counts[0].sum()) >= NUM_COUNTED:
            break
    return counts


def without_context(known: Tensor, counts: Tensor, sizes: Sequence[int]) -> float:
    """Bits per code of `counts` (Q, K) under the frequencies of `known` (Q, K), each code counted once more.

    Of known codes and not of the coded ones' own: a few images use few codes, whose histogram no decoder has. Mean over
    codebooks, of which the first `sizes` codes are real.
    """
    bits = []
    for row, seen, size in zip(counts.double(), known.double(), sizes, strict=True):
        smoothed = seen[:size] + 1
        bits.append(float(-(row[:size] / row.sum()) @ (smoothed / smoothed.sum()).log2()))
    return sum(bits) / len(bits)


def described(prior: Prior, data: ImageData, indices: np.ndarray) -> Condition:
    """What the data say of these images, as far as the prior can be told; nothing for data without labels."""
    if prior.has_captions and data.captions:
        return prior.told(len(indices), prompts=[data.captions[int(index)] for index in indices])
    if prior.classes and data.groups:
        return prior.told(len(indices), [data.groups[int(index)] for index in indices])
    return Condition()


def _collect(prior: Prior, split: str, told: Tensor, untold: Tensor, order0: float) -> PriorEvaluation:
    length, has_classes = prior.layout.length, bool(prior.classes)
    label_bits = float(np.log2(len(prior.classes))) if has_classes else None if prior.has_captions else 0.0
    best = float(untold.mean()) / length
    if label_bits is not None:
        best = min(best, (float(told.mean()) + label_bits) / length)
    metrics = {
        "split": split,
        "images": len(told),
        "bits_per_code": float(told.mean()) / length,
        "bits_per_image": float(told.mean()),
        "label_bits": label_bits,
        "bits_per_code_untold": float(untold.mean()) / length,
        "order0_bits": order0,
        "saving_vs_order0": 1.0 - best / order0 if order0 else 0.0,
    }
    return PriorEvaluation(metrics, told.numpy())


def nearness(artifact: Artifact, data: ImageData, samples: np.ndarray) -> Nearness:
    """Of samples uint8 (N, H, W, C), and of at most NUM_HELD_OUT images of the validation or else the test split.

    Files of a streamed set that cannot be decoded are left out.
    Errors: VqkitError when the training split is empty.
    """
    split = "validation" if len(data.splits["validation"]) else "test"
    indices = data.splits[split][:NUM_HELD_OUT]
    images = data.read(indices) if data.in_memory else data.read_good(indices)[1]
    held_out = images.permute(0, 2, 3, 1).contiguous().numpy()
    reconstructions = artifact.reconstruct(held_out) if len(held_out) else held_out
    apart = [nearest_images(data, images)[1] for images in (reconstructions, held_out)]
    return Nearness(*nearest_images(data, samples), *apart)


@torch.no_grad()
def nearest_images(data: ImageData, images: np.ndarray, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """For each of `images` uint8 (N, H, W, C) the nearest of a split: its pixels, and the distance (N,).

    The distance is the root mean square over pixels, 0 to 255. Errors: VqkitError when the split is empty.
    """
    wanted = torch.from_numpy(images).permute(0, 3, 1, 2).flatten(1).double()  # exact: float32 would lose it
    best = torch.full((len(wanted),), torch.inf, dtype=torch.float64)
    found = torch.zeros(len(wanted), dtype=torch.long)
    for indices, pixels in split_batches(data, split, 1024):
        distances, places = torch.cdist(wanted, pixels.flatten(1).double()).min(1)
        closer = distances < best
        best = torch.where(closer, distances, best)
        found = torch.where(closer, torch.from_numpy(np.asarray(indices))[places], found)
    if len(wanted) and not bool(best.isfinite().all()):
        raise VqkitError(f"the {split} split of {data.name} is empty")
    neighbours = data.read(found).permute(0, 2, 3, 1).contiguous().numpy()
    return neighbours, (best / wanted.shape[1] ** 0.5).numpy()
