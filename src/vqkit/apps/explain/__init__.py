"""What the codes of a trained model mean: where they occur, what they show, change and tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...artifact.model import Model
from ...data.dataset import Dataset
from ...errors import VqkitError
from .atlas import Book, books, place_names
from .changes import Peel, Surprise, Swap, importance, peel, surprise, swaps
from .field import ReceptiveField, receptive_field
from .labels import Information, Labels, Mark, Probe, explain_labels, find_column, probe
from .sample import Sample, gather

__all__ = [
    "Book",
    "Explanation",
    "Information",
    "Labels",
    "Mark",
    "Peel",
    "Probe",
    "ReceptiveField",
    "Surprise",
    "Swap",
    "explain",
]

NUM_IMAGES = 4096
# Held-out images that are changed, peeled and scored.
NUM_EXAMPLES = 512
# Images over which the receptive field is averaged.
NUM_MEASURED = 32
# The splits, in this order.
PROBE_IMAGES = (2048, 1024, 2048)


@dataclass(frozen=True)
class Explanation:
    """Everything that the page shows; see the classes of its parts.

    metrics: figures in short. places: names of the Q codes of a position. mean_image: uint8 (H, W,
    C). importance: (h, w) float64, levels. labels and probe: None without a label column; peel: for
    residual models; surprise: with a prior. Books, labels and the mean image are of training
    images; swaps, importance, peel and surprise of held-out ones; the probe is fitted on the one
    and tested on the other.
    """

    metrics: dict[str, Any]
    field: ReceptiveField
    places: list[str]
    books: list[Book]
    mean_image: np.ndarray
    labels: Labels | None
    probe: Probe | None
    swaps: list[Swap]
    importance: np.ndarray
    peel: Peel | None
    surprise: Surprise | None


def explain(
    model: Model,
    data: Dataset,
    *,
    label_column: str | None = None,
    num: int = NUM_IMAGES,
    swap: Sequence[tuple[int, int]] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> Explanation:
    """Measure what codes mean, on at most `num` images of the training split of `data` and of
    held-out ones.

    label_column: group or caption; None = group where there is one. swap: (code, other) pairs of
    the first codebook to show. progress: called with the share that is done. Chance comes from the
    model's seed.
    Errors: VqkitError for a model without codes to count, for labels or codes that are not there,
    without images.
    """
    _check(model, data)
    column = find_column(data, label_column)
    sample = gather(model, data, "train", num, lambda share: progress(0.2 * share))
    held_out = next(split for split in ("test", "validation", "train") if len(data.splits[split]))
    examples = gather(model, data, held_out, min(num, NUM_EXAMPLES))
    field = _field(model, sample)
    codebooks = books(model, sample, field)
    progress(0.5)
    labels = None
    probed = None
    if column:
        places = model.artifact.network.quantizer.places()
        labels = explain_labels(sample, codebooks, places, column, model.config.seed)
        probed = _probe(model, data, column[1], num)
    progress(0.6)
    metrics = _metrics(len(sample), codebooks, field, labels, probed)
    metrics["examples"] = len(examples)
    metrics["split"] = held_out
    swapped = swaps(model, examples, codebooks[0], swap, sample)
    progress(0.7)
    changed = importance(model, examples, lambda share: progress(0.7 + 0.2 * share))
    return Explanation(
        metrics=metrics,
        field=field,
        places=place_names(model),
        books=codebooks,
        mean_image=sample.images.float().mean(0).round().byte().permute(1, 2, 0).numpy(),
        labels=labels,
        probe=probed,
        swaps=swapped,
        importance=changed,
        peel=peel(model, examples),
        surprise=surprise(model, examples, data.names),
    )


def _field(model: Model, sample: Sample) -> ReceptiveField:
    x = model.tokenizer.standardise(sample.images[:NUM_MEASURED])
    return receptive_field(model.network, x, torch.Generator().manual_seed(model.config.seed))


def _probe(model: Model, data: Dataset, labels: Sequence[str], num: int) -> Probe | None:
    samples = []
    for split, most in zip(("train", "validation", "test"), PROBE_IMAGES, strict=True):
        samples.append(gather(model, data, split, min(num, most)))
    return probe(model, samples, labels)


def _check(model: Model, data: Dataset) -> None:
    quantizer = model.artifact.network.quantizer
    if len(model.shape.extent) != 2:
        raise VqkitError(
            f"the page explains the codes of images, not yet those of {model.signal.item}s"
        )
    if not quantizer.is_countable:
        what = "it has no codes"
        if quantizer.is_discrete:
            what = f"{quantizer.codebook_size} codes are too many to count"
        kind = model.config.model.quantizer.kind
        raise VqkitError(f"there is nothing to explain in a model of quantizer.kind={kind}: {what}")
    if not len(data.splits["train"]):
        raise VqkitError(f"the training split of {data.name} is empty")


def _metrics(
    images: int,
    books: Sequence[Book],
    field: ReceptiveField,
    labels: Labels | None,
    probed: Probe | None,
) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "images": images,
        "codes": sum(len(book.counts) for book in books),
        "usage": float(np.mean([(book.counts > 0).mean() for book in books])),
        "perplexity": float(np.mean([book.perplexity for book in books])),
        "dead_codes": sum(int((book.counts == 0).sum()) for book in books),
        "close_pairs": sum(len(book.close) for book in books),
        "receptive_field": list(field.side),
        "receptive_field_extent": list(field.extent),
    }
    if labels is not None:
        net = labels.information.net
        metrics["label"] = labels.column
        metrics["label_bits"] = labels.entropy_bits
        metrics["label_p_value"] = labels.information.p_value
        metrics["information_per_position"] = float(net.mean())
        metrics["information_at_best"] = float(net.max())
    if probed is not None:
        for kind, accuracy in probed.accuracy.items():
            metrics[f"probe_{kind.replace(' ', '_')}"] = accuracy
    return metrics
