"""A small transformer in whole numbers: what it says of a code is the same on every machine.

Shapes: N items, S slots of each, C context codes of a slot, e the length of a code's vector, D channels, F hidden
channels, T slots that are looked back at, K codes of the stage.

A product of int8 numbers over at most MAX_FAN_IN terms stays below 2^24, so a float32 matrix product of them is exact
in whatever order it is summed, with every instruction set and number of threads. All other floats here hold whole
numbers below 2^53 as well, and division and square root, which IEEE 754 rounds correctly, are only used where their
floor cannot be wrong. docs/file-format.md has the network in full, in integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_FAN_IN = 1040
"""127 * 127 * 1040 < 2^24"""
VALUE_BITS, WEIGHT_BITS, LAST_BITS = 5, 7, 6
"""bits behind the point: of vectors and of what goes into a product; of weights; of the last layer's weights"""
STREAM_LIMIT = 1 << 20
"""of what the layers add to, in units of 2^-12"""
BIAS_LIMIT = 1 << 21
HEAD = 32
"""channels of an attention head"""
WINDOW = 256
"""slots that attention sees at most, its own included"""
STRIDE = 256
"""slots of an item that are computed at once at most, where all their codes are known"""
MAX_LAYERS = 16
OCTAVE = 32
"""steps of a logit in which the frequency doubles"""
TOTAL = 1 << 16
"""sum of the frequencies of a slot"""


def _root(step: int) -> int:
    """floor(2^(20 - step / 32)): a 32nd root is five square roots, each of which may be rounded down."""
    value = 1 << (20 * OCTAVE - step)
    for _ in range(5):
        value = math.isqrt(value)
    return value


EXP2 = np.array([_root(step % OCTAVE) >> (step // OCTAVE) for step in range(20 * OCTAVE)] + [0], dtype=np.float64)
"""2^20 times 2^(-i / 32), rounded down; 0 behind the last"""


@dataclass(frozen=True)
class Layer:
    """Attention and two linear maps. qkv (D, 3 D), out (D, D), up (D, F), down (F, D): int8."""

    qkv: Array
    out: Array
    up: Array
    down: Array


@dataclass(frozen=True)
class Network:
    """The network of one stage.

    context: (C, 3) how many stages, rows and columns further a context code is, none of which lies behind the slot in
    coding order. first (C * e, D), last (D, K): int8. rows (h, D), columns (w, D), last_bias (K,): int32 below
    BIAS_LIMIT.
    """

    context: Ints
    first: Array
    rows: Array
    columns: Array
    layers: tuple[Layer, ...]
    last: Array
    last_bias: Array

    def memory(self, num_items: int, num_slots: int) -> list[Memory]:
        """What the layers keep of slots that are done: for that many items, of num_slots each."""
        return [Memory(num_items, len(self.rows[0]), num_slots) for _ in self.layers]

    def logits(self, vectors: Array, y: Ints, x: Ints, memory: list[Memory]) -> Floats:
        """Next S slots of N items -> whole numbers (N, S, K), in units of a 32nd of an octave.

        vectors (N, S, C * e) of the context; rows and columns (S,) of the grid of training.
        """
        shape, floats = vectors.shape[:2], self._floats
        sums = vectors.reshape(-1, vectors.shape[2]).astype(np.float32, copy=False) @ floats["first"]
        places = floats["rows"][y] + floats["columns"][x]
        stream = (sums.reshape(*shape, -1) + places).reshape(sums.shape)  # (N * S, D): one product for all rows
        _limit(stream, -STREAM_LIMIT, STREAM_LIMIT)
        for number, past in enumerate(memory):
            qkv = small(normalised(stream) @ floats[f"{number}.qkv"])
            stream += past.attention(qkv.reshape(*shape, -1)).reshape(sums.shape) @ floats[f"{number}.out"]
            _limit(stream, -STREAM_LIMIT, STREAM_LIMIT)
            stream += small(normalised(stream) @ floats[f"{number}.up"], 0) @ floats[f"{number}.down"]
            _limit(stream, -STREAM_LIMIT, STREAM_LIMIT)
        logits = normalised(stream) @ floats["last"] + floats["last_bias"]
        logits *= 1 / (1 << (VALUE_BITS + LAST_BITS - int(math.log2(OCTAVE))))
        return np.floor(logits, out=logits).reshape(*shape, -1)

    @cached_property
    def _floats(self) -> dict[str, Array]:
        """Weights as the products need them, and what is added to sums."""
        found = {"first": self.first, "last": self.last}
        for number, layer in enumerate(self.layers):
            found |= {f"{number}.{name}": value for name, value in vars(layer).items()}
        added = {"rows": self.rows, "columns": self.columns, "last_bias": self.last_bias}
        return {name: value.astype(np.float32) for name, value in found.items()} | {
            name: value.astype(np.float64) for name, value in added.items()
        }


def _limit(values: Array, low: int, high: int) -> Array:
    """Values within bounds, in place; on one row half the time of np.clip."""
    return np.minimum(np.maximum(values, low, out=values), high, out=values)


def small(sums: Array, low: int = -127) -> Array:
    """Sums in units of 2^-12 -> nearest multiples of 2^-5, halves up, within the range of int8; float32."""
    scaled = sums.astype(np.float32, copy=False) * 2.0**-WEIGHT_BITS
    scaled += 0.5
    return _limit(np.floor(scaled, out=scaled), low, 127)


def normalised(stream: Array) -> Array:
    """(..., D) -> the same divided by their root mean square, in units of 2^-5, within the range of int8; float32."""
    size = np.maximum(np.floor(np.sqrt(np.matmul(stream[..., None, :], stream[..., None])[..., 0])), 1)
    scaled = stream * (2 * math.isqrt((1 << 2 * VALUE_BITS) * stream.shape[-1]))
    scaled += size
    scaled /= 2 * size
    return _limit(np.floor(scaled, out=scaled), -127, 127).astype(np.float32)


class Memory:
    """Keys and values of the slots that one layer has seen, as far back as attention reaches."""

    def __init__(self, num_items: int, channels: int, num_slots: int) -> None:
        self.heads = channels // HEAD
        shape = (num_items, self.heads, min(num_slots, 2 * WINDOW + STRIDE), HEAD)
        self.keys, self.values = np.zeros(shape, np.float32), np.zeros(shape)
        self.end = 0  # slots in memory

    def attention(self, qkv: Array) -> Array:
        """Queries, keys and values (N, S, 3 D) of the next S <= STRIDE slots -> (N, S, D) float32 of whole numbers."""
        count = qkv.shape[1]
        query, key, value = qkv.reshape(len(qkv), count, 3, self.heads, HEAD).transpose(2, 0, 3, 1, 4)
        self._make_room(count)
        self.keys[:, :, self.end : self.end + count] = key
        self.values[:, :, self.end : self.end + count] = value
        first, self.end = max(0, self.end - WINDOW + 1), self.end + count
        keys, values = self.keys[:, :, first : self.end], self.values[:, :, first : self.end]
        scores = query @ keys.swapaxes(2, 3)  # (N, heads, S, T), exact
        if count > 1:
            age = np.arange(self.end - count - first, self.end - first)[:, None] - np.arange(self.end - first)
            scores[..., (age < 0) | (age >= WINDOW)] = -(1 << 23)
        # scores have 10 bits behind the point and count for a quarter: 7 bits more than a 32nd of an octave
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
    """(N, K) logits -> (N, K) frequencies of at least 1 that sum to TOTAL; the likeliest gets what rounding left."""
    best = logits.argmax(1)
    rows = np.arange(len(logits))
    weights = EXP2[np.minimum(logits[rows, best][:, None] - logits, len(EXP2) - 1).astype(np.intp)]
    found = 1 + np.floor(weights * (TOTAL - logits.shape[1]) / weights.sum(1, keepdims=True))
    found[rows, best] += TOTAL - found.sum(1)
    return found
