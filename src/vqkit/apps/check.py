"""Whether a model gives the same codes and values however it is called, and what it stands when
codes are damaged.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..artifact.model import Model
from ..artifact.streaming import DecodeStream, EncodeStream, decoded, encoded
from ..artifact.tokenizer import Tokenizer
from ..data.dataset import Dataset
from ..errors import VqkitError
from ..metrics import code_counts, code_figures
from ..model.quantizers.base import PADDING
from ..model.tiling import NUM_MARGINS, untile

# Items that are looked at, and those that go through together.
NUM_ITEMS = 64
BATCHES = (2, 7, NUM_ITEMS)
# Positions of the pieces that a stream gets, in tiles and a little more.
PIECES = (1, 3, 10)
# Items that go through in pieces, each of which is seen with all around it.
NUM_IN_PIECES = 8
# Shares of the codes that are replaced at random.
DAMAGE = (0.01, 0.05)
THREADS = (1, 2)
IN_PARTS = "in small parts"


@dataclass(frozen=True)
class Checked:
    """What was found.

    code_flips, value_flips: by setting, (how many codes, or values of the reconstruction, differ
    from those of every item alone, of how many). Those in small parts are of one large item, which
    the others are joined to, and differ from those of the whole.
    figures: items; usage and perplexity (None without countable codes), bits_per_item; the measure
    that items are ranked by, `quality` as it is, `quality_damaged_1` and `_5` with so many per cent
    of the codes replaced, `quality_first_N` of the first N codes of a position alone;
    seconds_to_encode and seconds_to_decode an item.
    """

    code_flips: dict[str, tuple[int, int]]
    value_flips: dict[str, tuple[int, int]]
    figures: dict[str, Any]

    @property
    def is_invariant(self) -> bool:
        """Whether nothing differs."""
        flips = [*self.code_flips.values(), *self.value_flips.values()]
        return not any(count for count, _ in flips)


# Items, or the codes of items with the items, in some way through a model.
Encode = Callable[[Sequence[Tensor]], list[Tensor]]
Decode = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]


@torch.no_grad()
def check(
    model: Model, items: Sequence[Tensor], progress: Callable[[float], None] | None = None
) -> Checked:
    """Look at a model with items (C, *extent), at least one.

    progress: called with the share that is done.
    """
    began = time.perf_counter()
    codes = _encode_alone(model, items)
    encoded_at = time.perf_counter()
    values = _decode_alone(model, codes, items)
    seconds = (encoded_at - began, time.perf_counter() - encoded_at)
    encoders, decoders = _encoders(model), _decoders(model)
    code_flips = {}
    value_flips = {}
    for number, (name, encode) in enumerate(encoders.items(), 1):
        code_flips[name] = _flips(codes, encode(items))
        if progress:
            progress(number / (len(encoders) + len(decoders) + 1))
    for number, (name, decode) in enumerate(decoders.items(), 1 + len(encoders)):
        value_flips[name] = _flips(values, decode(codes, items))
        if progress:
            progress(number / (len(encoders) + len(decoders) + 1))
    if len(model.shape.extent) > 1:
        code_flips[IN_PARTS], value_flips[IN_PARTS] = _flips_in_parts(model, items)
    figures = _figures(model, items, codes, values)
    figures["seconds_to_encode"], figures["seconds_to_decode"] = (
        each / len(items) for each in seconds
    )
    return Checked(code_flips, value_flips, figures)


def items_of(model: Model, data: Dataset | None, split: str = "test") -> list[Tensor]:
    """NUM_ITEMS items (C, *extent) of a split, without padding behind their end where they have one
    dimension; without data items that the model makes up.

    VqkitError when the split is empty, or the model has no codes to check.
    """
    if not model.network.quantizer.is_discrete:
        raise VqkitError("a model without a quantizer has no codes to check")
    if data is None:
        return list(model.tokenizer.sample(NUM_ITEMS, seed=0))
    items = []
    # Where all are meant, all are in the training split: see `evaluate.open_for`.
    for batch in data.split("train" if split == "all" else split, NUM_ITEMS):
        for row, values in enumerate(batch.values):
            if batch.mask is not None and batch.mask.dim() == 2:
                values = values[:, batch.mask[row]]
            items.append(values)
        break
    if not items:
        raise VqkitError(f"the {split} split of {data.name} is empty; choose another with --split")
    return items


# ----------------------------------------------------------------------------- ways through a model


def _encode_alone(model: Model, items: Sequence[Tensor]) -> list[Tensor]:
    return [model.tokenizer.encode(item[None])[0] for item in items]


def _decode_alone(model: Model, codes: Sequence[Tensor], items: Sequence[Tensor]) -> list[Tensor]:
    pairs = zip(codes, items, strict=True)
    return [
        model.tokenizer.decode(one[None], item.shape[1:], double=True)[0] for one, item in pairs
    ]


def _encoders(model: Model) -> dict[str, Encode]:
    found: dict[str, Encode] = {}
    for size in BATCHES:
        found[f"in batches of {size}"] = partial(_encode_together, model, size)
    for count in THREADS:
        found[f"on {count} threads"] = partial(_on_threads, count, partial(_encode_alone, model))
    if len(model.shape.extent) == 1:
        found["padded to one length"] = partial(_encode_padded, model)
        for tiles in PIECES:
            found[f"in pieces of {tiles} tiles"] = partial(_encode_pieces, model, tiles)
    return found


def _decoders(model: Model) -> dict[str, Decode]:
    found: dict[str, Decode] = {}
    for size in BATCHES:
        found[f"in batches of {size}"] = partial(_decode_together, model, size)
    for count in THREADS:
        found[f"on {count} threads"] = partial(_on_threads, count, partial(_decode_alone, model))
    if len(model.shape.extent) == 1:
        for tiles in PIECES:
            found[f"in pieces of {tiles} tiles"] = partial(_decode_pieces, model, tiles)
    return found


def _on_threads(count: int, work: Callable[..., list[Tensor]], *given: Any) -> list[Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return work(*given)
    finally:
        torch.set_num_threads(before)


def _groups(items: Sequence[Tensor], size: int) -> Iterator[list[int]]:
    """Places of items of equal shapes, so many at a time."""
    places: dict[torch.Size, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item.shape, []).append(place)
    for alike in places.values():
        for first in range(0, len(alike), size):
            yield alike[first : first + size]


def _encode_together(model: Model, size: int, items: Sequence[Tensor]) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for places in _groups(items, size):
        codes = model.tokenizer.encode(torch.stack([items[place] for place in places]))
        found |= dict(zip(places, codes, strict=True))
    return [found[place] for place in range(len(items))]


def _decode_together(
    model: Model, size: int, codes: Sequence[Tensor], items: Sequence[Tensor]
) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for places in _groups(items, size):
        together = torch.stack([codes[place] for place in places])
        extent = items[places[0]].shape[1:]
        values = model.tokenizer.decode(together, extent, double=True)
        found |= dict(zip(places, values, strict=True))
    return [found[place] for place in range(len(items))]


def _encode_padded(model: Model, items: Sequence[Tensor]) -> list[Tensor]:
    longest = max(item.shape[1] for item in items)
    whole = torch.stack([F.pad(item, (0, longest - item.shape[1])) for item in items])
    lengths = torch.tensor([item.shape[1] for item in items])
    codes = model.tokenizer.encode(whole, torch.arange(longest) < lengths[:, None])
    return [
        one[:, : model.tokenizer.grid(item.shape[1:])[0]]
        for one, item in zip(codes, items, strict=True)
    ]


def _encode_pieces(model: Model, tiles: int, items: Sequence[Tensor]) -> list[Tensor]:
    # A little more than whole tiles, so that pieces end anywhere.
    length = tiles * model.network.tile[0] + 1
    found = []
    for item in items[:NUM_IN_PIECES]:
        pieces = item.split(length, 1)
        found.append(torch.cat(list(encoded(EncodeStream(model.tokenizer), pieces)), 1))
    return found


def _decode_pieces(
    model: Model, tiles: int, codes: Sequence[Tensor], items: Sequence[Tensor]
) -> list[Tensor]:
    found = []
    for one, item in zip(codes[:NUM_IN_PIECES], items, strict=False):
        pieces = one.split(tiles * model.network.tile_grid[0], 1)
        values = torch.cat(list(decoded(DecodeStream(model.tokenizer), pieces)), 1)
        found.append(values[:, : item.shape[1]])
    return found


def _flips_in_parts(
    model: Model, items: Sequence[Tensor]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Codes, then values, that differ between a large item at once and in parts as small as can
    be.
    """
    network = copy.copy(model.network)
    network.part_positions = 1
    small = Tokenizer(replace(model.artifact, network=network), model.device)
    large = _joined(model, items)[None]
    codes = model.tokenizer.encode(large)
    values = model.tokenizer.decode(codes, large.shape[2:], double=True)
    again = small.decode(codes, large.shape[2:], double=True)
    return _flips([codes], [small.encode(large)]), _flips([values], [again])


def _joined(model: Model, items: Sequence[Tensor]) -> Tensor:  # (C, *extent)
    """Items beside one another along every dimension, again and again, until two parts are needed
    along each.
    """
    margin = NUM_MARGINS * max(model.network.reach) + 1
    sides = zip(model.network.tile, items[0].shape[1:], strict=True)
    counts = [-(-margin * tile // side) for tile, side in sides]
    alike = [item for item in items if item.shape == items[0].shape]
    chosen = islice(cycle(alike), math.prod(counts))
    return untile(torch.stack(list(chosen)), counts)[0]


def _flips(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> tuple[int, int]:
    """How many numbers of the items that were found differ, of how many."""
    pairs = list(zip(wanted, found, strict=False))
    return sum(int((one != other).sum()) for one, other in pairs), sum(map(torch.numel, found))


# ------------------------------------------------------------------------------------------ figures


def _figures(
    model: Model, items: Sequence[Tensor], codes: Sequence[Tensor], values: Sequence[Tensor]
) -> dict[str, Any]:
    quantizer = model.network.quantizer
    figures: dict[str, Any] = {"items": len(items), "usage": None, "perplexity": None}
    if quantizer.is_countable:
        counts = [code_counts(one[None], quantizer.codebook_size) for one in codes]
        found = code_figures(quantizer.per_codebook(torch.stack(counts).sum(0)))
        figures |= {name: found[name] for name in ("usage", "perplexity")}
    figures["bits_per_item"] = sum(float(quantizer.bits(one[None])) for one in codes) / len(codes)
    figures["quality"] = _quality(model, items, values)
    generator = torch.Generator().manual_seed(0)
    for share in DAMAGE:
        damaged = [_damaged(model, one, share, generator) for one in codes]
        shown = _decode_alone(model, damaged, items)
        figures[f"quality_damaged_{100 * share:g}"] = _quality(model, items, shown)
    for count in quantizer.prefixes[:-1]:
        first = [_first(one, count) for one in codes]
        shown = _decode_alone(model, first, items)
        figures[f"quality_first_{count}"] = _quality(model, items, shown)
    return figures


def _quality(model: Model, items: Sequence[Tensor], values: Sequence[Tensor]) -> float:
    """The mean over items of the measure that they are ranked by."""
    pairs = zip(values, items, strict=True)
    found = [
        model.signal.measures(one[None], item[None])[model.signal.quality] for one, item in pairs
    ]
    return float(torch.cat(found).double().mean())


def _damaged(model: Model, codes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Codes (Q, *grid) of which a share is drawn anew."""
    is_hit = torch.rand(codes.shape, generator=generator) < share
    drawn = [
        torch.randint(size, one.shape, generator=generator)
        for one, size in zip(codes, model.network.quantizer.codebook_sizes, strict=True)
    ]
    return torch.where(is_hit & (codes != PADDING), torch.stack(drawn), codes)


def _first(codes: Tensor, count: int) -> Tensor:
    shorter = codes.clone()
    shorter[count:] = PADDING
    return shorter
