"""How well a prior predicts the codes of a set of items, and how near its samples are to those it
was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..artifact.model import Model
from ..data.dataset import Dataset
from ..errors import VqkitError
from ..metrics import code_counts
from ..prior.network import Condition
from ..prior.prior import Prior

BATCH_SIZE = 128
NUM_HELD_OUT = 512
# Grey levels that an item without content varies by at most.
EVEN = 1.0
# Codes of training items, of each codebook, that are enough for the frequencies of a prior without
# context.
NUM_COUNTED = 1 << 18


@dataclass(frozen=True)
class PriorEvaluation:
    """Figures of one split.

    metrics: bits_per_code and bits_per_item (what the codes of an item cost under the prior
    conditioned on its class or caption), label_bits (what the class costs, uniformly; None for
    captions), bits_per_code_untold (unconditional), order0_bits (per code under the frequencies of
    training codes: the best that a prior without context does), and saving_vs_order0, of the
    cheaper of conditional with its class paid for, and unconditional. bits_per_item: (N,) float64,
    conditional.
    """

    metrics: dict[str, Any]
    bits_per_item: np.ndarray


@dataclass(frozen=True)
class Nearness:
    """How near items come to those that were trained on; distances are those of `nearest_items`.

    nearest: values (N, C, *extent), the training item nearest to each sample. distances: (N,) of
    the samples.
    reconstructed_distances: (M,) of held-out items after the model has encoded and decoded them:
    the yardstick for samples, which come out of the same decoder. Decoded items are smoother than
    real ones and so lie nearer to everything: against held-out items as they are, samples of a
    prior that copies nothing would pass for copies. Or, where the model errs much, they lie farther
    from their originals than items from their near twins, and copies would pass for new.
    held_out_distances: (M,) of the same items as they are; 0 is one that was trained on as well.
    """

    nearest: Tensor
    distances: np.ndarray
    reconstructed_distances: np.ndarray
    held_out_distances: np.ndarray


@torch.no_grad()
def evaluate_prior(
    model: Model,
    data: Dataset,
    split: str = "test",
    progress: Callable[[float], None] | None = None,
) -> PriorEvaluation:
    """Code lengths of a split (train, validation or test) under the model's prior.

    Errors: VqkitError without a prior, and when the split is empty.
    """
    prior = model.wanted_prior()
    sizes = model.network.quantizer.codebook_sizes
    counts = torch.zeros(len(sizes), max(sizes), dtype=torch.long)
    told = []
    untold = []
    for batch in data.split(split, BATCH_SIZE):
        codes = model.tokenizer.encode(batch.values, batch.mask)
        counts += code_counts(codes, max(sizes))
        condition = described(prior, data, batch.ids)
        bits = prior.bits(codes, condition)
        told.append(bits)
        untold.append(bits if condition.is_empty else prior.bits(codes))
        if progress:
            progress(sum(map(len, told)) / len(data.splits[split]))
    if not told:
        raise VqkitError(f"the {split} split of {data.name} is empty; choose another with --split")
    order0 = without_context(_training_counts(model, data), counts, sizes)
    return _collect(prior, split, torch.cat(told), torch.cat(untold), order0)


def _training_counts(model: Model, data: Dataset) -> Tensor:
    """How often each code occurs (Q, K) in the first training items; all 0 without any."""
    sizes = model.network.quantizer.codebook_sizes
    counts = torch.zeros(len(sizes), max(sizes), dtype=torch.long)
    for batch in data.split("train", BATCH_SIZE):
        counts += code_counts(model.tokenizer.encode(batch.values, batch.mask), max(sizes))
        if int(counts[0].sum()) >= NUM_COUNTED:
            break
    return counts


def without_context(known: Tensor, counts: Tensor, sizes: Sequence[int]) -> float:
    """Bits per code of `counts` (Q, K) under the frequencies of `known` (Q, K), each code counted
    once more.

    Of known codes and not of the coded ones' own: a few items use few codes, whose histogram no
    decoder has. Mean over codebooks, of which the first `sizes` codes are real.
    """
    bits = []
    for row, seen, size in zip(counts.double(), known.double(), sizes, strict=True):
        smoothed = seen[:size] + 1
        bits.append(float(-(row[:size] / row.sum()) @ (smoothed / smoothed.sum()).log2()))
    return sum(bits) / len(bits)


def described(prior: Prior, data: Dataset, indices: np.ndarray) -> Condition:
    """What the data say of these items, as far as the prior knows it.

    Nothing for data without labels.
    """
    if prior.has_captions and data.captions:
        prompts = [data.captions[int(index)] for index in indices]
        return prior.condition(len(indices), prompts=prompts)
    if prior.classes and data.groups:
        classes = [data.groups[int(index)] for index in indices]
        return prior.condition(len(indices), classes)
    return Condition()


def _collect(
    prior: Prior, split: str, told: Tensor, untold: Tensor, order0: float
) -> PriorEvaluation:
    length = prior.layout.length
    # What a caption costs is not known.
    label_bits: float | None = None if prior.has_captions else 0.0
    if prior.classes:
        label_bits = float(np.log2(len(prior.classes)))
    best = float(untold.mean()) / length
    if label_bits is not None:
        best = min(best, (float(told.mean()) + label_bits) / length)
    metrics = {
        "split": split,
        "items": len(told),
        "bits_per_code": float(told.mean()) / length,
        "bits_per_item": float(told.mean()),
        "label_bits": label_bits,
        "bits_per_code_untold": float(untold.mean()) / length,
        "order0_bits": order0,
        "saving_vs_order0": 1.0 - best / order0 if order0 else 0.0,
    }
    return PriorEvaluation(metrics, told.numpy())


def nearness(
    model: Model,
    data: Dataset,
    samples: Tensor,
    progress: Callable[[float], None] | None = None,
) -> Nearness:
    """Of samples (N, C, *extent), and of at most NUM_HELD_OUT items of the validation or else the
    test split, those left out in which there is nothing, such as silence or a blank page: that
    training has them too makes no copies.

    Files of a streamed set that cannot be decoded are left out. Errors: VqkitError when the
    training split is empty.
    """
    split = "validation" if len(data.splits["validation"]) else "test"
    batches = islice(data.split(split, BATCH_SIZE), NUM_HELD_OUT // BATCH_SIZE)
    held_out = torch.cat([samples[:0], *(batch.values for batch in batches)])
    held_out = held_out[_varied(model.signal.compared(held_out))]
    reconstructions = held_out
    if len(held_out):
        reconstructions = model.tokenizer.reconstruct(held_out)
    # Reading the training split and comparing it is what takes time: once for all of them.
    wanted = torch.cat([samples, reconstructions, held_out])
    places, distances = nearest_items(data, wanted, model.signal.compared, progress=progress)
    of_samples, of_reconstructions, of_held_out = np.split(
        distances, [len(samples), len(samples) + len(held_out)]
    )
    nearest = data.read(places[: len(samples)]).values
    return Nearness(nearest, of_samples, of_reconstructions, of_held_out)


def _varied(compared: Tensor) -> Tensor:  # (N, ...) -> bool (N,)
    """Whether an item is further from its own mean than what counts as equal."""
    if not len(compared):
        return torch.zeros(0, dtype=torch.bool)
    return compared.flatten(1).std(1) > EVEN


@torch.no_grad()
def nearest_items(
    data: Dataset,
    values: Tensor,
    compared: Callable[[Tensor], Tensor] = Tensor.double,
    split: str = "train",
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """For each of values (N, C, *extent) the id of the nearest item of a split, and the distance,
    (N,) both.

    compared: what items are compared by, see `Signal.compared`; the distance is the root mean
    square over it. Errors: VqkitError when the split is empty.
    """
    # Exact: float32 would lose small distances.
    wanted = compared(values).flatten(1)
    best = torch.full((len(wanted),), torch.inf, dtype=torch.float64)
    found = torch.zeros(len(wanted), dtype=torch.long)
    seen = 0
    for batch in data.split(split, 1024):
        distances, places = torch.cdist(wanted, compared(batch.values).flatten(1)).min(1)
        closer = distances < best
        best = torch.where(closer, distances, best)
        found = torch.where(closer, torch.from_numpy(batch.ids)[places], found)
        seen += len(batch.ids)
        if progress:
            progress(seen / len(data.splits[split]))
    if len(wanted) and not bool(best.isfinite().all()):
        raise VqkitError(f"the {split} split of {data.name} is empty")
    return found.numpy(), (best / wanted.shape[1] ** 0.5).numpy()
