"""A model beside other codecs on the same items, by the bytes of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..artifact.model import Model
from ..data.dataset import Dataset

# Items that are joined, to one that is long enough for headers to weigh little.
NUM_JOINED = 24


@dataclass(frozen=True)
class Beside:
    """A codec at one of its settings: what the bytes of its file are of every unit (kilobits a
    second, bits a pixel), and what the signal measures of what comes back.
    """

    name: str
    rate: float
    measures: dict[str, float]
    is_ours: bool


def beside_peers(
    model: Model,
    data: Dataset,
    split: str,
    progress: Callable[[float], None] | None = None,
) -> list[Beside]:
    """The model at every rate that it offers, and the other codecs of its signal, on items of a
    split joined to one; by rising rate.

    Nothing where the signal has no other codecs, or the model no codes that are written to files.
    progress: called with the share of the codecs that is done.
    """
    others = model.signal.peers(model.artifact.data)
    if not others or not model.network.quantizer.is_discrete:
        return []
    original = _joined(data, split)
    own = list(_own(model))
    codecs = [*own, *others]
    rows = []
    for number, (name, code) in enumerate(codecs, 1):
        size, values = code(original)
        measured = model.signal.evaluation_measures(
            values[None], original[None], None, model.artifact.data
        )
        _, divisor = model.signal.rate_per(tuple(original.shape[1:]), model.artifact.data)
        rows.append(
            Beside(
                name,
                8 * size / divisor,
                {measure: float(each[0]) for measure, each in measured.items()},
                is_ours=number <= len(own),
            )
        )
        if progress:
            progress(number / len(codecs))
    return sorted(rows, key=lambda row: row.rate)


def _own(model: Model) -> Iterator[tuple[str, Callable[[Tensor], tuple[int, Tensor]]]]:
    """The model as a codec, at each of its rates, and without loss where a coder is for that."""
    for name in model.artifact.coders.rates or [None]:

        def code(values: Tensor, rate: str | None = name) -> tuple[int, Tensor]:
            file = model.compressor.write(values, rate=rate)
            decoded = model.compressor.read_item(file, "0")
            return len(file), model.compressor.decode([decoded])[0]

        yield f"vqkit {name}" if name else "vqkit", code
    if model.artifact.coders.values is None:
        return

    def exactly(values: Tensor) -> tuple[int, Tensor]:
        file = model.compressor.write(values, lossless=True)
        return len(file), model.compressor.decode([model.compressor.read_item(file, "0")])[0]

    yield "vqkit --lossless", exactly


def _joined(data: Dataset, split: str) -> Tensor:  # (C, T)
    """The first items of a split without their padding, one after the other."""
    parts: list[Tensor] = []
    for batch in data.split(split, NUM_JOINED):
        for row, values in enumerate(batch.values):
            kept = slice(None) if batch.mask is None else batch.mask[row]
            parts.append(values[:, kept])
        break
    return torch.cat(parts, 1)
