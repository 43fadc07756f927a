"""Cut-outs of items around the places of a code, for items that begin anywhere: a pool of parts of
real items, and where each code occurs in it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...artifact.model import Model
from ...model.tiling import cut
from .atlas import Book, Shelf, nearest_of_each
from .sample import BATCH_SIZE, BATCH_VALUES, Sample
from .strings import Strings, strings_of

# Cut-outs of a code.
NUM_CUTOUTS = 4
# Values and number of the items among which cut-outs are looked for, and places of each code.
MAX_VALUES = 1 << 23
MAX_ITEMS = 512
NUM_RANKED = 32
# Bytes that the parts take on a page.
MAX_BYTES = 8_000_000
# Characters of a byte in base 64.
BASE64 = 4 / 3


@dataclass(frozen=True)
class Pool:
    """Parts of training items, which cut-outs are cut from.

    items: (n,) int64 rows of the sample. starts, lengths: (n,) int64, first position in the item
    and number of positions. names: of the items. shown: uint8 (H, W, C) of each part, whose width
    is its length. played: as files, none where there is nothing to play. window: positions of a
    cut-out, cell: of a code, longest: of the longest item of the sample.
    """

    items: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    names: list[str]
    shown: list[np.ndarray]
    played: list[bytes]
    window: int
    cell: int
    longest: int


@dataclass(frozen=True)
class CutoutBook(Book):
    """A codebook with cut-outs of each code, no two of one item.

    cutouts: (S, NUM_CUTOUTS, 3) int64, the part of the pool, the first position of the cut-out in
    it, and that of the code; the best first: where the latents are nearest to what the codes up to
    this one decode to. num_cutouts: (S,) how many there are. strings: of items that are read, for
    each code what it stands for in letters and how often, the most frequent first; else none.
    """

    cutouts: np.ndarray
    num_cutouts: np.ndarray
    strings: list[Strings]


def cutout_books(
    model: Model, sample: Sample, names: Sequence[str]
) -> tuple[list[CutoutBook], Pool]:
    """A book for each codebook, and the pool of all of them. `names`: of all items of the data."""
    shelf = Shelf(model, sample)
    grid = Cells(model)
    candidates = _candidates(model, sample, shelf, grid)
    drawn = _Drawn(model, sample, grid)
    for item, part in _wanted(candidates, grid):
        drawn.add(item, part)
        if drawn.num_bytes > MAX_BYTES:
            break
    strings = strings_of(model, sample, shelf, grid.cell)
    books = []
    for index, rows in enumerate(candidates):
        is_drawn = drawn.numbers(rows[:, 2], rows[:, 3] // grid.each) >= 0
        codes, ranks, chosen = nearest_of_each(rows[is_drawn], NUM_CUTOUTS)
        num_codes = len(shelf.codes[index])
        cutouts = np.zeros((num_codes, NUM_CUTOUTS, 3), np.int64)
        cutouts[codes, ranks] = drawn.places(*chosen.T)
        books.append(
            CutoutBook(
                **shelf.described(index),
                cutouts=cutouts,
                num_cutouts=np.bincount(codes, minlength=num_codes),
                strings=strings[index] if strings else [],
            )
        )
    return books, drawn.pool(names)


class Cells:
    """How the positions of an item with one dimension lie in cells, and cells in parts.

    cell: positions of a cell. each: cells of a part, which is no longer than an item of training.
    window: positions of a cut-out.
    """

    def __init__(self, model: Model) -> None:
        network = model.network
        self.cell = network.tile[0] // network.tile_grid[0]
        self.each = max(1, model.shape.extent[0] // self.cell)
        (window,) = model.signal.glimpse(model.shape, model.data)
        self.window = min(window, self.each * self.cell)

    def span(self, part: int, length: int) -> tuple[int, int]:
        """First and end of a part of an item of that length, in positions."""
        first = part * self.each * self.cell
        return first, min(length, first + self.each * self.cell)


def _candidates(model: Model, sample: Sample, shelf: Shelf, grid: Cells) -> list[np.ndarray]:
    """For each codebook rows (row of the code, distance, item, cell) of where its codes occur.

    Parts that are too short for a cut-out come behind all others.
    """
    seen = sample.first(min(MAX_ITEMS, max(1, MAX_VALUES // sample.values[0].numel())))
    distances = _distances(model, seen)
    found = []
    lengths = seen.extents[:, 0]
    largest = max(float(each.max()) for each in distances)
    for index, places in enumerate(shelf.places):
        row_of = shelf.row_of(index)
        rows = []
        for place in places:
            codes = row_of[seen.codes[:, place]]
            item, cell = (codes >= 0).nonzero().numpy().T
            first = cell // grid.each * grid.each * grid.cell
            is_short = lengths[item] - first < grid.window
            apart = distances[place][item, cell] + np.where(is_short, largest, 0.0)
            columns = [codes[item, cell].numpy(), apart, item, cell]
            rows.append(np.stack(columns, 1).astype(np.float64))
        found.append(np.concatenate(rows))
    return found


@torch.no_grad()
def _distances(model: Model, sample: Sample) -> list[np.ndarray]:
    """For each place along Q squared distances (N, cells) of latents to what the codes up to there,
    or to the next that can be decoded alone, stand for.
    """
    quantizer = model.artifact.network.quantizer
    of_prefixes: dict[int, list[np.ndarray]] = {count: [] for count in quantizer.prefixes}
    order = torch.arange(quantizer.num_codebooks)[:, None]
    num_cells = sample.codes.shape[2]
    step = max(1, min(BATCH_SIZE, BATCH_VALUES // max(1, sample.values[0].numel())))
    for start in range(0, len(sample), step):
        batch = slice(start, start + step)
        standardised = model.tokenizer.standardise(sample.values[batch])
        latents = model.network.latents(standardised).cpu().float()
        codes = sample.codes[batch]
        for count, parts in of_prefixes.items():
            meant = quantizer.decode(codes.where(order < count, -1))
            apart = (latents - meant).square().sum(1)
            # Latents of a hierarchy lie on a finer grid than its codes.
            parts.append(apart.unflatten(1, (num_cells, -1)).sum(2).numpy())
    joined = {count: np.concatenate(parts) for count, parts in of_prefixes.items()}
    return [
        joined[next(count for count in quantizer.prefixes if count > place)]
        for place in range(quantizer.num_codebooks)
    ]


def _wanted(candidates: Sequence[np.ndarray], grid: Cells) -> Iterator[tuple[int, int]]:
    """Item and part, in the order in which they are taken: each time the part that shows most of
    what is missing.

    A part is worth more to a code the better the code fits there, and less the more of its places
    were taken before, so that every code gets some before any gets all.
    """
    ranked = [nearest_of_each(rows, NUM_RANKED) for rows in candidates]
    parts = []
    for _, _, chosen in ranked:
        parts.append(np.stack([chosen[:, 0], chosen[:, 1] // grid.each], 1))
    every, row_of = np.unique(np.concatenate(parts), axis=0, return_inverse=True)
    columns = [int(rows[:, 0].max(initial=-1)) + 1 for rows in candidates]
    worth = np.zeros((len(every), sum(columns)), np.float32)
    column = 0
    start = 0
    for (codes, ranks, _), width in zip(ranked, columns, strict=True):
        rows = row_of.reshape(-1)[start : start + len(codes)]
        np.maximum.at(worth, (rows, column + codes), 1 / (1 + ranks / NUM_CUTOUTS))
        column += width
        start += len(codes)
    missing = np.ones(worth.shape[1], np.float32)
    for _ in every:
        best = int((worth @ missing).argmax())
        item, part = every[best].tolist()
        yield item, part
        missing *= 1 - worth[best] / 2
        worth[best] = -1


class _Drawn:
    """The parts that were taken so far, and what they take on a page."""

    def __init__(self, model: Model, sample: Sample, grid: Cells) -> None:
        self.model = model
        self.sample = sample
        self.grid = grid
        self.number: dict[tuple[int, int], int] = {}
        self.spans: list[tuple[int, int]] = []
        self.shown: list[np.ndarray] = []
        self.played: list[bytes] = []
        self.num_bytes = 0.0

    def add(self, item: int, part: int) -> None:
        span = self.grid.span(part, int(self.sample.extents[item, 0]))
        values = cut(self.sample.values[[item]], (1,), [span])
        shown = self.model.signal.display(values)[0]
        played = self.model.signal.media(values, self.model.data)
        self.number[item, part] = len(self.spans)
        self.spans.append(span)
        self.shown.append(shown)
        self.played += played
        # A drawing is a compressed file of as many bytes as one of its channels.
        num_bytes = len(zlib.compress(shown[..., 0].tobytes(), 9)) + sum(map(len, played))
        self.num_bytes += BASE64 * num_bytes

    def numbers(self, items: np.ndarray, parts: np.ndarray) -> np.ndarray:
        """The number of each part in the pool, -1 of those that were not taken."""
        pairs = zip(items.tolist(), parts.tolist(), strict=True)
        return np.array([self.number.get((int(item), int(part)), -1) for item, part in pairs])

    def places(self, items: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Part, first position of the cut-out and of the code (n, 3) of places that were taken."""
        numbers = self.numbers(items, cells // self.grid.each)
        spans = np.array(self.spans).reshape(-1, 2)[numbers]
        codes = cells * self.grid.cell - spans[:, 0]
        lengths = spans[:, 1] - spans[:, 0]
        # The code in the middle, where the part goes on to both sides.
        first = codes + self.grid.cell // 2 - self.grid.window // 2
        first = np.clip(first, 0, np.maximum(0, lengths - self.grid.window))
        return np.stack([numbers, first, codes], 1)

    def pool(self, names: Sequence[str]) -> Pool:
        items = np.array([item for item, _ in self.number], np.int64)
        spans = np.array(self.spans, np.int64).reshape(-1, 2)
        return Pool(
            items=items,
            starts=spans[:, 0],
            lengths=spans[:, 1] - spans[:, 0],
            names=[str(names[int(self.sample.indices[item])]) for item in items],
            shown=self.shown,
            played=self.played,
            window=self.grid.window,
            cell=self.grid.cell,
            longest=int(self.sample.extents.max()),
        )
