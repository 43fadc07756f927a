"""What the codes of a trained model mean: where they occur, what they stand for, what they change,
what they tell.
"""

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
    column, seed = find_column(data, label_column), model.config.seed
    sample = gather(model, data, "train", num, lambda share: progress(0.2 * share))
    held_out = next(split for split in ("test", "validation", "train") if len(data.splits[split]))
    examples = gather(model, data, held_out, min(num, NUM_EXAMPLES))
    field = _field(model, sample)
    found = books(model, sample, field)
    progress(0.5)
    labels = (
        explain_labels(sample, found, model.artifact.network.quantizer.places(), column, seed)
        if column
        else None
    )
    probed = _probe(model, data, column[1], num) if column else None
    progress(0.6)
    metrics = _metrics(len(sample), found, field, labels, probed) | {
        "examples": len(examples),
        "split": held_out,
    }
    swapped = swaps(model, examples, found[0], swap, sample)
    progress(0.7)
    changed = importance(model, examples, lambda share: progress(0.7 + 0.2 * share))
    return Explanation(
        metrics=metrics,
        field=field,
        places=place_names(model),
        books=found,
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
    splits = zip(("train", "validation", "test"), PROBE_IMAGES, strict=True)
    return probe(
        model, [gather(model, data, split, min(num, most)) for split, most in splits], labels
    )


def _check(model: Model, data: Dataset) -> None:
    quantizer = model.artifact.network.quantizer
    if len(model.shape.extent) != 2:
        raise VqkitError(
            f"the page explains the codes of images, not yet those of {model.signal.item}s"
        )
    if not quantizer.is_countable:
        what = (
            f"{quantizer.codebook_size} codes are too many to count"
            if quantizer.is_discrete
            else "it has no codes"
        )
        raise VqkitError(
            f"there is nothing to explain in a model of quantizer.kind={_kind(model)}: {what}"
        )
    if not len(data.splits["train"]):
        raise VqkitError(f"the training split of {data.name} is empty")


def _kind(model: Model) -> str:
    return model.config.model.quantizer.kind


def _metrics(
    images: int,
    found: Sequence[Book],
    field: ReceptiveField,
    labels: Labels | None,
    probed: Probe | None,
) -> dict[str, Any]:
    sizes = sum(len(book.counts) for book in found)
    dead = sum(int((book.counts == 0).sum()) for book in found)
    metrics: dict[str, Any] = {
        "images": images,
        "codes": sizes,
        "usage": float(np.mean([(book.counts > 0).mean() for book in found])),
        "perplexity": float(np.mean([book.perplexity for book in found])),
        "dead_codes": dead,
        "close_pairs": sum(len(book.close) for book in found),
        "receptive_field": list(field.side),
        "receptive_field_extent": list(field.extent),
    }
    if labels is not None:
        net = labels.information.net
        metrics |= {
            "label": labels.column,
            "label_bits": labels.entropy_bits,
            "label_p_value": labels.information.p_value,
        }
        metrics |= {
            "information_per_position": float(net.mean()),
            "information_at_best": float(net.max()),
        }
    if probed is not None:
        metrics |= {
            f"probe_{kind.replace(' ', '_')}": value for kind, value in probed.accuracy.items()
        }
    return metrics
