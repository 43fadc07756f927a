"""Items along one dimension that are not held in memory, such as recordings of hours: values go
through the networks in pieces as they come from a file, and only codes are kept, two bytes each.

What is written and what comes back is what the whole item would give.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..coding import BytesCoder, ScalarCoder, TransformerCoder
from ..errors import VqkitError
from . import rate_search
from .codec import Codec, Coded
from .compressor import Compressor
from .operating_points import assign
from .parts import Progress, code_in_parts, nothing
from .record import Artifact
from .streaming import (
    DecodeStream,
    EncodeStream,
    LatentStream,
    decoded,
    encoded,
    side_by_side,
)
from .tokenizer import Tokenizer

# Values of the longest item that is held.
LONG = 1 << 20
# Rates that are tried until a file is small enough.
ATTEMPTS = 4
# Share of the time that codes are found in, the rest of which they are coded in.
FINDING = 0.3


@dataclass(frozen=True)
class LongItem:
    """An item (C, T) in a file.

    extent: (T,), as far as the file's header says; none where it says nothing.
    """

    artifact: Artifact
    path: Path
    extent: tuple[int, ...] | None

    def pieces(self, progress: Progress = nothing) -> Iterator[Tensor]:
        """Its values (C, n) in pieces, read anew. progress: receives the share that is read.

        VqkitError naming the file, when it gets to what is wrong with it.
        """
        artifact = self.artifact
        done = 0
        for piece in artifact.signal.read_pieces(self.path, artifact.data, artifact.config.data):
            yield piece
            done += piece.shape[1]
            if self.extent is not None:
                progress(min(1.0, done / max(1, *self.extent)))


def open_item(artifact: Artifact, path: Path) -> Tensor | LongItem:
    """A file as values (C, *extent), or one along one dimension that is too long to be held.

    VqkitError naming the file.
    """
    signal = artifact.signal
    if len(artifact.shape.extent) != 1:
        return signal.read(path, artifact.data, artifact.config.data)
    item = LongItem(artifact, path, signal.expected_extent(path, artifact.data))
    held = []
    count = 0
    for piece in item.pieces():
        held.append(piece)
        count += piece.numel()
        if count > LONG:
            return item
    return torch.cat(held, 1)


def is_long(channels: int, extent: Sequence[int]) -> bool:
    """Whether an item of that extent is decoded in pieces."""
    return len(extent) == 1 and channels * extent[0] > LONG


# ------------------------------------------------------------------------------------ values, codes


def code(
    compressor: Compressor, item: LongItem, codec: Codec, progress: Progress = nothing
) -> Coded:
    """An item as files of a kind hold it. OutOfBounds for one of too many codes, as soon as that is
    known; VqkitError as `LongItem.pieces`.

    progress: receives the share that is done.
    """
    if item.extent is not None and (codec.effort or not isinstance(codec.engine, ScalarCoder)):
        codec.grid(item.extent)
    if codec.effort:
        # The search looks at the whole item.
        values = torch.cat(list(item.pieces()), 1)
        return compressor.code(values[None], codec, progress)[0]
    if isinstance(codec.engine, ScalarCoder):
        return code_in_parts(compressor.tokenizer, codec, item.pieces(progress))
    length = 0

    def counted() -> Iterator[Tensor]:
        nonlocal length
        for piece in item.pieces(lambda share: progress(FINDING * share)):
            length += piece.shape[1]
            yield piece

    sizes = compressor.artifact.network.quantizer.codebook_sizes
    kind = np.uint16 if max(sizes) <= 1 << 16 else np.uint32
    found = [codes.numpy().astype(kind) for codes in _codes(compressor, counted(), codec)]
    codec.grid((length,))
    codes = np.concatenate(found, 1)
    del found
    assert not isinstance(codec.engine, BytesCoder), "lossless items are not cut"
    (payloads,) = codec.engine.encode(
        codes[None], lambda share: progress(FINDING + (1 - FINDING) * share)
    )
    return Coded((length,), codes, tuple(payloads))


def _codes(compressor: Compressor, pieces: Iterable[Tensor], codec: Codec) -> Iterator[Tensor]:
    """Codes (q, m) of an item in pieces."""
    tokenizer = compressor.tokenizer
    engine = codec.engine
    if not codec.weight or not isinstance(engine, TransformerCoder):
        for codes in encoded(EncodeStream(tokenizer), pieces):
            yield codes[: codec.num_codebooks]
        return
    # Bits are weighed as if every piece were an item: the next one then begins with a price that is
    # a little off, but no other code.
    quantizer = compressor.artifact.network.quantizer
    for latents in encoded(LatentStream(tokenizer), pieces):
        chosen = assign(quantizer, engine, latents[None], codec.num_stages, codec.weight)
        yield torch.from_numpy(chosen[0])


def write(
    compressor: Compressor,
    item: LongItem,
    name: str | None,
    *,
    rate: str | float | None = None,
    effort: int = 0,
) -> bytes:
    """The file of an item, as `Compressor.write` has it."""
    if isinstance(rate, str) or rate is None:
        codec = compressor.codec(rate=rate, effort=effort)
        coded = code(compressor, item, codec)
    else:
        codec, coded = within(compressor, item, rate, name, effort)
    return codec.file_of(coded, name)


class Reconstruction:
    """An item through a model and back.

    length, bits: the values (C, n) that have come so far, n of them, and what their codes take
    without an entropy coder.
    """

    def __init__(self, tokenizer: Tokenizer, item: LongItem) -> None:
        self.length = 0
        self.bits = 0.0
        self._tokenizer = tokenizer
        self._item = item

    def pieces(self, progress: Progress = nothing) -> Iterator[Tensor]:
        """The values (C, n) in pieces, for once. progress: receives the share that is done.

        VqkitError as `LongItem.pieces`.
        """
        shown = decoded(DecodeStream(self._tokenizer), self._codes())
        for values, _ in side_by_side(shown, self._item.pieces(progress)):
            self.length += values.shape[1]
            yield values

    def _codes(self) -> Iterator[Tensor]:
        quantizer = self._tokenizer.network.quantizer
        for codes in encoded(EncodeStream(self._tokenizer), self._item.pieces()):
            self.bits += float(quantizer.bits(codes[None].to(self._tokenizer.device)))
            yield codes


def quality(item: LongItem, shown: Iterable[Tensor], progress: Progress = nothing) -> float:
    """The measure that items are ranked by, of values (C, n) in pieces beside those of an item."""
    pairs = side_by_side(shown, item.pieces(progress))
    return item.artifact.signal.quality_of_pieces(pairs)


def within(
    compressor: Compressor, item: LongItem, bits: float, name: str | None, effort: int = 0
) -> tuple[Codec, Coded]:
    """An item as well as so many bits for each position allow, with that name: at the rate that its
    beginning has in so many, in fewer if all of it is larger, else at the largest of the model's
    named rates that fits. VqkitError as `rate_search.within`.
    """
    full = compressor.codec(effort=effort)
    beginning = _beginning(item)
    # Headers weigh more in a short file.
    asked = bits + _header(compressor, beginning, name) / beginning.shape[1]
    for _ in range(ATTEMPTS):
        try:
            codec, _ = rate_search.within(compressor, beginning, asked, name, effort)
        except VqkitError:
            break
        coded, size = _sized(compressor, item, codec, name)
        if size <= bits:
            return codec, coded
        asked -= 1.5 * (size - bits)
    rates = sorted(compressor.artifact.coders.rates.values(), key=lambda rate: -rate.bits)
    size = math.inf
    for codec in [full.at(rate) for rate in rates] or [full]:
        coded, size = _sized(compressor, item, codec, name)
        if size <= bits:
            return codec, coded
    raise VqkitError(
        "the smallest file that this model makes of the item has "
        f"{size:.3f} bits per position, more than {bits:g}"
    )


def _sized(
    compressor: Compressor, item: LongItem, codec: Codec, name: str | None
) -> tuple[Coded, float]:
    """An item as a kind of file has it, and the bits of the file for each of its positions."""
    coded = code(compressor, item, codec)
    data = codec.file_of(coded, name)
    return coded, 8 * len(data) / coded.extent[0]


def _header(compressor: Compressor, values: Tensor, name: str | None) -> float:
    """Bits of a file of values (C, n) beside those of its codes."""
    codec = compressor.codec()
    (coded,) = compressor.code(values[None], codec)
    data = codec.file_of(coded, name)
    return 8.0 * (len(data) - sum(map(len, coded.payloads)))


def _beginning(item: LongItem) -> Tensor:
    """The first values (C, n), as many as of the longest item that is held."""
    held = []
    count = 0
    for piece in item.pieces():
        held.append(piece)
        count += piece.numel()
        if count >= LONG:
            break
    return torch.cat(held, 1)
