"""Coder 3, of bytes in order: lossless files of text, which begin with what training texts taught.

Shapes: N items, T bytes of an item, P bytes of the history. Every number is an integer.

Each bit of a byte is predicted by what followed the same last one to six bytes and the same words,
and by what came behind the longest match of all bytes so far; the logits are weighed and added by
two mixers, whose mean a last table corrects (context mixing: Mahoney 2005, "Adaptive weighing of
context models"; states of bits in buckets of four: Mahoney's lpaq, described in "Data compression
explained", section 4.3). All of it learns from every bit. An item begins with what the coder
learnt from the training texts, which are its history, and knows nothing of other items.
docs/file-format.md has it in full. With numba, of the extra [fast], the same bytes come sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..rangecoder import RangeEncoder, check_position
from .bytes_state import (
    BUCKET,
    FINE,
    FIRST_POSITION,
    GAP,
    LONGEST,
    MAX_COUNT,
    MAX_WEIGHT,
    NUM_CONTEXTS,
    NUM_INPUTS,
    NUM_STATES,
    STEPS,
    TABLES,
    Learnt,
    Noted,
    first_learnt,
    places_found,
)

Array = NDArray[Any]

MIN_BUCKET_BITS = 12
MAX_BUCKET_BITS = 20
# Bytes of the history at most, and without numba, with which a second learns a few thousand.
MAX_HISTORY = 1 << 22
MAX_UNCOMPILED = 1 << 16
# Bytes that are coded by one call.
TOGETHER = 1 << 14
# Symbols of a byte, and bytes that a symbol takes at most.
ROOM = 8 * 2
# Tensors of the coder, by name: their type, and how many numbers they have; 0 = as many as the
# history asks for.
ARRAYS: dict[str, tuple[type, int]] = {
    "history": (np.uint8, 0),
    "buckets": (np.uint8, 0),
    "maps": (np.int32, NUM_CONTEXTS * 256 * 2),
    "matches": (np.int32, (LONGEST + 1) * 2),
    "by_node": (np.int32, 256 * NUM_INPUTS),
    "by_match": (np.int32, (NUM_CONTEXTS + 1) * 8 * NUM_INPUTS),
    "final": (np.int32, 256 * STEPS * 2),
}


@dataclass(frozen=True, eq=False)
class BytesCoder:
    """An entropy coder of values that are bytes.

    history (P,) uint8: the training texts, GAP zeros before, between and behind them. The others
    are what was learnt from them, see `bytes_state.Learnt`.
    """

    history: Array
    buckets: Array
    maps: Array
    matches: Array
    by_node: Array
    by_match: Array
    final: Array

    @classmethod
    def fitted(
        cls,
        texts: Iterable[bytes],
        in_time: Callable[[], bool] = lambda: True,
        progress: Callable[[float], None] | None = None,
    ) -> BytesCoder:
        """A coder that has learnt from texts in order, as many as there is memory and time for."""
        most = MAX_HISTORY if kernels.usable() else MAX_UNCOMPILED
        taken: list[bytes] = []
        total = GAP
        for text in texts:
            room = most - total - GAP
            if room <= 0:
                break
            taken.append(text[:room])
            total += len(taken[-1]) + GAP
        bits = min(max((total // 2).bit_length(), MIN_BUCKET_BITS), MAX_BUCKET_BITS)
        gap = bytes(GAP)
        history = np.frombuffer(gap + gap.join([*taken, b""]), np.uint8).copy()
        work = _Work(history, first_learnt(bits, bits))
        at = GAP
        for number, text in enumerate(taken):
            if not in_time():
                break
            work.learn(at, at + len(text))
            at += len(text) + GAP
            if progress:
                progress((number + 1) / len(taken))
        work.text = work.text[:at]
        return work.coder()

    def encode(self, codes: Array) -> list[list[bytes]]:
        """Values (N, 1, T) of 8 bits -> the bytes of every item. Each item is coded alone."""
        with self._lock:
            return [[self._work.encode(item[0].astype(np.uint8))] for item in codes]

    def decode(self, payloads: Sequence[Sequence[bytes]], grid: Sequence[int]) -> Array:
        """Bytes of every item of an extent (T,) -> values (N, 1, T) uint8.

        Wrong bytes give wrong values, as the check sums of the file tell, or CorruptCodes where
        they end too soon.
        """
        (length,) = grid
        with self._lock:
            found = [self._work.decode(payload, length) for (payload,) in payloads]
        return np.stack(found)[:, None] if found else np.zeros((0, 1, length), np.uint8)

    @cached_property
    def _lock(self) -> Lock:
        return Lock()

    @cached_property
    def _work(self) -> _Work:
        bits = (len(self.buckets) // BUCKET).bit_length() - 1
        learnt = Learnt(
            self.buckets,
            self.maps,
            self.matches,
            self.by_node,
            self.by_match,
            self.final,
            places_found(self.history, bits),
        )
        return _Work(self.history, learnt)

    def tensors(self) -> dict[str, Array]:
        """Everything, by name, for a file; `from_tensors` takes it back."""
        return {name: getattr(self, name) for name in ARRAYS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> BytesCoder:
        """ValueError for what breaks a bound that the kernel or memory rests on."""
        if set(tensors) != set(ARRAYS):
            raise ValueError("these are not the tensors of a coder of bytes")
        for name, (kind, count) in ARRAYS.items():
            array = tensors[name]
            if array.dtype != kind or array.ndim != 1 or (count and len(array) != count):
                raise ValueError(f"tensor {name} is {array.dtype} {array.shape}")
        num_buckets, rest = divmod(len(tensors["buckets"]), BUCKET)
        bits = num_buckets.bit_length() - 1
        if rest or num_buckets != 1 << bits or not MIN_BUCKET_BITS <= bits <= MAX_BUCKET_BITS:
            raise ValueError("the number of buckets is out of bounds")
        if not GAP <= len(tensors["history"]) <= MAX_HISTORY:
            raise ValueError("the length of the history is out of bounds")
        states = tensors["buckets"].reshape(-1, BUCKET)[:, 1:]
        if int(states.max()) >= NUM_STATES:
            raise ValueError("a bucket has a state that there is not")
        for name in ("maps", "matches", "final"):
            known, counts = tensors[name].reshape(-1, 2).T
            _check_within(name, known, 0, (1 << FINE) - 1)
            _check_within(name, counts, 0, MAX_COUNT)
        for name in ("by_node", "by_match"):
            _check_within(name, tensors[name], -MAX_WEIGHT, MAX_WEIGHT)
        return cls(**dict(tensors))


def _check_within(name: str, numbers: Array, least: int, most: int) -> None:
    if int(numbers.min()) < least or int(numbers.max()) > most:
        raise ValueError(f"tensor {name} holds numbers outside of {least} to {most}")


class _Work:
    """A history and what was learnt from it, and both with an item behind it.

    text: the history, and room for the item. What an item changes is put back behind it: of a short
    one the places that were touched, of a long one all.
    """

    def __init__(self, history: Array, learnt: Learnt) -> None:
        self.history = history
        self.text = history.copy()
        self.first = learnt
        self.learnt = Learnt(*(part.copy() for part in learnt))

    def learn(self, start: int, end: int) -> None:
        """Learn from bytes of the history, for good."""
        noted = _noted(0)
        nothing = np.zeros(0, np.uint8)
        no_coder = np.zeros(0, np.int64)
        _run(self.text, start, end, self.learnt, noted, nothing, no_coder, no_coder, nothing)

    def coder(self) -> BytesCoder:
        """What was learnt."""
        names = list(ARRAYS)[1:]
        return BytesCoder(self.text, **{name: getattr(self.learnt, name) for name in names})

    def encode(self, item: Array) -> bytes:
        """The bytes of an item (T,)."""
        nothing = np.zeros(0, np.uint8)
        no_decoder = np.zeros(0, np.int64)
        encoder = np.array([0, 1 << 32, 0])
        out = np.zeros(0, np.uint8)
        start = len(self.history)
        self._make_room(len(item))
        self.text[start : start + len(item)] = item
        noted = _noted(len(item))
        for first, end in _parts(start, len(item)):
            count = int(encoder[2])
            wanted = count + ROOM * (end - first + 1)
            if wanted > len(out):
                room = np.zeros(wanted + wanted // 4, np.uint8)
                room[:count] = out[:count]
                out = room
            _run(self.text, first, end, self.learnt, noted, nothing, no_decoder, encoder, out)
        self._put_back(noted)
        low, width, count = encoder.tolist()
        return RangeEncoder(low, width, out[:count].tobytes()).finish()

    def decode(self, data: bytes, length: int) -> Array:
        """An item of so many bytes. CorruptCodes where its bytes end too soon."""
        from ..rangecoder_kernel import begin_decoder

        decoder = begin_decoder(data)
        given = np.frombuffer(data, np.uint8)
        no_encoder = np.zeros(0, np.int64)
        nothing = np.zeros(0, np.uint8)
        start = len(self.history)
        noted = _noted(length)
        try:
            for first, end in _parts(start, length):
                self._make_room(end - start)
                _run(self.text, first, end, self.learnt, noted, given, decoder, no_encoder, nothing)
                check_position(int(decoder[2]), len(data))
        finally:
            self._put_back(noted)
        return self.text[start : start + length].copy()

    def _make_room(self, length: int) -> None:
        """Room for an item behind the history."""
        start = len(self.history)
        if start + length > len(self.text):
            text = np.zeros(start + length + length // 2, np.uint8)
            text[: len(self.text)] = self.text
            self.text = text

    def _put_back(self, noted: Noted) -> None:
        """What was learnt from an item is forgotten."""
        whole = slice(None)
        buckets: Any = whole
        found: Any = whole
        if len(noted.buckets):
            buckets = noted.buckets[1 : noted.buckets[0] + 1]
            found = noted.found[1 : noted.found[0] + 1]
        mine = self.learnt.buckets.reshape(-1, BUCKET)
        mine[buckets] = self.first.buckets.reshape(-1, BUCKET)[buckets]
        self.learnt.found[found] = self.first.found[found]
        for name in list(ARRAYS)[2:]:
            getattr(self.learnt, name)[:] = getattr(self.first, name)


def _parts(start: int, length: int) -> list[tuple[int, int]]:
    """First and end of what is coded by one call after the other."""
    end = start + length
    return [(first, min(first + TOGETHER, end)) for first in range(start, end, TOGETHER)]


def _noted(length: int) -> Noted:
    """What is noted of an item: touched places only where they are fewer than all."""
    is_short = 0 < length <= TOGETHER
    return Noted(
        hashes=np.zeros(NUM_CONTEXTS, np.int64),
        places=np.zeros(NUM_CONTEXTS, np.int64),
        inputs=np.zeros(NUM_INPUTS, np.int64),
        position=np.array(FIRST_POSITION),
        buckets=np.zeros(2 * NUM_CONTEXTS * length + 1 if is_short else 0, np.int64),
        found=np.zeros(length + 1 if is_short else 0, np.int64),
    )


def _run(
    text: Array,
    start: int,
    end: int,
    learnt: Learnt,
    noted: Noted,
    data: Array,
    decoder: Array,
    encoder: Array,
    out: Array,
) -> None:
    """`code_bytes` of arrays.

    Without numba, of views of them that give plain numbers, with which Python is faster.
    """
    from . import bytes_kernel

    groups = (text, TABLES, learnt, noted, data, decoder, encoder, out)
    if not kernels.usable():
        groups = tuple(map(_view, groups))
    text, tables, learnt, noted, data, decoder, encoder, out = groups
    bytes_kernel.code_bytes(text, start, end, tables, learnt, noted, data, decoder, encoder, out)


def _view(group: Any) -> Any:
    if isinstance(group, tuple):
        return type(group)(*map(_view, group))
    return memoryview(group)
