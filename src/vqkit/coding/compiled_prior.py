"""One string under an integer network, code by code, compiled with numba: the same codes as `IntegerPrior`, sooner.

The same network as integer_network.py, for a single row, on which calls of NumPy take most of the time. Every float
holds a whole number, and the bounds there make each sum and rounded quotient exact, in whatever order.
Shapes: n codes of a stage, C context codes of a slot, e the length of a code's vector, D channels, F hidden channels, L
layers, K codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import config, njit

from .integer_network import EXP2, HEAD, LAST_BITS, OCTAVE, STREAM_LIMIT, VALUE_BITS, WINDOW, Network
from .rangecoder import BEHIND, TOTAL

if getattr(config, "DISABLE_JIT", False):  # the text below is for numba's numbers: NumPy's own would overflow
    raise ImportError("numba was told to compile nothing")
_SHIFT = 1.0 / (1 << (VALUE_BITS + LAST_BITS - int(np.log2(OCTAVE))))
_LAST = len(EXP2) - 1
compiled = njit(cache=True, error_model="numpy", nogil=True)


def flattened(network: Network) -> tuple[Any, Any]:
    """Weights of all matrices in the order of use, int8, and F of each layer, (L,)."""
    matrices = [network.first]
    for layer in network.layers:
        matrices += [layer.qkv, layer.out, layer.up, layer.down]
    flat = np.concatenate([matrix.ravel() for matrix in [*matrices, network.last]])
    return flat, np.array([layer.up.shape[1] for layer in network.layers], np.int64)


@compiled
def multiply(vector: Any, weights: Any, at: int, sums: Any) -> int:
    """sums (O,) = vector (I,) times the matrix at a place of the weights; the place behind it.

    Four rows at a time, so that sums are read and written a quarter as often, and none for zeros.
    """
    width, count, used = len(sums), 0, np.empty(len(vector), np.int64)
    for number in range(len(vector)):
        if vector[number] != 0:
            used[count] = number
            count += 1
    sums[:] = 0
    for first in range(0, count - 3, 4):
        i, j, k, m = used[first], used[first + 1], used[first + 2], used[first + 3]
        one, two = weights[at + i * width : at + (i + 1) * width], weights[at + j * width : at + (j + 1) * width]
        three, four = weights[at + k * width : at + (k + 1) * width], weights[at + m * width : at + (m + 1) * width]
        a, b, c, d = vector[i], vector[j], vector[k], vector[m]
        for place in range(width):
            sums[place] += (a * one[place] + b * two[place]) + (c * three[place] + d * four[place])
    for rest in range(count - count % 4, count):
        row = weights[at + used[rest] * width : at + (used[rest] + 1) * width]
        for place in range(width):
            sums[place] += vector[used[rest]] * row[place]
    return at + len(vector) * width


@compiled
def _add(stream: Any, sums: Any) -> None:
    for place in range(len(stream)):
        stream[place] = min(max(stream[place] + sums[place], -STREAM_LIMIT), STREAM_LIMIT)


@compiled
def _small(sums: Any, low: int) -> None:
    for place in range(len(sums)):
        sums[place] = min(max(np.floor((sums[place] + np.float32(64)) * np.float32(1 / 128)), low), 127)


@compiled
def _normalised(stream: Any, scale: int, found: Any) -> None:
    """See `integer_network.normalised`; scale, the root of 1024 D rounded down."""
    total = np.int64(0)
    for place in range(len(stream)):
        total += np.int64(stream[place]) * np.int64(stream[place])
    size = max(np.floor(np.sqrt(np.float64(total))), 1.0)
    for place in range(len(stream)):
        found[place] = min(max(np.floor((2 * scale * stream[place] + size) / (2 * size)), -127), 127)


@compiled
def _attention(qkv: Any, slot: int, keys: Any, values: Any, weights: Any, means: Any) -> None:
    """Queries, keys and values (3 D,) of a slot -> means (D,); keys, values (WINDOW, D) go round."""
    channels, seen = len(means), min(slot + 1, WINDOW)
    for place in range(channels):
        keys[slot % WINDOW, place] = np.int32(qkv[channels + place])
        values[slot % WINDOW, place] = np.int64(qkv[2 * channels + place])
    query, sums = np.zeros(HEAD, np.int32), np.zeros(HEAD, np.int64)
    for head in range(0, channels, HEAD):
        total = np.int64(0)
        for place in range(HEAD):
            query[place], sums[place] = np.int32(qkv[head + place]), 0
        for past in range(seen):
            key, score = keys[past, head : head + HEAD], np.int32(0)
            for place in range(HEAD):
                score += query[place] * key[place]
            weights[past] = score
        best = weights[:seen].max()
        for past in range(seen):
            weight, value = np.int64(EXP2[min((best - weights[past]) >> 7, _LAST)]), values[past, head : head + HEAD]
            total += weight
            if weight:
                for place in range(HEAD):
                    sums[place] += weight * value[place]
        for place in range(HEAD):
            means[head + place] = (2 * sums[place] + total) // (2 * total)


@compiled
def _frequencies(logits: Any, found: Any) -> None:
    """See `integer_network.frequencies`, of one row."""
    best, total, rest = 0, 0.0, np.int64(TOTAL)
    for code in range(1, len(logits)):
        best = code if logits[code] > logits[best] else best
    highest = logits[best]
    for code in range(len(logits)):
        logits[code] = EXP2[int(min(highest - logits[code], _LAST))]
        total += logits[code]
    for code in range(len(logits)):
        found[code] = 1 + int(logits[code] * (TOTAL - len(logits)) / total)
        rest -= found[code]
    found[best] += rest


@compiled
def _decoded(frequencies: Any, data: Any, decoder: Any) -> int:
    """The next code: `Decoder` of the range coder; decoder (3,): range, value, position in `data`."""
    span, value, position = decoder[0], decoder[1], decoder[2]
    target, code, start = (((value + 1) << 16) - 1) // span, 0, 0
    while start + frequencies[code] <= target:
        start += frequencies[code]
        code += 1
    first = span * start >> 16
    span = (span * (start + frequencies[code]) >> 16) - first
    value -= first
    while span < 1 << 24:
        span, value = span << 8, value << 8 | (data[position] if position < len(data) else 0)
        position += 1
    decoder[0], decoder[1], decoder[2] = span, value, position
    return code


@compiled
def _block(stream: Any, weights: Any, at: int, slot: int, keys: Any, values: Any, scores: Any, spaces: Any) -> int:
    """One layer, added to stream (D,): see `integer_network.Network`; the place behind its weights.

    spaces: what sums are written to, of D, 3 D and F channels, and what goes into a product, of D.
    """
    sums, qkv, middle, narrow = spaces
    scale = int(np.sqrt(np.float64(1024 * len(stream))))
    _normalised(stream, scale, narrow)
    at = multiply(narrow, weights, at, qkv)
    _small(qkv, -127)
    _attention(qkv, slot, keys, values, scores, narrow)
    at = multiply(narrow, weights, at, sums)
    _add(stream, sums)
    _normalised(stream, scale, narrow)
    at = multiply(narrow, weights, at, middle)
    _small(middle, 0)
    at = multiply(middle, weights, at, sums)
    _add(stream, sums)
    return at


def workspace(network: Network, distances: Any, length: int, count: int) -> tuple[Any, ...]:
    """What a walk over `count` slots writes to: sums of every size, keys and values of each layer."""
    channels, hidden = network.first.shape[1], [layer.up.shape[1] for layer in network.layers]
    span, size = min(count, WINDOW), len(network.last_bias)
    small = [len(distances) * length, channels, channels, 3 * channels, max(hidden, default=0), size]
    past = (len(hidden), span, channels)
    return (
        np.zeros(channels), *(np.zeros(one, np.float32) for one in small), np.zeros(size), np.zeros(size, np.int64),
        np.zeros(span, np.int32), np.zeros(past, np.int32), np.zeros(past, np.int64),
    )  # fmt: skip


@compiled
def _look(slot: int, where: Any, network: Any, spaces: Any) -> Any:
    """Frequencies (K,) of slot number `slot`: see `integer_network.Network.logits`."""
    rows, slots, distances, vectors, y, x = where
    weights, hidden, bias, row_sums, column_sums = network
    stream, context, sums, narrow, qkv, middle, logits, wide, found, scores, keys, values = spaces
    channels, length = row_sums.shape[1], vectors.shape[1]
    for number in range(len(distances)):
        context[number * length : (number + 1) * length] = vectors[rows[slots[slot] + distances[number]]]
    at = multiply(context, weights, 0, sums)
    stream[:] = row_sums[y[slot]]
    stream += column_sums[x[slot]]
    _add(stream, sums)
    for layer in range(len(hidden)):
        parts = (sums, qkv, middle[: hidden[layer]], narrow)
        at = _block(stream, weights, at, slot, keys[layer], values[layer], scores, parts)
    _normalised(stream, int(np.sqrt(np.float64(1024 * channels))), narrow)
    multiply(narrow, weights, at, logits)
    for code in range(len(bias)):
        wide[code] = np.floor((np.float64(logits[code]) + bias[code]) * _SHIFT)
    _frequencies(wide, found)
    return found


@compiled
def decode_slots(where: Any, network: Any, spaces: Any, first_row: int, data: Any, decoder: Any) -> None:
    """Set rows of `vectors` (., e) at n slots of `rows`, in order, to first_row + code; stop where `data` is too short.

    where: rows; slots (n,) in them; distances (C,) of context codes from a slot; vectors; y, x (n,), the indices of
    row_sums and column_sums. network: weights and hidden, see `flattened`; bias (K,); row_sums (GH, D) and column_sums
    (GW, D), what positions add. spaces: a `workspace`. decoder (3,): see `_decoded`.
    """
    rows, slots = where[0], where[1]
    for slot in range(len(slots)):
        rows[slots[slot]] = first_row + _decoded(_look(slot, where, network, spaces), data, decoder)
        if decoder[2] > len(data) + BEHIND:
            return


@compiled
def weigh_slots(where: Any, network: Any, spaces: Any, first_row: int, starts: Any, sizes: Any) -> None:
    """Intervals of the codes that are in all rows: frequencies (n,), and the sums (n,) of those before them."""
    rows, slots = where[0], where[1]
    for slot in range(len(slots)):
        found, code = _look(slot, where, network, spaces), rows[slots[slot]] - first_row
        starts[slot], sizes[slot] = found[:code].sum(), found[code]


@compiled
def choose_slots(
    where: Any, network: Any, spaces: Any, first_row: int, begin: int, costs: Any, weight: float
) -> None:  # fmt: skip
    """Set rows of the slots from number `begin` on to the code with the least costs (m, K) + weight * bits each."""
    rows, slots = where[0], where[1]
    for number in range(len(costs)):
        found, best, least = _look(begin + number, where, network, spaces), 0, np.inf
        for code in range(len(found)):
            cost = costs[number, code] - weight * np.log2(np.float64(found[code]))
            if cost < least:
                best, least = code, cost
        rows[slots[begin + number]] = first_row + best
