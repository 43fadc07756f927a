"""Items along one dimension, in pieces as they come: codes and values of the whole, to the bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from .tokenizer import Tokenizer


class EncodeStream:
    """Values in pieces -> codes, those that the whole item would have.

    delay: values that a code waits for from the first of its own on: its tile, and those behind it
    that the encoder sees; as soon as they are there, so is the code. ValueError for a model of
    items that have more than one dimension.
    """

    def __init__(self, tokenizer: Tokenizer, gain: float = 1.0) -> None:
        network = tokenizer.network
        self.tokenizer = tokenizer
        self.gain = gain
        self.tile = _only(network.tile)
        self.cells = _only(network.tile_grid)
        self.width = tokenizer.num_codebooks
        # Tiles before a tile that the encoder sees, and values behind it.
        self.back = network.encoder_reach.back
        self.ahead = network.ahead.encoder
        self.delay = self.tile + self.ahead
        self._waiting = torch.zeros(tokenizer.shape.channels, 0, dtype=torch.int16)
        # Tiles of the item before those that wait, and those whose codes are out.
        self._dropped = 0
        self._done = 0
        self._is_begun = False

    def __repr__(self) -> str:
        return f"EncodeStream(delay={in_words(self.tokenizer, self.delay)})"

    def push(self, values: Tensor) -> Tensor:
        """The next values (C, n) -> the codes (Q, m) that are known by now, n and m from 0 on."""
        self._take(values)
        ready = self._dropped + (self._waiting.shape[1] - self.ahead) // self.tile
        return self._codes_until(ready)

    def finish(self) -> Tensor:
        """The codes (Q, m) of all that is left; the end of the item."""
        return self._codes_until(self._dropped - (-self._waiting.shape[1] // self.tile))

    def _take(self, values: Tensor) -> None:
        if not self._is_begun:
            self._waiting = self._waiting.to(values.dtype)
            self._is_begun = True
        self._waiting = torch.cat([self._waiting, values], 1)

    def _codes_until(self, ready: int) -> Tensor:
        if ready <= self._done:
            return torch.zeros(self.width, 0, dtype=torch.int64)
        # The last tile may lack values, which no code that is ready depends on.
        codes = self._found(self._waiting[None])[0]
        inside = slice(
            (self._done - self._dropped) * self.cells, (ready - self._dropped) * self.cells
        )
        self._done = ready
        keep_from = max(0, ready - self.back)
        self._waiting = self._waiting[:, (keep_from - self._dropped) * self.tile :].clone()
        self._dropped = keep_from
        return codes[:, inside]

    def _found(self, seen: Tensor) -> Tensor:
        """What is made of values (1, C, n), (1, width, m)."""
        return self.tokenizer.encode(seen, gain=self.gain)


class LatentStream(EncodeStream):
    """As `EncodeStream`, with latents (D, m) in the place of codes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.cells *= tokenizer.network.quantizer.grid_multiple
        self.width = tokenizer.network.quantizer.latent_dim

    def _found(self, seen: Tensor) -> Tensor:
        return self.tokenizer.latents_alone(seen)


class DecodeStream:
    """Codes in pieces -> values, those that the whole item would have.

    delay: values of the last tiles of codes that are not out before further codes come: what the
    decoder sees ahead. ValueError as `EncodeStream`.
    """

    def __init__(self, tokenizer: Tokenizer, gain: float = 1.0) -> None:
        network = tokenizer.network
        self.tokenizer = tokenizer
        self.gain = gain
        self.tile = _only(network.tile)
        self.cells = _only(network.tile_grid)
        # Tiles before that of a value that the decoder sees.
        self.back = network.decoder_reach.back
        self.delay = network.ahead.decoder
        self._waiting = torch.zeros(tokenizer.num_codebooks, 0, dtype=torch.int64)
        # Tiles of the item before those that wait, and values that are out.
        self._dropped = 0
        self._done = 0
        # The clock at the first of the codes that wait.
        self._clock: Tensor | None = None

    def __repr__(self) -> str:
        return f"DecodeStream(delay={in_words(self.tokenizer, self.delay)})"

    def push(self, codes: Tensor) -> Tensor:
        """The next codes (Q, m), of whole tiles -> the values (C, n) that are known by now."""
        if codes.shape[1] % self.cells:
            raise ValueError(f"codes come in whole tiles of {self.cells}, not {codes.shape[1]}")
        self._waiting = torch.cat([self._waiting, codes], 1)
        return self._values_until(self._num_values - self.delay)

    def finish(self) -> Tensor:
        """The values (C, n) of all that is left, up to the end of a tile; the end of the item."""
        return self._values_until(self._num_values)

    @property
    def _num_values(self) -> int:
        """Values of all tiles whose codes have come."""
        return (self._dropped + self._waiting.shape[1] // self.cells) * self.tile

    def _values_until(self, ready: int) -> Tensor:
        decode = self.tokenizer.decode
        if ready <= self._done:
            empty = torch.zeros(self.tokenizer.shape.channels, 0)
            return self.tokenizer.normalisation.restore(empty[None])[0]
        codes = self._waiting[None]
        values = decode(codes, double=True, gain=self.gain, start=self._clock)[0]
        first = self._dropped * self.tile
        found = values[:, self._done - first : ready - first].clone()
        self._done = ready
        dropped = max(0, ready // self.tile - self.back) - self._dropped
        self._clock = self.tokenizer.clock_after(
            codes[..., : dropped * self.cells], self.gain, self._clock
        )
        self._waiting = self._waiting[:, dropped * self.cells :].clone()
        self._dropped += dropped
        return found


def encoded(stream: EncodeStream, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """What a stream makes of an item in pieces (C, n), in pieces (., m) that are not empty."""
    for piece in pieces:
        found = stream.push(piece)
        if found.shape[1]:
            yield found
    found = stream.finish()
    if found.shape[1]:
        yield found


def decoded(stream: DecodeStream, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """The values of an item in pieces (C, n) that are not empty, whole tiles together, of codes in
    pieces (Q, m) of whole tiles.
    """
    for piece in pieces:
        found = stream.push(piece)
        if found.shape[1]:
            yield found
    found = stream.finish()
    if found.shape[1]:
        yield found


def side_by_side(
    first: Iterable[Tensor], second: Iterable[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Two items in pieces (C, n) of any lengths -> both in pieces of the same lengths, up to the
    end of the shorter one.
    """
    ends = iter(first), iter(second)
    waiting: list[Tensor | None] = [None, None]
    while True:
        for number, pieces in enumerate(ends):
            held = waiting[number]
            if held is None or not held.shape[1]:
                waiting[number] = next(pieces, None)
        one, other = waiting
        if one is None or other is None:
            return
        count = min(one.shape[1], other.shape[1])
        yield one[:, :count], other[:, :count]
        waiting = [one[:, count:], other[:, count:]]


def in_words(tokenizer: Tokenizer, values: int) -> str:
    """A length within an item as people tell it: 68.4 ms of a recording."""
    unit, size = tokenizer.artifact.signal.ruler(tokenizer.artifact.data)
    return f"{values / size:.4g} {unit}"


def latency_in_words(tokenizer: Tokenizer) -> str:
    """How long a value waits on its way through both streams, and what for. ValueError as
    `EncodeStream`.
    """
    encoder = EncodeStream(tokenizer)
    decoder = DecodeStream(tokenizer)
    whole, tile, ahead, behind = (
        in_words(tokenizer, values)
        for values in (encoder.delay + decoder.delay, encoder.tile, encoder.ahead, decoder.delay)
    )
    return f"{whole}: {tile} of a code, {ahead} ahead of it to encode, {behind} to decode"


def _only(sides: tuple[int, ...]) -> int:
    if len(sides) != 1:
        raise ValueError("only items along one dimension, such as recordings, come in pieces")
    return sides[0]
