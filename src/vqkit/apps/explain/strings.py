"""What codes of text stand for, in letters: the strings of bytes that lie under each code."""

from __future__ import annotations

import numpy as np
import torch

from ...artifact.model import Model
from .atlas import Shelf
from .sample import Sample

# Strings of a code that are shown.
NUM_STRINGS = 8

# Strings of one code as they are read, and how often each occurs under it, the most frequent first.
Strings = list[tuple[str, int]]


def strings_of(model: Model, sample: Sample, shelf: Shelf, cell: int) -> list[list[Strings]]:
    """For each codebook, for each code that is shown: its most frequent strings.

    A string is the `cell` positions of an item that a code stands for; a cell that the item ends in
    is not counted. Nothing of items that are not read.
    """
    if not model.signal.has_symbols:
        return []
    num_cells = sample.codes.shape[2]
    pieces = sample.values[:, 0].unfold(1, cell, cell).numpy()  # (N, cells, cell)
    pieces = np.ascontiguousarray(pieces[:, :num_cells])
    # Equal strings have equal numbers, which are quick to count.
    as_one = pieces.view(f"V{cell * pieces.itemsize}")[..., 0]
    every, numbers = np.unique(as_one, return_inverse=True)
    numbers = numbers.reshape(as_one.shape)
    is_whole = (np.arange(pieces.shape[1]) + 1) * cell <= sample.extents
    books = []
    for index, places in enumerate(shelf.places):
        row_of = shelf.row_of(index)
        pairs = []
        for place in places:
            rows = row_of[sample.codes[:, place, : pieces.shape[1]]].numpy()
            is_shown = is_whole & (rows >= 0)
            pairs.append(rows[is_shown] * len(every) + numbers[is_shown])
        found, counts = np.unique(np.concatenate(pairs), return_counts=True)
        books.append(_ranked(model, found, counts, every, len(shelf.codes[index]), cell))
    return books


def _ranked(
    model: Model,
    found: np.ndarray,
    counts: np.ndarray,
    every: np.ndarray,
    num_codes: int,
    cell: int,
) -> list[Strings]:
    """Pairs (row of the code * all strings + string) with their counts -> strings of each row."""
    rows, numbers = np.divmod(found, len(every))
    order = np.lexsort((numbers, -counts, rows))
    rows, numbers, counts = rows[order], numbers[order], counts[order]
    ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = ranks < NUM_STRINGS
    content = every[numbers[kept]].view(np.uint8).reshape(-1, 1, cell)
    texts = model.signal.letters(torch.from_numpy(content.copy()))
    strings: list[Strings] = [[] for _ in range(num_codes)]
    for row, text, count in zip(rows[kept].tolist(), texts, counts[kept].tolist(), strict=True):
        strings[row].append((text, count))
    return strings
