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
from ...model.quantizers.base import MAX_COUNTED
from ...model.tiling import crop
from .atlas import Book, PatchBook, patch_books, place_names
from .changes import Peel, Surprise, Swap, importance, peel, surprise, swaps
from .cutouts import CutoutBook, Pool, cutout_books
from .field import ReceptiveField, receptive_field
from .labels import Information, Labels, Mark, Probe, explain_labels, find_column, probe
from .sample import Sample, gather, open_data

__all__ = [
    "Book",
    "CutoutBook",
    "Explanation",
    "Information",
    "Labels",
    "Mark",
    "PatchBook",
    "Peel",
    "Pool",
    "Probe",
    "ReceptiveField",
    "Surprise",
    "Swap",
    "atlas_of",
    "explain",
    "open_data",
    "place_names",
]

NUM_ITEMS = 4096
# Held-out items that are changed, peeled and scored, and values of those that begin anywhere, which
# are longer.
NUM_EXAMPLES = 512
EXAMPLE_VALUES = 1 << 21
# Items over which the receptive field is averaged.
NUM_MEASURED = 32
# The splits, in this order.
PROBE_ITEMS = (2048, 1024, 2048)


@dataclass(frozen=True)
class Explanation:
    """Everything that the page shows; see the classes of its parts.

    metrics: figures in short. wording: what the signal calls an item and its measures. places:
    names of the Q codes of a position. books: with patches where values can be compared place by
    place; with cut-outs of the pool where items begin anywhere. mean_item: uint8 (H, W, C), and
    importance: (h, w) float64, levels; None of items that begin anywhere. labels and probe: None
    without a label column; peel: for residual models; surprise: with a prior or a coder. Books,
    labels and the mean item are of training items; swaps, importance, peel and surprise of held-out
    ones; the probe is fitted on the one and tested on the other.
    """

    metrics: dict[str, Any]
    wording: Wording
    field: ReceptiveField
    places: list[str]
    books: list[PatchBook] | list[CutoutBook]
    pool: Pool | None
    mean_item: np.ndarray | None
    labels: Labels | None
    probe: Probe | None
    swaps: list[Swap]
    importance: np.ndarray | None
    peel: Peel | None
    surprise: Surprise | None


@dataclass(frozen=True)
class Wording:
    """What a signal calls things. item: one of them. unit: of lengths within an item, each of which
    is so many `positions`. change: what `Swap.here` is in. quality: what `Peel.quality` is, and its
    unit. media_type: of files that are played, "" where there are none.
    """

    item: str
    unit: str
    positions: float
    change: str
    quality: str
    quality_unit: str
    media_type: str


def explain(
    model: Model,
    data: Dataset,
    *,
    label_column: str | None = None,
    num: int = NUM_ITEMS,
    swap: Sequence[tuple[int, int]] = (),
    progress: Callable[[float], None] = lambda share: None,
) -> Explanation:
    """Measure what codes mean, on at most `num` items of the training split of `data`, as
    `open_data` has them, and on held-out ones.

    label_column: group or caption; None = group where there is one. swap: (code, other) pairs of
    the first codebook to show. progress: called with the share that is done. Chance comes from the
    model's seed.
    Errors: VqkitError for a model without codes to count, for labels or codes that are not there,
    without items.
    """
    _check(model, data)
    is_aligned = model.signal.is_aligned
    column = find_column(data, label_column)
    sample = gather(model, data, "train", num, lambda share: progress(0.4 * share))
    held_out = next(split for split in ("test", "validation", "train") if len(data.splits[split]))
    examples = gather(model, data, held_out, min(num, _num_examples(model, data)))
    field = _field(model, sample)
    codebooks, pool = _books(model, data, sample, field)
    progress(0.6)
    labels = None
    probed = None
    if column:
        places = model.artifact.network.quantizer.places()
        labels = explain_labels(
            sample, codebooks, places, column, model.config.seed, by_position=is_aligned
        )
        probed = _probe(model, data, sample, column[1], num)
    progress(0.7)
    metrics = _metrics(len(sample), codebooks, field, labels, probed)
    metrics["examples"] = len(examples)
    metrics["split"] = held_out
    swapped = swaps(model, examples, codebooks[0], swap, sample)
    progress(0.8)
    changed = None
    mean_item = None
    if is_aligned:
        changed = importance(model, examples, lambda share: progress(0.8 + 0.1 * share))
        mean = sample.values.float().mean(0, keepdim=True).round().to(sample.values.dtype)
        mean_item = model.signal.display(mean)[0]
    return Explanation(
        metrics=metrics,
        wording=_wording(model),
        field=field,
        places=place_names(model),
        books=codebooks,
        pool=pool,
        mean_item=mean_item,
        labels=labels,
        probe=probed,
        swaps=swapped,
        importance=changed,
        peel=peel(model, examples, data.names),
        surprise=surprise(model, examples, data.names),
    )


def atlas_of(
    model: Model,
    data: Dataset,
    num: int,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[list[PatchBook] | list[CutoutBook], Pool | None]:
    """The codebooks alone, as `explain` has them, on at most `num` items of the training split, and
    what their cut-outs are cut from.

    Errors: as `explain`, of models.
    """
    _check(model, data)
    sample = gather(model, data, "train", num, lambda share: progress(0.7 * share))
    return _books(model, data, sample, _field(model, sample) if model.signal.is_aligned else None)


def _books(
    model: Model, data: Dataset, sample: Sample, field: ReceptiveField | None
) -> tuple[list[PatchBook] | list[CutoutBook], Pool | None]:
    """field: where values can be compared place by place."""
    if model.signal.is_aligned:
        assert field is not None
        return patch_books(model, sample, field), None
    return cutout_books(model, sample, data.names)


def _num_examples(model: Model, data: Dataset) -> int:
    if model.signal.is_aligned:
        return NUM_EXAMPLES
    return max(1, min(NUM_EXAMPLES, EXAMPLE_VALUES // data.shape.num_values))


def _wording(model: Model) -> Wording:
    signal = model.signal
    unit, positions = signal.ruler(model.data)
    return Wording(
        item=signal.item,
        unit=unit,
        positions=positions,
        change=signal.change_in_words,
        quality=signal.quality_in_words,
        quality_unit=signal.quality_unit,
        media_type=signal.media_type,
    )


def _field(model: Model, sample: Sample) -> ReceptiveField:
    """Over items without padding, where there are any; else over what the longest have in
    common.
    """
    values = sample.values[np.flatnonzero(sample.is_whole)[:NUM_MEASURED]]
    if not len(values):
        sizes = sample.extents.prod(1)
        rows = np.argsort(-sizes, kind="stable")[:NUM_MEASURED]
        shortest = sample.extents[rows].min(0)
        values = crop(sample.values[rows], shortest.tolist())
    x = model.tokenizer.standardise(values)
    generator = torch.Generator().manual_seed(model.config.seed)
    has_symbols = model.signal.has_symbols
    return receptive_field(model.network, x, generator, has_symbols=has_symbols)


def _probe(
    model: Model, data: Dataset, train: Sample, labels: Sequence[str], num: int
) -> Probe | None:
    samples = [train.first(PROBE_ITEMS[0])]
    for split, most in zip(("validation", "test"), PROBE_ITEMS[1:], strict=True):
        samples.append(gather(model, data, split, min(num, most)))
    return probe(model, samples, labels)


def _check(model: Model, data: Dataset) -> None:
    quantizer = model.artifact.network.quantizer
    # Patches have rows and columns, cut-outs a beginning and an end.
    if len(model.shape.extent) != (2 if model.signal.is_aligned else 1):
        raise VqkitError(
            f"the page has no place for the codes of {model.signal.item}s of "
            f"{len(model.shape.extent)} dimensions"
        )
    if not quantizer.is_countable:
        what = "its codes are numbers on a scale, each of which means the same step"
        if not quantizer.is_discrete:
            what = "it has no codes"
        elif quantizer.codebook_size > MAX_COUNTED:
            what = f"{quantizer.codebook_size} codes are too many to count"
        kind = model.config.model.quantizer.kind
        raise VqkitError(f"there is nothing to explain in a model of quantizer.kind={kind}: {what}")
    if not len(data.splits["train"]):
        raise VqkitError(f"the training split of {data.name} is empty")


def _metrics(
    items: int,
    books: Sequence[Book],
    field: ReceptiveField,
    labels: Labels | None,
    probed: Probe | None,
) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "items": items,
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
