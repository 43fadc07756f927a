"""What happens when codes change (swaps, importance, residual stages), and what is unlikely."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...artifact.model import Model
from ...coding import TransformerCoder
from ...coding.grids import join, split
from ...coding.rangecoder import TOTAL
from ...errors import VqkitError
from ...model.tiling import crop
from .atlas import Book
from .cutouts import Cells
from .sample import BATCH_SIZE, Sample, decoded, shown_of

# Codes that are swapped for one another, and how many of the most used they are chosen from; fewer
# where items are files to be played, which take more room and time.
NUM_SWAPPED = 8
NUM_SWAPPED_FILES = 4
NUM_COMMON = 64
# Positions along a side of an image on the page.
MAX_SIDE = 96
# Items that are decoded to measure importance.
MAX_DECODED = 4096
# Items on the page: images, and items that take more room and time each.
NUM_SHOWN = 12
NUM_FOLLOWED = 4
# Bytes of the files of a section of the page, which bound their number.
FILE_BYTES = 1_500_000
MAX_STAGES = 8
# Codes that the prior is asked about.
MAX_SCORED = 1 << 15
# Items of one dimension whose codes the coder is asked about, which knows one code after another.
MAX_CODED = 64
# Positions of codes that are decoded together.
MAX_TOGETHER = 1 << 12


@dataclass(frozen=True)
class Swap:
    """Code `code` replaced by `other` in one real item, or a part of it, at the first place of the
    first codebook.

    item: row of the sample, or of the training items. place: of the one that is swapped, in the
    grid of what is shown. places: (*grid) bool, all of them. here and everywhere: how far all of
    it changes, as `Signal.change` has it. shown: uint8 (3, H, W, C), as it was, swapped here,
    swapped everywhere; played: the same as files.
    """

    code: int
    other: int
    item: int
    place: tuple[int, ...]
    places: np.ndarray
    here: float
    everywhere: float
    shown: np.ndarray
    played: list[bytes]


@dataclass(frozen=True)
class Peel:
    """A residual model decoded from its first stages: counts of stages, quality in dB and bits of
    an item (T,) each, and its rate in `rate_in_words`, such as bpp.

    originals: uint8 (H, W, C) of n items. shown: of each stage, likewise. played: files, first the
    originals, then of each stage; nothing where there is nothing to play. names: (n,).
    """

    stages: list[int]
    quality: list[float]
    bits: list[float]
    rates: list[float]
    rate_in_words: str
    originals: list[np.ndarray]
    shown: list[list[np.ndarray]]
    played: list[list[bytes]]
    names: list[str]


@dataclass(frozen=True)
class Surprise:
    """Items and what their codes cost under the prior, or else the coder, the least likely first.

    source: prior or coder. shown: uint8 (H, W, C). bits: (*grid) float64, over all codes of a
    position. changes: (*grid) how far the item changes when the codes of a position are others, as
    `Signal.change` has it; nothing of aligned items, which have it in `importance`. played: files.
    ranks: among `items`, 1 for the least likely. names, extents: of the items.
    """

    source: str
    shown: list[np.ndarray]
    bits: list[np.ndarray]
    changes: list[np.ndarray]
    played: list[bytes]
    ranks: list[int]
    names: list[str]
    extents: list[tuple[int, ...]]
    items: int


# -------------------------------------------------------------------------------------------- swaps


@torch.no_grad()
def swaps(
    model: Model, sample: Sample, book: Book, wanted: Sequence[tuple[int, int]], training: Sample
) -> list[Swap]:
    """Much used codes that differ for one another, and those that are `wanted`: (code, other)
    pairs.

    A code that is wanted but in no item of the sample is looked for in those of training, which
    the book counts.
    Errors: VqkitError for a code that is not in the codebook, or in none of the items.
    """
    size = len(book.counts)
    swapped: dict[tuple[int, int], Swap] = {}
    for code, other in wanted:
        if not (0 <= code < size and 0 <= other < size):
            raise VqkitError(
                f"--swap {code} {other}: codes of the first codebook are 0 to {size - 1}"
            )
        if (sample.codes[:, 0] == code).any():
            items = sample
        elif (training.codes[:, 0] == code).any():
            items = training
        else:
            item = model.signal.item
            raise VqkitError(f"--swap {code} {other}: code {code} occurs in none of the {item}s")
        swapped[code, other] = _swap(model, items, code, other)
    num = NUM_SWAPPED
    if not model.signal.is_aligned:
        num = NUM_SWAPPED_FILES
        extent = model.shape.extent[0]
        while num > 2 and not _has_room(model, sample, extent, 3 * num * (num - 1)):
            num -= 1
    for code, other in itertools.permutations(_different(model, sample.codes[:, 0], num), 2):
        if (code, other) not in swapped:
            swapped[code, other] = _swap(model, sample, code, other)
    return list(swapped.values())


def _different(model: Model, codes: Tensor, num: int) -> list[int]:
    """`num` of the NUM_COMMON most used codes: the most used, then each time the one farthest from
    all taken.
    """
    counts = torch.bincount(codes[codes >= 0], minlength=num)
    num_used = int((counts > 0).sum())
    common = counts.argsort(descending=True, stable=True)[: min(NUM_COMMON, num_used)]
    vectors = model.artifact.network.quantizer.parts()[0].lookup(common[:, None])
    apart = torch.cdist(vectors, vectors)
    taken = [0]
    while len(taken) < min(num, len(common)):
        taken.append(int(apart[taken].amin(0).argmax()))
    return [int(common[place]) for place in sorted(taken)]


def _swap(model: Model, sample: Sample, code: int, other: int) -> Swap:
    """In an item, or a part of one, that has the code; here: its occurrence in the middle."""
    item, codes, extent = _with_code(model, sample, code)
    places = codes[0, 0] == code
    middle = torch.tensor([(side - 1) / 2 for side in places.shape])
    occurrences = places.nonzero()
    nearest = int((occurrences - middle).square().sum(1).argmin())
    place = tuple(occurrences[nearest].tolist())
    # As it was, swapped here, swapped everywhere.
    variants = codes.repeat(3, *[1] * (codes.dim() - 1))
    variants[(1, 0, *place)] = other
    variants[2, 0][places] = other
    values = decoded(model, variants, extent)
    changes = model.signal.change(values[1:], values[:1].expand_as(values[1:]))
    here, everywhere = changes.tolist()
    shown = shown_of(model, values, MAX_SIDE)
    played = model.signal.media(values, model.data)
    return Swap(code, other, item, place, places.numpy(), here, everywhere, shown, played)


def _with_code(model: Model, sample: Sample, code: int) -> tuple[int, Tensor, list[int]]:
    """An item that has a code: its row, its codes (1, Q, *grid) and its extent.

    The one that has it most often; of items that begin anywhere the part, no longer than an item of
    training, that has it among most others, and is no silence.
    """
    is_code = sample.codes[:, 0] == code
    if model.signal.is_aligned:
        item = int(is_code.flatten(1).sum(1).argmax())
        return item, sample.codes_of(model, item), sample.extents[item].tolist()
    grid = Cells(model)
    best = (0, 0, 0)
    for item, part in {(item, cell // grid.each) for item, cell in is_code.nonzero().tolist()}:
        cells = slice(part * grid.each, (part + 1) * grid.each)
        variety = len(sample.codes[item, 0, cells].unique())
        # The first of equals, in whatever order they come.
        best = max(best, (variety, -item, -part))
    item, part = -best[1], -best[2]
    first, end = grid.span(part, int(sample.extents[item, 0]))
    codes = sample.codes_of(model, item)[..., part * grid.each : (part + 1) * grid.each]
    return item, codes, [end - first]


# --------------------------------------------------------------------------------------- importance


@torch.no_grad()
def importance(
    model: Model, sample: Sample, progress: Callable[[float], None] = lambda share: None
) -> np.ndarray:
    """(h, w) float64: how far an item changes when the codes of a position are another item's.

    Root mean square over items and values, in levels.
    """
    rows, columns = sample.codes.shape[2:]
    codes = sample.codes[: max(4, MAX_DECODED // (rows * columns))]
    before = decoded(model, codes).float()
    others = codes.roll(1, 0)
    changes = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            swapped = codes.clone()
            swapped[:, :, row, column] = others[:, :, row, column]
            change = decoded(model, swapped).float() - before
            changes[row, column] = float(change.square().double().mean().sqrt())
        progress((row + 1) / rows)
    return changes


def changes_along(model: Model, sample: Sample, item: int) -> np.ndarray:
    """(t,) float64: how far one item changes when the codes of a position are those of the same
    position of the next item of the sample that has one.
    """
    codes = sample.codes_of(model, item)
    extent = sample.extents[item].tolist()
    num = codes.shape[2]
    places = torch.arange(num)
    # All other items, from the next one on, and behind them this one.
    others = sample.codes.roll(-item - 1, 0)[:, :, :num]
    first = (others[:, 0] >= 0).int().argmax(0)
    variants = codes.repeat(num, 1, 1)
    variants[places, :, places] = others[first, :, places]
    before = decoded(model, codes, extent)
    found = []
    for part in variants.split(max(1, MAX_TOGETHER // num)):
        values = decoded(model, part, extent)
        found.append(model.signal.change(values, before.expand_as(values)))
    return torch.cat(found).double().numpy()


# --------------------------------------------------------------------------------------------- peel


@torch.no_grad()
def peel(model: Model, sample: Sample, names: Sequence[str]) -> Peel | None:
    """None for models whose first stages cannot be decoded alone. `names`: of all items of the
    data.
    """
    quantizer = model.artifact.network.quantizer
    prefixes = quantizer.prefixes
    total = len(prefixes)
    if total < 2:
        return None
    counts = sorted({round(count) for count in np.linspace(1, total, min(total, MAX_STAGES))})
    rows = _followed(model, sample)
    items = [sample.item(row) for row in rows]
    figures: list[float] = []
    shown: list[list[np.ndarray]] = []
    played = [_played(model, items)]
    for count in counts:
        figures.append(_quality(model, sample, prefixes[count - 1]))
        values = []
        for row, item in zip(rows, items, strict=True):
            codes = _first_codes(sample.codes_of(model, row), prefixes[count - 1])
            values.append(decoded(model, codes, item.shape[2:]))
        shown.append(_shown(model, values))
        played.append(_played(model, values))
    sizes = np.log2(quantizer.codebook_sizes)
    cells = sample.codes[0, 0].numel()
    bits = [float(sizes[: prefixes[count - 1]].sum()) * cells for count in counts]
    extent = tuple(sample.values.shape[2:])
    rate_in_words, divisor = model.signal.rate_per(extent, model.data)
    return Peel(
        stages=counts,
        quality=figures,
        bits=bits,
        rates=[each / divisor for each in bits],
        rate_in_words=rate_in_words,
        originals=_shown(model, items),
        shown=shown,
        played=played,
        names=[str(names[int(sample.indices[row])]) for row in rows],
    )


def _followed(model: Model, sample: Sample) -> list[int]:
    """Rows of the items that are shown: the first ones, of items that begin anywhere some that lie
    apart, those without padding first.
    """
    if model.signal.is_aligned:
        return list(range(min(NUM_SHOWN, len(sample))))
    num = NUM_FOLLOWED
    stages = min(len(model.network.quantizer.prefixes), MAX_STAGES)
    while num > 1 and not _has_room(model, sample, sample.values.shape[2], num * (1 + stages)):
        num -= 1
    whole = np.flatnonzero(sample.is_whole)
    if len(whole) < num:
        whole = np.argsort(-sample.extents[:, 0], kind="stable")[:num]
    spread = np.linspace(0, len(whole) - 1, min(num, len(whole))).round().astype(int)
    return sorted(whole[spread].tolist())


def _has_room(model: Model, sample: Sample, length: int, num: int) -> bool:
    """Whether the page has room for that many files of items of that length, by the longest of the
    sample.
    """
    item = sample.item(int(sample.extents[:, 0].argmax()))
    files = model.signal.media(item, model.data)
    each = sum(map(len, files)) / item.shape[2]
    return num * length * each <= FILE_BYTES


def _first_codes(codes: Tensor, count: int) -> Tensor:
    """Codes (B, Q, *grid) with -1 behind the first `count` of Q."""
    order = torch.arange(codes.shape[1]).view(-1, *[1] * (codes.dim() - 2))
    return codes.where(order < count, -1)


def _quality(model: Model, sample: Sample, count: int) -> float:
    """Mean over the items of what they become with the first codes of Q alone."""
    values = []
    mask = sample.mask
    for start in range(0, len(sample), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        codes = _first_codes(sample.codes[part], count)
        made = decoded(model, codes, sample.values.shape[2:])
        real = None if mask is None else mask[part]
        measured = model.signal.measures(made, sample.values[part], real)
        values.append(measured[model.signal.quality])
    return float(torch.cat(values).double().mean())


def _shown(model: Model, items: Sequence[Tensor]) -> list[np.ndarray]:
    """Items (1, C, *extent) of any extent as images (H, W, C)."""
    return [shown_of(model, item, MAX_SIDE)[0] for item in items]


def _played(model: Model, items: Sequence[Tensor]) -> list[bytes]:
    return [file for item in items for file in model.signal.media(item, model.data)]


# ----------------------------------------------------------------------------------------- surprise


@torch.no_grad()
def surprise(model: Model, sample: Sample, names: Sequence[str]) -> Surprise | None:
    """The least and the most likely items, unconditional; None without a prior, and without a coder
    that was trained.

    `names`: of all items of the data.
    """
    scored = _scored(model, sample)
    if scored is None:
        return None
    source, rows, bits = scored
    # Longer items have more codes.
    each = torch.tensor([float(one.mean()) for one in bits])
    order = each.argsort(descending=True, stable=True)
    half = (NUM_SHOWN if model.signal.is_aligned else NUM_FOLLOWED) // 2
    # Both ends, of which neither takes what the other one has.
    ranks = torch.arange(len(order))
    ranks = torch.cat([ranks[:half], ranks[half:][-half:]])
    kept = order[ranks].tolist()
    items = [sample.item(rows[index]) for index in kept]
    changes = []
    if not model.signal.is_aligned:
        changes = [changes_along(model, sample, rows[index]) for index in kept]
    return Surprise(
        source=source,
        shown=_shown(model, items),
        bits=[bits[index] for index in kept],
        changes=changes,
        played=_played(model, items),
        ranks=(ranks + 1).tolist(),
        names=[str(names[int(sample.indices[rows[index]])]) for index in kept],
        extents=[tuple(item.shape[2:]) for item in items],
        items=len(order),
    )


def _scored(model: Model, sample: Sample) -> tuple[str, list[int], list[np.ndarray]] | None:
    """What gives codes their bits, rows of the sample, and bits (*grid) of each."""
    rows = list(range(len(sample)))
    if not model.signal.is_aligned:
        # Short ones say little, and end before anything can surprise.
        whole = np.flatnonzero(sample.is_whole)
        rows = (whole if len(whole) >= NUM_FOLLOWED else np.arange(len(sample))).tolist()
    if model.prior is not None:
        rows = rows[: max(NUM_SHOWN, MAX_SCORED // sample.codes[0].numel())]
        if sample.is_whole[rows].all():
            return "prior", rows, list(prior_bits(model, sample.codes[rows]).numpy())
        found = [prior_bits(model, sample.codes_of(model, row))[0].numpy() for row in rows]
        return "prior", rows, found
    coder = model.artifact.coders.codes
    if not isinstance(coder, TransformerCoder):
        return None
    rows = rows[:MAX_CODED]
    return "coder", rows, [coder_bits(coder, sample.codes_of(model, row)) for row in rows]


def prior_bits(model: Model, codes: Tensor) -> Tensor:
    """Bits (B, *grid) float64 of codes (B, Q, *grid), over all codes of a position.

    Items that are larger than those of training go in pieces, each of which begins anew.
    """
    prior = model.wanted_prior()
    grid = prior.layout.grid
    if codes.shape[2:] == grid:
        return prior.code_bits(codes).sum(1)
    if len(grid) > 1:
        raise ValueError(f"codes must lie on the grid {grid}, not {tuple(codes.shape[2:])}")
    pieces = []
    for piece in codes.split(grid[0], 2):
        # What is behind the end of an item comes after all of its codes.
        missing = grid[0] - piece.shape[2]
        filled = torch.nn.functional.pad(piece, (0, missing))
        pieces.append(crop(prior.code_bits(filled), [piece.shape[2]]))
    return torch.cat(pieces, 2).sum(1)


def coder_bits(coder: TransformerCoder, codes: Tensor) -> np.ndarray:
    """Bits (*grid) float64 that files spend on the codes (1, Q, *grid) of one item, over all codes
    of a position.
    """
    given = codes.numpy()
    bits: list[Any] = []
    for number, stage in enumerate(split(given, coder.all_sides)):
        wanted = stage.reshape(1, math.prod(stage.shape[1:]))
        of_stage = np.zeros(wanted.shape)
        for items, slots, table in coder.tables(given, number):
            chosen = np.take_along_axis(table, wanted[items, slots, None], 2)[..., 0]
            of_stage[items, slots] = math.log2(TOTAL) - np.log2(chosen)
        bits.append(of_stage.reshape(stage.shape))
    return join(bits, coder.all_sides, codes.shape[2:])[0].sum(0)
