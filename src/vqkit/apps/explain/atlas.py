"""The codes of each codebook: how often they occur and which are alike; where they occur in items
whose values can be compared place by place, and what is seen there.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...artifact.model import Model
from ...metrics import code_counts, entropy_bits, perplexity
from ...model.quantizers.vq import map_rows
from .field import ReceptiveField
from .sample import Sample, decoded, shrunk

# Codes of all codebooks that have images, the most used ones.
MAX_CODES = 16384
# Patches that are shown of a code, fewer where there are many codes.
MAX_TYPICAL = 8
MIN_TYPICAL = 2
# Positions of all patches, which bounds the size of the page.
SHEET_POSITIONS = 6_000_000
# Positions along a side of a patch, and cells along a side of a position map, at most.
MAX_SIDE = 24
MAX_MAP = 16
# Values of patches that are held at once.
BATCH_VALUES = 1 << 24
NUM_NEIGHBOURS = 6
# Codes that are nearer to one another than this share of the median distance to the nearest code
# count as duplicates.
DUPLICATE = 0.1


@dataclass(frozen=True)
class Book:
    """One codebook; S of its codes are shown, the most used first.

    name: of the stage, group or place it serves. counts: (K,) int64. codes: (S,) their numbers.
    plane: (S, 2) float64, the codes' vectors on their two main axes, which hold `explained` of the
    variance; or, where training put the codes on a map (`neighbourhood`), their columns and rows
    there, and `explained` is None.
    neighbours: (S, m) rows of the nearest codes, distances: (S, m) float64. close: pairs of rows
    nearer than DUPLICATE.
    """

    name: str
    counts: np.ndarray
    perplexity: float
    entropy_bits: float
    codes: np.ndarray
    plane: np.ndarray
    explained: float | None
    neighbours: np.ndarray
    distances: np.ndarray
    close: list[tuple[int, int]]


@dataclass(frozen=True)
class PatchBook(Book):
    """A codebook of items whose values can be compared place by place, with the patch of each code.

    means: uint8 (S, s, s, C), the mean of all patches of a code: of later residual stages, of what
    the earlier ones left over, with grey as zero and `gain` times as strong. typical: uint8 (S, n,
    s, s, C), real patches nearest to that mean, no two of one item; num_typical (S,) how many
    there are. positions: (S, h, w), times that the code occurs there.
    """

    means: np.ndarray
    gain: float
    typical: np.ndarray
    num_typical: np.ndarray
    positions: np.ndarray


def patch_books(model: Model, sample: Sample, field: ReceptiveField) -> list[PatchBook]:
    """One for each codebook; where several places share one, their codes are counted together."""
    shelf = Shelf(model, sample)
    return [_patch_book(model, sample, field, shelf, index) for index in range(len(shelf))]


def place_names(model: Model) -> list[str]:
    """What each of the Q codes of a position is called."""
    count = model.artifact.network.quantizer.num_codebooks
    if count == 1:
        return ["codebook"]
    kind = model.config.model.quantizer.kind
    if kind == "pyramid":
        prefixes = model.artifact.network.quantizer.prefixes
        return [f"grid {bisect_right(prefixes, place) + 1}" for place in range(count)]
    word = {"residual": "stage", "product": "group"}.get(kind, "place")
    return [f"{word} {number}" for number in range(1, count + 1)]


class Shelf:
    """The codebooks of a model with what is known of their codes by counting, and by their vectors.

    places: along Q, of each codebook. counts: (K,) of each. codes: those that are shown, the most
    used first.
    """

    def __init__(self, model: Model, sample: Sample) -> None:
        self.model = model
        self.quantizer = model.artifact.network.quantizer
        self.places = self.quantizer.places()
        counts = code_counts(sample.codes, self.quantizer.codebook_size)
        self.counts = self.quantizer.per_codebook(counts)
        self.codes = []
        for row in self.counts:
            order = row.argsort(descending=True, stable=True)
            most = MAX_CODES // len(self.places)
            self.codes.append(order[: min(int((row > 0).sum()), most)])

    def __len__(self) -> int:
        return len(self.places)

    def row_of(self, index: int) -> Tensor:
        """The row of each code of a codebook, -1 where it is not shown; the last entry is for
        padding, code -1.
        """
        rows = torch.full((len(self.counts[index]) + 1,), -1)
        rows[self.codes[index]] = torch.arange(len(self.codes[index]))
        return rows

    def described(self, index: int) -> dict[str, Any]:
        """The fields of a `Book`."""
        counts = self.counts[index]
        codes = self.codes[index]
        vectors = self.quantizer.parts()[self.places[index][0]].lookup(codes[:, None]).detach()
        explained: float | None = None
        if _has_map(self.model):
            plane = _map(codes, len(counts))
        else:
            plane, explained = _plane(vectors)
        neighbours, distances = _neighbours(vectors)
        return {
            "name": _name(place_names(self.model), self.places[index]),
            "counts": counts.numpy(),
            "perplexity": perplexity(counts[None]),
            "entropy_bits": entropy_bits(counts[None]),
            "codes": codes.numpy(),
            "plane": plane,
            "explained": explained,
            "neighbours": neighbours,
            "distances": distances,
            "close": _close(neighbours, distances),
        }


def before(model: Model, place: int) -> int:
    """How many codes before one along Q can be decoded without it, 0 for the first ones."""
    prefixes = (0, *model.network.quantizer.prefixes)
    return prefixes[bisect_right(prefixes, place) - 1]


def _patch_book(
    model: Model, sample: Sample, field: ReceptiveField, shelf: Shelf, index: int
) -> PatchBook:
    codes = shelf.codes[index]
    places = shelf.places[index]
    patches = Patches(model, sample, field, places, shelf.row_of(index))
    means = patches.means(len(codes))
    side, num = _layout(len(codes) * len(shelf), field)
    typical, num_typical = patches.typical(means, num)
    shown = means
    gain = 0.0
    if patches.before[places[0]]:
        gain = _gain(means)
        shown = 128 + gain * means
    return PatchBook(
        **shelf.described(index),
        means=shrunk(shown, side),
        gain=gain,
        typical=shrunk(typical, side),
        num_typical=num_typical,
        positions=patches.positions(len(codes)),
    )


def _name(names: list[str], places: list[int]) -> str:
    """'stage 1', or 'stage 1 to 4' of a codebook that several places share."""
    first = names[places[0]]
    last = names[places[-1]]
    return first if first == last else f"{first} to {last.split()[-1]}"


def _gain(leftovers: Tensor) -> float:
    """What makes nearly all of what is left over fill the range of grey, if it is too faint."""
    size = leftovers.abs()
    # torch.quantile takes no more than 2^24 values.
    largest = size.quantile(0.995) if size.numel() < 1 << 24 else size.max()
    return 127 / max(float(largest), 1.0)


def _layout(num_codes: int, field: ReceptiveField) -> tuple[int, int]:
    """Positions of a patch's longer side and how many typical patches of each code, so that the
    page has room for all.
    """
    room = SHEET_POSITIONS // num_codes
    side = min(MAX_SIDE, max(field.side), math.isqrt(room // (1 + MIN_TYPICAL)))
    return side, max(MIN_TYPICAL, min(MAX_TYPICAL, room // side**2 - 1))


class Patches:
    """The patch of the effective receptive field around every position of every item.

    Beyond the edge of an item its outermost values are repeated. Of a later residual stage, or a
    finer grid of a pyramid, the patch is cut from what those before it left over: original minus
    what they decode to.
    """

    def __init__(
        self, model: Model, sample: Sample, field: ReceptiveField, places: list[int], row_of: Tensor
    ) -> None:
        self.model = model
        self.sample = sample
        self.places = places
        self.row_of = row_of
        network = model.network
        self.before = {place: before(model, place) for place in places}
        grid = network.grid(model.shape.extent)
        # Rows of the patches of each row of cells, then the same of columns; at the edges they lie
        # beyond the item.
        lines = []
        for axis, side in enumerate(field.side):
            cell = network.tile[axis] / network.tile_grid[axis]
            starts = (torch.arange(grid[axis]) * cell).round().long() - field.margin
            lines.append(starts[:, None] + torch.arange(side))
        rows, columns = lines
        high, wide = model.shape.extent
        # What a patch shows there are the item's outermost rows (h, s) and columns (w, s).
        self.rows = rows.clamp(0, high - 1)
        self.columns = columns.clamp(0, wide - 1)
        # What the encoder weighs values by, (s, s): those beyond the edge of the item have none.
        place = field.place
        row = rows[place[0]]
        column = columns[place[1]]
        is_inside = ((row >= 0) & (row < high))[:, None] & ((column >= 0) & (column < wide))[None]
        energy = torch.from_numpy(field.energy)
        energy = energy[self.rows[place[0]][:, None], self.columns[place[1]][None]]
        energy = energy.where(is_inside, 0.0)
        self.weights = (energy / energy.sum()).float()
        # Items whose patches are cut at once.
        each = sample.codes[0, 0].numel() * sample.values.shape[1] * self.weights.numel()
        self.step = max(1, BATCH_VALUES // each)

    def means(self, num_codes: int) -> Tensor:
        """(S, C, s, s) float32 of all patches of each code."""
        channels = self.sample.values.shape[1]
        high, wide = self.weights.shape
        total = torch.zeros(num_codes, channels * high * wide)
        counts = torch.zeros(num_codes)
        for start in range(0, len(self.sample), self.step):
            for place in self.places:
                rows, patches = self._cut(start, place)
                total.index_add_(0, rows, patches)
                counts.index_add_(0, rows, torch.ones(len(rows)))
        return (total / counts[:, None].clamp(min=1)).reshape(num_codes, channels, high, wide)

    def typical(self, means: Tensor, num: int) -> tuple[Tensor, np.ndarray]:
        """Real patches nearest to each mean, uint8 (S, num, C, s, s), and how many there are (S,).

        Values count as much as the encoder weighs them.
        """
        found = []
        for start in range(0, len(self.sample), self.step):
            for place in self.places:
                rows, patches = self._cut(start, place)
                weights = self.weights.expand(means.shape[1:]).reshape(-1)
                distances = (patches - means.flatten(1)[rows]).square() @ weights
                where = self._where(start, place)
                found.append(torch.stack([rows.double(), distances.double(), *where.T.double()], 1))
        codes, ranks, chosen = nearest_of_each(torch.cat(found).numpy(), num)
        result = torch.zeros(len(means), num, *means.shape[1:], dtype=torch.uint8)
        result[codes, ranks] = self._at(self.sample.values, *chosen.T)
        return result, np.bincount(codes, minlength=len(means))

    def positions(self, num_codes: int) -> np.ndarray:
        """(S, h, w) int64, cells joined where the grid is finer than MAX_MAP."""
        high, wide = self.sample.codes.shape[2:]
        joined_rows = -(-high // MAX_MAP)
        joined_columns = -(-wide // MAX_MAP)
        num_rows = -(-high // joined_rows)
        num_columns = -(-wide // joined_columns)
        row = torch.arange(high) // joined_rows
        column = torch.arange(wide) // joined_columns
        cells = row[:, None] * num_columns + column
        counts = torch.zeros(num_codes * num_rows * num_columns, dtype=torch.long)
        for place in self.places:
            rows = self.row_of[self.sample.codes[:, place]]
            keys = (rows * num_rows * num_columns + cells)[rows >= 0]
            counts += torch.bincount(keys, minlength=len(counts))
        return counts.reshape(num_codes, num_rows, num_columns).numpy()

    def _where(self, start: int, place: int) -> Tensor:
        """Item, row and column (n, 3) of the positions in a batch whose code is shown."""
        codes = self.sample.codes[start : start + self.step, place]
        where = (self.row_of[codes] >= 0).nonzero()
        where[:, 0] += start
        return where

    def _cut(self, start: int, place: int) -> tuple[Tensor, Tensor]:
        """Rows (n,) of the codes of a batch, and their patches (n, C * s * s) float32."""
        codes = self.sample.codes[start : start + self.step]
        values = self.sample.values[start : start + self.step].float()
        if self.before[place]:
            earlier = torch.arange(codes.shape[1])[:, None, None] < self.before[place]
            values = values - decoded(self.model, codes.where(earlier, -1)).float()
        rows = self.row_of[codes[:, place]]
        patches = self._at(values, *(rows >= 0).nonzero().T)
        return rows[rows >= 0], patches.flatten(1)

    def _at(self, values: Tensor, item: Any, row: Any, column: Any) -> Tensor:
        """Patches (n, C, s, s) of values (B, C, H, W) around the positions of these indices."""
        rows = self.rows[row][:, :, None]
        columns = self.columns[column][:, None, :]
        return values[item[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


def nearest_of_each(found: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of rows (code, distance, item, *position) the `num` nearest of each code, no two of one item.

    Gives codes (n,), ranks from 0 (n,), and item and position (n, 1 + dimensions).
    """
    # By code, then item, then distance: the first row of each item is its nearest place.
    rows = found[np.lexsort((found[:, 1], found[:, 2], found[:, 0]))]
    is_first = np.ones(len(rows), bool)
    is_first[1:] = (rows[1:, [0, 2]] != rows[:-1, [0, 2]]).any(1)
    rows = rows[is_first]
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    codes = rows[:, 0].astype(np.int64)
    ranks = np.arange(len(codes)) - np.searchsorted(codes, codes)
    kept = ranks < num
    return codes[kept], ranks[kept], rows[kept, 2:].astype(np.int64)


def _has_map(model: Model) -> bool:
    return getattr(model.config.model.quantizer, "neighbourhood", 0) > 0


def _map(codes: Tensor, size: int) -> np.ndarray:
    """Column and row (S, 2) of each code on the map of a Kohonen codebook, rows downwards."""
    columns = size // map_rows(size)
    return torch.stack([codes % columns, -(codes // columns)], 1).double().numpy()


def _plane(vectors: Tensor) -> tuple[np.ndarray, float]:
    """Vectors (S, d) on their two main axes (S, 2), and the share of the variance that these
    hold.
    """
    centred = (vectors - vectors.mean(0)).double()
    values, axes = torch.linalg.eigh(centred.T @ centred)
    # A single column if d is 1.
    main = axes[:, -2:].flip(1)
    plane = np.zeros((len(vectors), 2))
    plane[:, : main.shape[1]] = (centred @ main).numpy()
    return plane, float(values[-2:].sum() / values.sum().clamp(min=1e-30))


def _neighbours(vectors: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows and distances (S, m) of the codes nearest to each, without itself."""
    num = min(NUM_NEIGHBOURS, len(vectors) - 1)
    if not num:
        return np.zeros((len(vectors), 0), np.int64), np.zeros((len(vectors), 0))
    rows = []
    distances = []
    for start in range(0, len(vectors), 1024):
        apart = torch.cdist(vectors[start : start + 1024].double(), vectors.double())
        # A code is not its own neighbour.
        own = torch.arange(start, start + len(apart))[:, None]
        nearest = apart.scatter_(1, own, torch.inf).topk(num, largest=False)
        rows.append(nearest.indices)
        distances.append(nearest.values)
    return torch.cat(rows).numpy(), torch.cat(distances).numpy()


def _close(neighbours: np.ndarray, distances: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows that count as duplicates, nearest first."""
    if not distances.size:
        return []
    limit = DUPLICATE * float(np.median(distances[:, 0]))
    found: dict[tuple[int, int], float] = {}
    for row, column in zip(*np.nonzero(distances <= limit), strict=True):
        first, second = sorted((int(row), int(neighbours[row, column])))
        found[first, second] = float(distances[row, column])
    return sorted(found, key=found.__getitem__)
