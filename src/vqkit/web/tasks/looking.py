"""What codes of an item are, what they stand for, and what an item is with others of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ...apps.explain import CutoutBook, PatchBook, Pool, atlas_of, open_data, place_names
from ...artifact.model import Model
from ...errors import VqkitError
from .context import Context, Result, Tell

# Codes of an item that a page draws and changes.
MAX_CODES = 1 << 15
# Positions of an item that is looked at code by code.
MAX_POSITIONS = 1 << 22
# Training items that an atlas is made of.
NUM_ITEMS = 1024
# Codes of a codebook that it shows, the most used ones.
MAX_SHOWN = 1024
# Of a sheet of patches.
COLUMNS = 32


def look(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, item.

    The item, its reconstruction from the first stages alone and from all, and its codes.
    """
    model = context.model(args["model"])
    original = context.item(model, args["item"])
    if original[0].numel() > MAX_POSITIONS:
        raise VqkitError("that is too large to be looked at code by code; it can be compressed")
    codes = context.codes(model, args["item"])
    quantizer = model.network.quantizer
    extent = tuple(original.shape[1:])
    result = Result()
    peeled = []
    for count in quantizer.prefixes:
        kept = codes.clone()
        kept[:, count:] = -1
        values = model.tokenizer.decode(kept, extent)[0]
        bits = float(quantizer.bits(kept.to(model.device)))
        peeled.append({"stages": count, "bits": bits, **result.compared(model, values, original)})
    is_shown = quantizer.is_discrete and codes.numel() <= MAX_CODES
    result.values = {
        "original": result.item(model, original),
        "peeled": peeled,
        "places": place_names(model),
        "grid": list(codes.shape[2:]),
        "sizes": list(quantizer.codebook_sizes),
        "codes": codes[0].flatten(1).tolist() if is_shown else None,
        "unit": model.signal.quality_unit,
    }
    return result


def paint(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, item, edits: (place, position, code) each.

    The item with those codes in the place of its own.
    """
    model = context.model(args["model"])
    original = context.item(model, args["item"])
    sizes = model.network.quantizer.codebook_sizes
    codes = edited(context.codes(model, args["item"]), args["edits"], sizes)
    values = model.tokenizer.decode(codes, tuple(original.shape[1:]))[0]
    result = Result()
    result.values = result.compared(model, values, original)
    return result


def edited(codes: Tensor, edits: Sequence[Sequence[int]], sizes: Sequence[int]) -> Tensor:
    """Codes (1, Q, *grid) with others at some places. VqkitError for places that are not there, and
    for codes beyond the sizes of the codebooks.
    """
    flat = codes.clone().flatten(2)
    for place, position, code in edits:
        if not (0 <= place < flat.shape[1] and 0 <= position < flat.shape[2]):
            raise VqkitError("there is no such place in the grid of codes")
        if not 0 <= code < sizes[place]:
            raise VqkitError(f"there are {sizes[place]} codes, counted from 0")
        flat[0, place, position] = code
    return flat.reshape(codes.shape)


def atlas(context: Context, args: dict[str, Any], blobs: Sequence[bytes], tell: Tell) -> Result:
    """args: model, source, names (what files of the source were called).

    Of each codebook how often its codes occur; of images the mean patch of each code, of recordings
    and series cut-outs, of text the strings that it stands for.
    """
    model = context.model(args["model"])
    data = open_data(model, args["source"])
    books, pool = atlas_of(model, data, NUM_ITEMS, tell)
    result = Result()
    # Text is read, not looked at.
    is_read = model.signal.has_symbols
    result.values = {
        "books": [_described(result, book) for book in books],
        "places": model.network.quantizer.places(),
        "pool": None if pool is None or is_read else _pool(result, model, pool, args["names"]),
    }
    return result


def _described(result: Result, book: PatchBook | CutoutBook) -> dict[str, Any]:
    """A codebook for the page. Patches lie side by side on sheets of COLUMNS."""
    shown = book.codes[:MAX_SHOWN]
    described = {
        "name": book.name,
        "codes": shown.tolist(),
        "counts": book.counts[shown].tolist(),
        "neighbours": book.codes[book.neighbours[:MAX_SHOWN]].tolist(),
        "usage": float((book.counts > 0).mean()),
        "perplexity": book.perplexity,
    }
    if isinstance(book, CutoutBook):
        numbers = book.num_cutouts[:MAX_SHOWN].tolist()
        pairs = zip(book.cutouts[:MAX_SHOWN].tolist(), numbers, strict=True)
        described["cutouts"] = [places[:num] for places, num in pairs]
        described["strings"] = book.strings[:MAX_SHOWN]
        return described
    means = book.means[:MAX_SHOWN]
    typical = book.typical[:MAX_SHOWN]
    # Those of one code side by side.
    strips = np.concatenate(list(typical.swapaxes(0, 1)), axis=2)
    described["patch"] = list(means.shape[1:3])
    described["means"] = result.image(_sheet(means, COLUMNS))
    described["typical"] = result.image(_sheet(strips, 1))
    described["num_typical"] = book.num_typical[:MAX_SHOWN].tolist()
    described["positions"] = book.positions[:MAX_SHOWN].tolist()
    return described


def _pool(result: Result, model: Model, pool: Pool, names: dict[str, str]) -> dict[str, Any]:
    """What cut-outs are cut from: each part as an image of its length and, of recordings, a
    sound.
    """
    # Of a recording that is cut in several items each has the name of the file and its place there.
    files = [name.partition("@")[0] for name in pool.names]
    return {
        "shown": [result.image(part) for part in pool.shown],
        "played": [result.add(part, model.signal.media_type) for part in pool.played],
        "lengths": pool.lengths.tolist(),
        "names": [names.get(file, file) for file in files],
        "window": pool.window,
        "cell": pool.cell,
    }


def _sheet(patches: np.ndarray, columns: int) -> np.ndarray:
    """uint8 (S, h, w, C), row after row -> (rows * h, columns * w, C), black behind the last."""
    count, high, wide, channels = patches.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, high, wide, channels), np.uint8)
    sheet[:count] = patches
    sheet = sheet.reshape(rows, columns, high, wide, channels).swapaxes(1, 2)
    return sheet.reshape(rows * high, columns * wide, channels)
