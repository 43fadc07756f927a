"""An integer-only transformer: the frequencies that it gives a code are the same on every machine.

Shapes: N items, S slots of each, C context codes of a slot, E the length of a code's vector, D
channels, F hidden channels, T slots that are looked back at, K codes of the stage.

A product of int8 numbers over at most MAX_FAN_IN terms stays below 2^24, so a float32 matrix
product of them is exact in whatever order it is summed, with every instruction set and number of
threads. All other floats here hold integers below 2^53 as well, and division and square root, which
IEEE 754 rounds correctly, are only used where their floor cannot be wrong. docs/file-format.md has
the network in full, in integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rangecoder import TOTAL

Array = NDArray[Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# 127 * 127 * 1040 < 2^24.
MAX_FAN_IN = 1040
# Bits behind the point: of vectors and of what goes into a product; of weights; of the last
# weights.
VALUE_BITS = 5
WEIGHT_BITS = 7
LAST_BITS = 6
# Of what the layers add to, in units of 2^-12.
STREAM_LIMIT = 1 << 20
BIAS_LIMIT = 1 << 21
# Channels of an attention head.
HEAD = 32
# Slots that attention sees at most, its own included.
WINDOW = 256
# Slots of an item that are computed at once at most, where all their codes are known.
STRIDE = 256
MAX_LAYERS = 16
# Steps of a logit in which the frequency doubles.
OCTAVE = 32


def _root(step: int) -> int:
    """floor(2^(20 - step / 32)): a 32nd root is five square roots, each of which may be rounded
    down.
    """
    value = 1 << (20 * OCTAVE - step)
    for _ in range(5):
        value = math.isqrt(value)
    return value


# 2^20 times 2^(-i / 32), rounded down; 0 behind the last.
EXP2 = np.array(
    [_root(step % OCTAVE) >> (step // OCTAVE) for step in range(20 * OCTAVE)] + [0],
    dtype=np.float64,
)


@dataclass(frozen=True)
class TransformerLayer:
    """Attention and two linear maps. qkv (D, 3 D), out (D, D), up (D, F), down (F, D): int8."""

    qkv: Array
    out: Array
    up: Array
    down: Array


@dataclass(frozen=True)
class StageTransformer:
    """The transformer of one stage.

    context: (C, 3) how many stages, rows and columns further a context code is, none of which lies
    behind the slot in coding order. first (C * E, D), last (D, K): int8. rows (GH, D), columns (GW,
    D) for the rows and columns of the grid of training, last_bias (K,): int32 within BIAS_LIMIT.
    """

    context: Ints
    first: Array
    rows: Array
    columns: Array
    layers: tuple[TransformerLayer, ...]
    last: Array
    last_bias: Array

    def caches(self, num_items: int, num_slots: int) -> list[KeyValueCache]:
        """An empty cache for each layer, for that many items of num_slots each."""
        channels = self.rows.shape[1]
        return [KeyValueCache(num_items, channels, num_slots) for _ in self.layers]

    def logits(self, vectors: Array, y: Ints, x: Ints, caches: list[KeyValueCache]) -> Floats:
        """The next S slots of N items -> integers (N, S, K), in units of a 32nd of an octave.

        vectors (N, S, C * E) of the context; y, x (S,): rows and columns of the grid of training.
        """
        shape = vectors.shape[:2]
        floats = self._floats
        flat = vectors.reshape(-1, vectors.shape[2]).astype(np.float32, copy=False)
        sums = flat @ floats["first"]
        positions = floats["rows"][y] + floats["columns"][x]
        # (N * S, D), so that there is one product for all rows.
        stream = (sums.reshape(*shape, -1) + positions).reshape(sums.shape)
        _limit(stream, -STREAM_LIMIT, STREAM_LIMIT)
        for number, cache in enumerate(caches):
            qkv = to_int8(normalised(stream) @ floats[f"{number}.qkv"])
            mixed = cache.attention(qkv.reshape(*shape, -1)).reshape(sums.shape)
            stream += mixed @ floats[f"{number}.out"]
            _limit(stream, -STREAM_LIMIT, STREAM_LIMIT)
            hidden = to_int8(normalised(stream) @ floats[f"{number}.up"], 0)
            stream += hidden @ floats[f"{number}.down"]
            _limit(stream, -STREAM_LIMIT, STREAM_LIMIT)
        logits = normalised(stream) @ floats["last"] + floats["last_bias"]
        logits *= 1 / (1 << (VALUE_BITS + LAST_BITS - int(math.log2(OCTAVE))))
        return np.floor(logits, out=logits).reshape(*shape, -1)

    @cached_property
    def _floats(self) -> dict[str, Array]:
        """Weights as float32 products need them, and as float64 what is added to sums."""
        weights = {"first": self.first, "last": self.last}
        for number, layer in enumerate(self.layers):
            weights |= {f"{number}.{name}": value for name, value in vars(layer).items()}
        found = {name: value.astype(np.float32) for name, value in weights.items()}
        for name in ("rows", "columns", "last_bias"):
            found[name] = getattr(self, name).astype(np.float64)
        return found


def _limit(values: Array, low: int, high: int) -> Array:
    """Values within bounds, in place; on one row half the time of np.clip."""
    return np.minimum(np.maximum(values, low, out=values), high, out=values)


def to_int8(sums: Array, low: int = -127) -> Array:
    """Sums in units of 2^-12 -> float32, the nearest multiples of 2^-5, halves up.

    They are whole numbers of these, from low to 127.
    """
    scaled = sums.astype(np.float32, copy=False) * 2.0**-WEIGHT_BITS
    scaled += 0.5
    return _limit(np.floor(scaled, out=scaled), low, 127)


def normalised(stream: Array) -> Array:
    """(..., D) divided by its root mean square, in units of 2^-5, within -127 .. 127; float32."""
    squares = np.matmul(stream[..., None, :], stream[..., None])[..., 0]
    root = np.maximum(np.floor(np.sqrt(squares)), 1)
    scaled = stream * (2 * math.isqrt((1 << 2 * VALUE_BITS) * stream.shape[-1]))
    scaled += root
    scaled /= 2 * root
    return _limit(np.floor(scaled, out=scaled), -127, 127).astype(np.float32)


class KeyValueCache:
    """Keys and values of the slots that one layer has seen, as far back as attention reaches."""

    def __init__(self, num_items: int, channels: int, num_slots: int) -> None:
        self.heads = channels // HEAD
        shape = (num_items, self.heads, min(num_slots, 2 * WINDOW + STRIDE), HEAD)
        self.keys = np.zeros(shape, np.float32)
        self.values = np.zeros(shape)
        # Slots that are in the cache.
        self.end = 0

    def attention(self, qkv: Array) -> Array:
        """Queries, keys and values (N, S, 3 D) of the next S <= STRIDE slots -> (N, S, D)
        float32.
        """
        count = qkv.shape[1]
        heads = qkv.reshape(len(qkv), count, 3, self.heads, HEAD)
        query, key, value = heads.transpose(2, 0, 3, 1, 4)
        self._make_room(count)
        self.keys[:, :, self.end : self.end + count] = key
        self.values[:, :, self.end : self.end + count] = value
        first = max(0, self.end - WINDOW + 1)
        self.end += count
        keys = self.keys[:, :, first : self.end]
        values = self.values[:, :, first : self.end]
        scores = query @ keys.swapaxes(2, 3)  # (N, heads, S, T), exact
        if count > 1:
            now = np.arange(self.end - count - first, self.end - first)
            age = now[:, None] - np.arange(self.end - first)
            scores[..., (age < 0) | (age >= WINDOW)] = -(1 << 23)
        # Scores have 10 bits behind the point and count for a quarter: 7 bits more than a 32nd of
        # an octave.
        below = np.floor((scores.max(-1, keepdims=True) - scores) / 128)
        weights = EXP2[np.minimum(below, len(EXP2) - 1).astype(np.intp)]
        total = weights.sum(-1, keepdims=True)
        mean = np.floor((2 * (weights @ values) + total) / (2 * total))
        return mean.transpose(0, 2, 1, 3).reshape(len(qkv), count, -1).astype(np.float32)

    def _make_room(self, count: int) -> None:
        if self.end + count > self.keys.shape[2]:
            for kept in (self.keys, self.values):
                kept[:, :, : WINDOW - 1] = kept[:, :, self.end - WINDOW + 1 : self.end].copy()
            self.end = WINDOW - 1


def frequencies(logits: Floats) -> Floats:
    """(N, K) logits -> (N, K) frequencies of at least 1 that sum to TOTAL.

    The likeliest code gets what rounding left.
    """
    best = logits.argmax(1)
    rows = np.arange(len(logits))
    below = logits[rows, best][:, None] - logits
    weights = EXP2[np.minimum(below, len(EXP2) - 1).astype(np.intp)]
    shared = TOTAL - logits.shape[1]
    found = 1 + np.floor(weights * shared / weights.sum(1, keepdims=True))
    found[rows, best] += TOTAL - found.sum(1)
    return found
