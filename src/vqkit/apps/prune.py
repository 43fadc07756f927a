"""A model with fewer codes and the same reconstructions: without dead codes and duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from ..artifact.build import build_model
from ..artifact.model import Model
from ..artifact.record import Artifact
from ..config.quantizers import SimVQConfig, VQConfig
from ..data.dataset import Dataset
from ..errors import VqkitError
from ..metrics import code_counts

BATCH_SIZE = 128
# Items of a split whose reconstructions are compared at most.
NUM_COMPARED = 4096
MIN_CODES = 2
# Tensors with a row for each code.
ROWS = {"quantizer.codebook", "quantizer.ema_sum", "quantizer.ema_count", "quantizer.frozen"}


@dataclass(frozen=True)
class Comparison:
    """Reconstructions of two models over some items.

    images: how many. largest: difference of a value, in levels. changed: share of the codes that
    became another code. beyond: items with a difference above the tolerance.
    """

    images: int
    largest: int
    changed: float
    beyond: int


@dataclass(frozen=True)
class Pruned:
    """The smaller model, and what it was measured by.

    kept: (K',) int64, ascending: new code i is old code kept[i]. dead: codes taken out because
    nothing used them, merged: because another was near enough. proof: over training items, which
    decided; held_out: over test items, which did not (None without any). dropped: prior and coder,
    which know the old numbers only, if they were there.
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
    model: Model,
    data: Dataset,
    *,
    tolerance: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> Pruned:
    """Take out the codes that no training or validation item uses, and near duplicates as
    reconstructions allow.

    Of two duplicates the less used goes, and its places fall to the nearest code that is left. As
    many go, the nearest first, as leave every value of NUM_COMPARED training items within
    `tolerance` levels of what it was.
    Errors: VqkitError for a model without a single free codebook, when no code can go, and when
    reconstructions change although only dead codes went.
    """
    _check(model)
    counts = _counts(model, data, lambda share: progress(0.6 * share))
    used = counts > 0
    # A codebook has two codes at least.
    used[:MIN_CODES] |= int(used.sum()) < MIN_CODES
    order = _duplicates(model, counts, used)

    def told(share: float) -> None:
        progress(0.6 + 0.3 * share)

    attempt = partial(_attempt, model, data, used, order, tolerance)
    merged, kept, proof = _most_merges(attempt, len(order), told)
    if len(kept) == len(counts):
        raise VqkitError(
            "nothing to prune: every code is used, and reconstructions show every merge of two by "
            f"more than {tolerance} levels; a larger --tolerance allows more"
        )
    smaller = with_codes(model, kept)
    dead = len(counts) - int(used.sum())
    held_out = None
    if len(data.splits["test"]):
        held_out = compare(model, smaller, kept, data, "test", tolerance)
    metrics = {
        "pruned_from": model.content_id,
        "codes_before": len(counts),
        "codes": len(kept),
        "dead_codes": dead,
        "merged_codes": merged,
        "tolerance": tolerance,
        "proof": asdict(proof),
        "held_out": asdict(held_out) if held_out else None,
    }
    dropped = []
    if model.artifact.coders.codes is not None:
        dropped.append("coder")
    if model.artifact.prior is not None:
        dropped.append("prior")
    artifact = replace(smaller.artifact, metrics=metrics)
    return Pruned(artifact, kept, dead, merged, proof, held_out, dropped)


def _attempt(
    model: Model, data: Dataset, used: Tensor, order: Tensor, tolerance: int, merged: int
) -> tuple[Tensor, Comparison]:
    """The codes that are left without the first `merged` of `order`, and what that does to training
    items.
    """
    kept = used.clone()
    kept[order[:merged]] = False
    numbers = kept.nonzero()[:, 0]
    return numbers, compare(model, with_codes(model, numbers), numbers, data, "train", tolerance)


def _most_merges(
    attempt: Callable[[int], tuple[Tensor, Comparison]],
    most: int,
    progress: Callable[[float], None],
) -> tuple[int, Tensor, Comparison]:
    """How many merges leave no item beyond the tolerance, by bisection, and what `attempt` gave for
    as many.
    """
    kept, proof = attempt(0)
    if proof.beyond:
        raise VqkitError(
            f"without its dead codes alone a reconstruction changes by {proof.largest} levels; a "
            "larger --tolerance allows it"
        )
    fits = 0
    too_many = most + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        kept_then, proof_then = attempt(middle)
        if proof_then.beyond:
            too_many = middle
        else:
            fits = middle
            kept = kept_then
            proof = proof_then
        progress(1 - (too_many - fits) / (most + 1))
    return fits, kept, proof


def with_codes(model: Model, kept: Tensor) -> Model:
    """The same model with the codes `kept` (K',) alone, renumbered in that order.

    Without coder, prior and figures.
    """
    artifact = model.artifact
    quantizer = artifact.config.model.quantizer
    changes = {"codebook_size": len(kept)}
    if isinstance(quantizer, VQConfig):
        # What is left is no map of rows and columns any more.
        changes |= {"neighbourhood": 0, "neighbourhood_steps": VQConfig().neighbourhood_steps}
    model_config = artifact.config.model.model_copy(
        update={"quantizer": quantizer.model_copy(update=changes)}
    )
    config = artifact.config.model_copy(update={"model": model_config})
    network = build_model(config, artifact.shape, artifact.normalisation)
    tensors = artifact.network.state_dict()
    for name in ROWS & tensors.keys():
        tensors[name] = tensors[name][kept]
    network.load_state_dict(tensors)
    return Model(
        Artifact(config, network.eval(), artifact.data, licence=artifact.licence), model.device
    )


@torch.no_grad()
def compare(
    before: Model, after: Model, kept: Tensor, data: Dataset, split: str, tolerance: int
) -> Comparison:
    """Two models that differ in their codes alone, over at most NUM_COMPARED items of a split.

    `kept` as in Pruned.

    Items are decoded where a code became another; the same codes with the same vectors make the
    same reconstruction.
    """
    images = largest = beyond = changed = total = 0
    for batch in _batches(data, split, NUM_COMPARED):
        latents = before.network.latents(before.tokenizer.standardise(batch))
        old = before.network.quantizer.encode(latents).cpu()
        new = after.network.quantizer.encode(latents).cpu()
        moved = kept[new] != old
        images += len(batch)
        total += old.numel()
        changed += int(moved.sum())
        touched = moved.flatten(1).any(1)
        if bool(touched.any()):
            values = before.tokenizer.decode(old[touched], data.shape.extent)
            others = after.tokenizer.decode(new[touched], data.shape.extent)
            difference = (values.float() - others.float()).abs().flatten(1).amax(1)
            largest = max(largest, int(difference.max()))
            beyond += int((difference > tolerance).sum())
    return Comparison(images, largest, changed / max(total, 1), beyond)


def _check(model: Model) -> None:
    quantizer = model.config.model.quantizer
    if isinstance(quantizer, (VQConfig, SimVQConfig)):
        return
    if quantizer.kind in ("residual", "product", "hierarchical", "pyramid"):
        raise VqkitError(
            f"prune takes codes out of a single codebook; those of quantizer.kind={quantizer.kind} "
            "share one size"
        )
    raise VqkitError(
        f"nothing to prune: quantizer.kind={quantizer.kind} has no codebook from which a code "
        "could go"
    )


def _counts(model: Model, data: Dataset, progress: Callable[[float], None]) -> Tensor:
    """How often each code (K,) occurs in the training and validation items."""
    size = model.network.quantizer.codebook_size
    counts = torch.zeros(size, dtype=torch.long)
    total = len(data.splits["train"]) + len(data.splits["validation"])
    done = 0
    for split in ("train", "validation"):
        for batch in _batches(data, split, len(data.splits[split])):
            counts += code_counts(model.tokenizer.encode(batch), size)[0]
            done += len(batch)
            progress(done / total)
    if not done:
        raise VqkitError(f"{data.name} has no training items to count codes in")
    return counts


def _batches(data: Dataset, split: str, num: int) -> Iterator[Tensor]:
    """Values (B, C, *extent) of a split, the first `num` rounded up to whole batches."""
    for batch in islice(data.split(split, BATCH_SIZE), -(-num // BATCH_SIZE)):
        yield batch.values


def _duplicates(model: Model, counts: Tensor, used: Tensor) -> Tensor:
    """Codes that could go, those nearest to another code first, of each such pair the less used
    one.

    No code goes because of one that went before it, and MIN_CODES stay.
    """
    numbers = used.nonzero()[:, 0]
    quantizer = model.artifact.network.quantizer
    vectors = quantizer.parts()[0].lookup(numbers[:, None]).double()
    distances = []
    nearest = []
    for start in range(0, len(vectors), 1024):
        apart = torch.cdist(vectors[start : start + 1024], vectors)
        # A code is not its own neighbour.
        own = torch.arange(start, start + len(apart))[:, None]
        closest = apart.scatter_(1, own, torch.inf).min(1)
        distances.append(closest.values)
        nearest.append(closest.indices)
    others = torch.cat(nearest).tolist()
    gone: list[int] = []
    paired: set[int] = set()
    for row in torch.cat(distances).argsort(stable=True).tolist():
        pair = (int(numbers[row]), int(numbers[others[row]]))
        if paired.isdisjoint(pair):
            paired.update(pair)
            gone.append(min(pair, key=lambda code: (int(counts[code]), -code)))
    return torch.tensor(gone[: len(numbers) - MIN_CODES], dtype=torch.long)
