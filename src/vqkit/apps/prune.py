"""A model with fewer codes that makes the same pictures: dead codes are taken out, duplicates merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from ..artifact import Artifact
from ..config import Config, SimVQConfig, VQConfig
from ..data import ImageData, split_batches
from ..errors import VqkitError
from ..metrics import code_counts
from ..model import Autoencoder

BATCH_SIZE = 128
NUM_COMPARED = 4096
"""images of a split whose pictures are compared at most"""
MIN_CODES = 2
ROWS = {"quantizer.codebook", "quantizer.ema_sum", "quantizer.ema_count", "quantizer.frozen"}
"""tensors with a row for each code"""


@dataclass(frozen=True)
class Comparison:
    """Pictures of two models over some images.

    images: how many. largest: difference of a value, in levels of 255. changed: share of the codes that became
    another code. beyond: images with a difference above the tolerance.
    """

    images: int
    largest: int
    changed: float
    beyond: int


@dataclass(frozen=True)
class Pruned:
    """The smaller model, and what it was measured by.

    kept: (K',) int64, ascending: new code i is old code kept[i]. dead: codes taken out because nothing used them,
    merged: because another was near enough. proof: over training images, which decided; held_out: over test images,
    which did not (None without any). dropped: prior and coder, which know the old numbers only, if they were there.
    """

    artifact: Artifact
    kept: Tensor
    dead: int
    merged: int
    proof: Comparison
    held_out: Comparison | None
    dropped: list[str]


@torch.no_grad()
def prune(
    artifact: Artifact,
    data: ImageData,
    *,
    tolerance: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> Pruned:
    """Take out the codes that no training or validation image uses, and of near duplicates as many as pictures allow.

    Of two duplicates the less used goes, and its places fall to the nearest code that is left. As many go, the
    nearest first, as leave every value of NUM_COMPARED training images within `tolerance` levels of what it was.
    Errors: VqkitError for a model without a single free codebook, when no code can go, and when pictures move
    although only dead codes went.
    """
    _check(artifact)
    counts = _counts(artifact, data, lambda share: progress(0.6 * share))
    used = counts > 0
    used[:MIN_CODES] |= int(used.sum()) < MIN_CODES  # a codebook has two codes at least
    order = _duplicates(artifact, counts, used)

    attempt = partial(_attempt, artifact, data, used, order, tolerance)
    merged, kept, proof = _most_merges(attempt, len(order), lambda share: progress(0.6 + 0.3 * share))
    if len(kept) == len(counts):
        raise VqkitError(
            f"nothing to prune: every code is used, and the pictures show every merge of two by more than {tolerance} "
            "levels; a larger --tolerance allows more"
        )
    smaller, dead = with_codes(artifact, kept), len(counts) - int(used.sum())
    held_out = compare(artifact, smaller, kept, data, "test", tolerance) if len(data.splits["test"]) else None
    figures = {"codes_before": len(counts), "codes": len(kept), "dead_codes": dead, "merged_codes": merged}
    seen = {"proof": asdict(proof), "held_out": asdict(held_out) if held_out else None}
    smaller.metrics.update({"pruned_from": artifact.content_id, **figures, "tolerance": tolerance, **seen})
    dropped = [name for name in ("coder", "prior") if getattr(artifact, name) is not None]
    return Pruned(smaller, kept, dead, merged, proof, held_out, dropped)


def _attempt(
    artifact: Artifact, data: ImageData, used: Tensor, order: Tensor, tolerance: int, merged: int
) -> tuple[Tensor, Comparison]:
    """The codes that are left without the first `merged` of `order`, and what that does to training images."""
    kept = used.clone()
    kept[order[:merged]] = False
    numbers = kept.nonzero()[:, 0]
    return numbers, compare(artifact, with_codes(artifact, numbers), numbers, data, "train", tolerance)


def _most_merges(
    attempt: Callable[[int], tuple[Tensor, Comparison]], most: int, progress: Callable[[float], None]
) -> tuple[int, Tensor, Comparison]:
    """How many merges leave no picture beyond the tolerance, by bisection, and what `attempt` gave for as many."""
    kept, proof = attempt(0)
    if proof.beyond:
        raise VqkitError(
            f"without its dead codes alone a picture changes by {proof.largest} levels; a larger --tolerance allows it"
        )
    fits, too_many = 0, most + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        found = attempt(middle)
        if found[1].beyond:
            too_many = middle
        else:
            fits, (kept, proof) = middle, found
        progress(1 - (too_many - fits) / (most + 1))
    return fits, kept, proof


def with_codes(artifact: Artifact, kept: Tensor) -> Artifact:
    """The same model with the codes `kept` (K',) alone, renumbered in that order; without coder, prior and figures."""
    quantizer = artifact.config.model.quantizer
    changes = {"codebook_size": len(kept)}
    if isinstance(quantizer, VQConfig):
        # What is left is no map of rows and columns any more.
        changes |= {"neighbourhood": 0, "neighbourhood_steps": VQConfig().neighbourhood_steps}
    model_config = artifact.config.model.model_copy(update={"quantizer": quantizer.model_copy(update=changes)})
    config: Config = artifact.config.model_copy(update={"model": model_config})
    shape, pixels = (artifact.channels, *artifact.size), artifact.normalisation
    model = Autoencoder(config.model, shape, config.losses, pixels.std, pixels.mean)
    tensors = artifact.model.state_dict()
    model.load_state_dict({name: value[kept] if name in ROWS else value for name, value in tensors.items()})
    return Artifact(config, model.eval(), artifact.data)


@torch.no_grad()
def compare(before: Artifact, after: Artifact, kept: Tensor, data: ImageData, split: str, tolerance: int) -> Comparison:
    """Two models that differ in their codes alone, over at most NUM_COMPARED images of a split; `kept` as in Pruned.

    Pictures are decoded where a code became another; the same codes with the same vectors make the same picture.
    """
    images = largest = beyond = changed = total = 0
    for batch in _batches(data, split, NUM_COMPARED):
        latents = before.model.latents(before.standardise(batch))
        old, new = (model.model.quantizer.encode(latents) for model in (before, after))
        moved = kept[new] != old
        images, total, changed = images + len(batch), total + old.numel(), changed + int(moved.sum())
        touched = moved.flatten(1).any(1)
        if bool(touched.any()):
            pictures = before.decode(old[touched], data.size), after.decode(new[touched], data.size)
            pixels, others = (torch.from_numpy(each).short() for each in pictures)
            difference = (pixels - others).abs().flatten(1).amax(1)
            largest, beyond = max(largest, int(difference.max())), beyond + int((difference > tolerance).sum())
    return Comparison(images, largest, changed / max(total, 1), beyond)


def _check(artifact: Artifact) -> None:
    quantizer = artifact.config.model.quantizer
    if isinstance(quantizer, (VQConfig, SimVQConfig)):
        return
    if quantizer.kind in ("residual", "product", "hierarchical"):
        raise VqkitError(
            f"prune takes codes out of a single codebook; those of quantizer.kind={quantizer.kind} share one size"
        )
    raise VqkitError(f"nothing to prune: quantizer.kind={quantizer.kind} has no codebook from which a code could go")


def _counts(artifact: Artifact, data: ImageData, progress: Callable[[float], None]) -> Tensor:
    """How often each code (K,) occurs in the training and validation images."""
    size = artifact.model.quantizer.codebook_size
    counts = torch.zeros(size, dtype=torch.long)
    total, done = sum(len(data.splits[split]) for split in ("train", "validation")), 0
    for split in ("train", "validation"):
        for batch in _batches(data, split, len(data.splits[split])):
            counts += code_counts(artifact.model.encode(artifact.standardise(batch)), size)[0]
            done += len(batch)
            progress(done / total)
    if not done:
        raise VqkitError(f"{data.name} has no training images to count codes in")
    return counts


def _batches(data: ImageData, split: str, num: int) -> Iterator[Tensor]:
    """Images (B, C, H, W) uint8 of a split, the first `num` rounded up to whole batches."""
    for _, images in islice(split_batches(data, split, BATCH_SIZE), -(-num // BATCH_SIZE)):
        yield images


def _duplicates(artifact: Artifact, counts: Tensor, used: Tensor) -> Tensor:
    """Codes that could go, those nearest to another code first, of each such pair the less used one.

    No code goes because of one that went before it, and MIN_CODES stay.
    """
    numbers = used.nonzero()[:, 0]
    vectors = artifact.model.quantizer.parts()[0].lookup(numbers[:, None]).double()
    distances, nearest = [], []
    for start in range(0, len(vectors), 1024):
        apart = torch.cdist(vectors[start : start + 1024], vectors)
        apart.scatter_(1, torch.arange(start, start + len(apart))[:, None], torch.inf)
        found = apart.min(1)
        distances.append(found.values)
        nearest.append(found.indices)
    others, gone = torch.cat(nearest).tolist(), list[int]()
    paired: set[int] = set()
    for row in torch.cat(distances).argsort(stable=True).tolist():
        pair = int(numbers[row]), int(numbers[others[row]])
        if paired.isdisjoint(pair):
            paired.update(pair)
            gone.append(min(pair, key=lambda code: (int(counts[code]), -code)))
    return torch.tensor(gone[: len(numbers) - MIN_CODES], dtype=torch.long)
