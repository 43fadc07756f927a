"""Items as compressed files hold them, and whether a file is what was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import torch
from torch import Tensor

from ..artifact import long_items
from ..artifact.codec import Codec, Coded, CodesInParts
from ..artifact.compressor import BLOCK, alike
from ..artifact.long_items import LongItem
from ..artifact.model import Model
from ..artifact.parts import Progress, nothing, values_in_pieces
from ..artifact.rate_search import within
from ..artifact.tokenizer import BATCH_VALUES
from ..coding import FormatError, WrongModel
from ..errors import VqkitError

KeyT = TypeVar("KeyT")
# Of a long item.
WRITING = 0.8


@dataclass(frozen=True)
class Compressed:
    """One item as it is written, and the PSNR in dB of what comes back."""

    codec: Codec
    coded: Coded
    psnr: float


@dataclass(frozen=True)
class Verdict:
    """One file: items in it whose codes are right, whether it was cut off, and what is wrong with
    it, if anything.

    checked: whether there was a model to check it with.
    """

    items: int
    truncated: bool
    error: str | None
    checked: bool = True

    @classmethod
    def failed(cls, error: VqkitError, items: int = 0, truncated: bool = False) -> Verdict:
        """Where that was raised.

        Of a model that is missing, or another one, it says nothing about the file.
        """
        checked = isinstance(error, FormatError) and not isinstance(error, WrongModel)
        return cls(items, truncated, str(error), checked)


def compress(
    model: Model,
    codec: Codec,
    items: Iterable[tuple[KeyT, Tensor | LongItem]],
    progress: Callable[[float], None] | None = None,
    skip: Callable[[KeyT, VqkitError], None] | None = None,
) -> Iterator[tuple[KeyT, Compressed]]:
    """Items (C, *extent) of any extents, each with a key that comes back with it, in order.

    As many go through the networks together as a block has and BATCH_VALUES allows. OutOfBounds for
    an item of too many codes: see `Codec.grid`. progress: of an effort or a long item, the number
    of items that are done, fractions included. skip: gets what is wrong with a long item, which is
    then left out; without it, that is raised.
    """
    waiting: list[tuple[KeyT, Tensor]] = []
    num_values = 0
    num_done = 0

    def tell(done: float) -> None:
        if progress:
            progress(num_done + done)

    for key, values in items:
        if isinstance(values, LongItem):
            yield from _compressed(model, codec, waiting, tell)
            num_done += len(waiting)
            waiting = []
            num_values = 0
            try:
                found = _compressed_long(model, codec, values, tell)
            except VqkitError as error:
                if skip is None:
                    raise
                skip(key, error)
            else:
                yield key, found
            num_done += 1
            continue
        waiting.append((key, values))
        num_values += values.numel()
        if len(waiting) == BLOCK or num_values >= BATCH_VALUES:
            yield from _compressed(model, codec, waiting, tell)
            num_done += len(waiting)
            waiting = []
            num_values = 0
    yield from _compressed(model, codec, waiting, tell)


def compress_within(
    model: Model, values: Tensor | LongItem, bits: float, name: str | None, effort: int = 0
) -> Compressed:
    """An item (C, *extent) in so many bits for each position at most; see artifact.rate_search."""
    if isinstance(values, LongItem):
        codec, coded = long_items.within(model.compressor, values, bits, name, effort)
        return _measured(model, codec, coded, values)
    codec, coded = within(model.compressor, values, bits, name, effort)
    shown = model.compressor.values_of(codec, [coded.codes], coded.extent)
    psnr = float(model.signal.measures(shown, values[None])[model.signal.quality][0])
    return Compressed(codec, coded, psnr)


def verify(model: Model, stream: bytes | BinaryIO) -> Verdict:
    """Decode the codes of a .vq file and compare their check sums."""
    items = 0
    truncated = False
    try:
        for decoded in model.compressor.read(stream):
            if isinstance(decoded.codes, CodesInParts):
                # Its parts are decoded, and checked, as they are asked for.
                for _ in decoded.codes:
                    pass
            items += 1
            truncated = truncated or decoded.truncated
    except VqkitError as error:
        return Verdict.failed(error, items, truncated)
    return Verdict(items, truncated, None)


def _compressed_long(
    model: Model, codec: Codec, item: LongItem, progress: Callable[[float], None]
) -> Compressed:
    """Of the time, WRITING goes with writing, the rest with measuring."""
    coded = long_items.code(model.compressor, item, codec, lambda share: progress(WRITING * share))

    def tell(share: float) -> None:
        progress(WRITING + (1 - WRITING) * share)

    return _measured(model, codec, coded, item, tell)


def _measured(
    model: Model,
    codec: Codec,
    coded: Coded,
    item: LongItem,
    progress: Progress = nothing,
) -> Compressed:
    shown = values_in_pieces(model.tokenizer, codec, coded.codes, coded.extent)
    return Compressed(codec, coded, long_items.quality(item, shown, progress))


def _compressed(
    model: Model,
    codec: Codec,
    waiting: list[tuple[KeyT, Tensor]],
    progress: Callable[[float], None],
) -> Iterator[tuple[KeyT, Compressed]]:
    compressed: dict[int, Compressed] = {}

    def tell(done: float) -> None:
        progress(len(compressed) + done)

    for places in alike([values.shape for _, values in waiting]):
        given = [waiting[place][1] for place in places]
        # Without a copy of a single one, which may be large.
        batch = given[0][None] if len(given) == 1 else torch.stack(given)
        coded = model.compressor.code(batch, codec, tell)
        held = [one.codes for one in coded]
        shown = model.compressor.values_of(codec, held, tuple(batch.shape[2:]))
        quality = model.signal.measures(shown, batch)[model.signal.quality].tolist()
        for place, one, psnr in zip(places, coded, quality, strict=True):
            compressed[place] = Compressed(codec, one, psnr)
    for place, (key, _) in enumerate(waiting):
        yield key, compressed[place]
