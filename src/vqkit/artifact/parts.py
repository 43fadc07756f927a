"""Items along one dimension whose codes are written and read in parts, so that neither they nor the
values are held together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from ..coding import (
    CorruptHeader,
    Part,
    Parts,
    PartsHeader,
    ScalarCoder,
    ScalarCodes,
    check_model,
    codes_crc,
    gain_of,
)
from ..model.quantizers.base import PADDING
from .codec import Codec, Coded, Codes, CodesInParts, Content
from .streaming import DecodeStream, EncodeStream, decoded, encoded
from .tokenizer import Tokenizer

# Scalar codes of a part: 47 seconds of music in stereo at 44,100 samples a second. A part costs
# what its coder needs to learn anew.
PART_CODES = 1 << 22
# Codes of a codebook that are decoded to values together.
CODES_TOGETHER = 1 << 8

Progress = Callable[[float], None]


def nothing(share: float) -> None:
    """What is told of progress where nobody asks."""


def code_in_parts(tokenizer: Tokenizer, codec: Codec, pieces: Iterable[Tensor]) -> Coded:
    """Scalar codes of values in pieces (C, n), those that the whole item has."""
    coder = codec.engine
    assert isinstance(coder, ScalarCoder)
    stream = EncodeStream(tokenizer, gain_of(codec.gain))
    tiles = max(1, PART_CODES // (codec.codes_per_position * stream.cells))
    levels = tokenizer.network.quantizer.codebook_size
    length = 0

    def counted() -> Iterator[Tensor]:
        nonlocal length
        for piece in pieces:
            length += piece.shape[1]
            yield piece

    parts = []
    for number, codes in enumerate(_regrouped(encoded(stream, counted()), tiles * stream.cells)):
        held = ScalarCodes.of(codes[: codec.num_codebooks].numpy(), levels)
        (payloads,) = coder.encode([held])
        crc = codes_crc(chain.from_iterable(codec.in_order(held)), number)
        parts.append(Part(crc, tuple(payloads)))
    header = PartsHeader(
        length,
        tiles * stream.tile,
        codec.num_stages,
        codec.coder,
        codec.model_id,
        codec.signal,
        codec.gain,
    )
    return Coded((length,), CodesInParts(codec, header, parts.__getitem__, len(parts)), ())


def _regrouped(pieces: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """(q, m) in pieces of any lengths -> so many together, and what is left."""
    waiting: list[Tensor] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += piece.shape[1]
        if held >= count:
            joined = torch.cat(waiting, 1)
            whole = held // count * count
            yield from joined[:, :whole].split(count, 1)
            waiting = [joined[:, whole:].clone()]
            held -= whole
    if held:
        yield torch.cat(waiting, 1)


def opened_parts(tokenizer: Tokenizer, codec: Codec, parts: Parts) -> CodesInParts:
    """The codes of a file in parts. Errors: FormatError, before any part is decoded."""
    header = parts.header
    check_model(header.kind, codec.model_id, codec.signal)
    codec.check_stages(header.num_codebooks)
    tile = tokenizer.network.tile
    if len(tile) != 1 or (header.num_parts > 1 and header.part_length % tile[0]):
        raise CorruptHeader("items of this model are not in such parts")
    codec.grid(header.extent_of(0))
    return CodesInParts(codec, header, parts.part, parts.whole_blocks)


def values_in_pieces(
    tokenizer: Tokenizer,
    codec: Codec,
    codes: Content,
    extent: Sequence[int],
    progress: Progress = nothing,
) -> Iterator[Tensor]:
    """Values (C, n) in pieces of codes (q, t) of an item of that extent, along one dimension: those
    that the whole has, to the bit.
    """
    stream = DecodeStream(tokenizer, gain_of(codec.gain))

    def pieces() -> Iterator[Tensor]:
        for part in codes if isinstance(codes, CodesInParts) else (codes,):
            missing = tokenizer.num_codebooks - len(part)
            for first in range(0, part.shape[1], CODES_TOGETHER):
                some = torch.from_numpy(_some(part, first).astype(np.int64))
                yield torch.nn.functional.pad(some, (0, 0, 0, missing), value=PADDING)

    left = extent[0]
    for found in decoded(stream, pieces()):
        yield found[:, :left]
        left -= min(left, found.shape[1])
        progress(1 - left / extent[0])


def _some(codes: Codes, first: int) -> np.ndarray:
    """CODES_TOGETHER of each codebook, or as many as are left."""
    end = min(first + CODES_TOGETHER, codes.shape[1])
    if isinstance(codes, ScalarCodes):
        return codes.codes([(first, end)])
    return codes[:, first:end]
