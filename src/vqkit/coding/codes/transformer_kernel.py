"""One stage of one item under its transformer, slot by slot, compiled: the codes of
`TransformerCoder`.

The same network as transformer.py, for a single row, on which calls of NumPy take most of the time.
Every float holds an integer, and the bounds there make each sum and rounded quotient exact, in
whatever order. Shapes: n slots, C context codes of a slot, E the length of a code's vector, D
channels, F hidden channels, L layers, K codes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..kernels import compiled
from ..product_kernel import multiply
from ..rangecoder import BEHIND, TOTAL
from ..rangecoder_kernel import decode_symbol
from .transformer import (
    EXP2,
    HEAD,
    LAST_BITS,
    OCTAVE,
    STREAM_LIMIT,
    VALUE_BITS,
    WINDOW,
    StageTransformer,
)

_SHIFT = 1.0 / (1 << (VALUE_BITS + LAST_BITS - int(np.log2(OCTAVE))))
_LAST = len(EXP2) - 1


class Slots(NamedTuple):
    """The slots of a stage in order, and the codes around them.

    rows: of vectors (., E), the codes of the item with their borders, flat; a slot's code is its
    row less first_row. places (n,): the slots among the rows. distances (C,): of context codes from
    a slot. y, x (n,): rows and columns of the grid of training. begin: slots of the stage before
    them.
    """

    rows: Any
    places: Any
    distances: Any
    vectors: Any
    y: Any
    x: Any
    first_row: int
    begin: int


class Weights(NamedTuple):
    """A transformer: all matrices in the order of use, int8, flat; F of each layer, (L,); what is
    added.
    """

    matrices: Any
    hidden: Any
    last_bias: Any
    row_sums: Any
    column_sums: Any


class Workspace(NamedTuple):
    """What a walk writes to: vectors of every size, and keys and values (L, WINDOW, D) of the
    slots.
    """

    stream: Any
    context: Any
    sums: Any
    narrow: Any
    qkv: Any
    middle: Any
    logits: Any
    wide: Any
    frequencies: Any
    scores: Any
    keys: Any
    values: Any


def flattened(stage: StageTransformer) -> Weights:
    """The weights of a transformer as the kernels take them."""
    matrices = [stage.first]
    for layer in stage.layers:
        matrices += [layer.qkv, layer.out, layer.up, layer.down]
    matrices.append(stage.last)
    flat = np.concatenate([matrix.ravel() for matrix in matrices])
    hidden = np.array([layer.up.shape[1] for layer in stage.layers], np.int64)
    return Weights(flat, hidden, stage.last_bias, stage.rows, stage.columns)


def workspace(stage: StageTransformer, length: int, num_slots: int) -> Workspace:
    """For a walk over so many slots, with vectors of that length."""
    channels = stage.first.shape[1]
    num_codes = len(stage.last_bias)
    hidden = max((layer.up.shape[1] for layer in stage.layers), default=0)
    span = min(num_slots, WINDOW)
    past = (len(stage.layers), span, channels)
    return Workspace(
        stream=np.zeros(channels),
        context=np.zeros(len(stage.context) * length, np.float32),
        sums=np.zeros(channels, np.float32),
        narrow=np.zeros(channels, np.float32),
        qkv=np.zeros(3 * channels, np.float32),
        middle=np.zeros(hidden, np.float32),
        logits=np.zeros(num_codes, np.float32),
        wide=np.zeros(num_codes),
        frequencies=np.zeros(num_codes, np.int64),
        scores=np.zeros(span, np.int32),
        keys=np.zeros(past, np.int32),
        values=np.zeros(past, np.int64),
    )


@compiled
def _add(stream: Any, sums: Any) -> None:
    for place in range(len(stream)):
        stream[place] = min(max(stream[place] + sums[place], -STREAM_LIMIT), STREAM_LIMIT)


@compiled
def _to_int8(sums: Any, low: int) -> None:
    """See `transformer.to_int8`, in place."""
    for place in range(len(sums)):
        rounded = np.floor((sums[place] + np.float32(64)) * np.float32(1 / 128))
        sums[place] = min(max(rounded, low), 127)


@compiled
def _normalise(stream: Any, found: Any) -> None:
    """See `transformer.normalised`."""
    scale = int(np.sqrt(np.float64(1024 * len(stream))))
    total = np.int64(0)
    for place in range(len(stream)):
        total += np.int64(stream[place]) * np.int64(stream[place])
    root = max(np.floor(np.sqrt(np.float64(total))), 1.0)
    for place in range(len(stream)):
        quotient = np.floor((2 * scale * stream[place] + root) / (2 * root))
        found[place] = min(max(quotient, -127), 127)


@compiled
def _attend(qkv: Any, slot: int, keys: Any, values: Any, weights: Any, means: Any) -> None:
    """Queries, keys and values (3 D,) of a slot -> means (D,).

    keys, values (WINDOW, D) go round.
    """
    channels = len(means)
    seen = min(slot + 1, WINDOW)
    for place in range(channels):
        keys[slot % WINDOW, place] = np.int32(qkv[channels + place])
        values[slot % WINDOW, place] = np.int64(qkv[2 * channels + place])
    query = np.zeros(HEAD, np.int32)
    sums = np.zeros(HEAD, np.int64)
    for head in range(0, channels, HEAD):
        for place in range(HEAD):
            query[place] = np.int32(qkv[head + place])
            sums[place] = 0
        for past in range(seen):
            key = keys[past, head : head + HEAD]
            score = np.int32(0)
            for place in range(HEAD):
                score += query[place] * key[place]
            weights[past] = score
        best = weights[:seen].max()
        total = np.int64(0)
        for past in range(seen):
            weight = np.int64(EXP2[min((best - weights[past]) >> 7, _LAST)])
            value = values[past, head : head + HEAD]
            total += weight
            if weight:
                for place in range(HEAD):
                    sums[place] += weight * value[place]
        for place in range(HEAD):
            means[head + place] = (2 * sums[place] + total) // (2 * total)


@compiled
def _set_frequencies(logits: Any, found: Any) -> None:
    """See `transformer.frequencies`, of one row; logits (K,) are lost."""
    best = 0
    for code in range(1, len(logits)):
        best = code if logits[code] > logits[best] else best
    highest = logits[best]
    total = 0.0
    for code in range(len(logits)):
        logits[code] = EXP2[int(min(highest - logits[code], _LAST))]
        total += logits[code]
    rest = np.int64(TOTAL)
    for code in range(len(logits)):
        found[code] = 1 + int(logits[code] * (TOTAL - len(logits)) / total)
        rest -= found[code]
    found[best] += rest


@compiled
def _apply_layer(layer: int, slot: int, weights: Weights, at: int, space: Workspace) -> int:
    """Add a layer, whose weights begin at a place, to the stream; the place behind its weights."""
    middle = space.middle[: weights.hidden[layer]]
    keys = space.keys[layer]
    values = space.values[layer]
    _normalise(space.stream, space.narrow)
    at = multiply(space.narrow, weights.matrices, at, space.qkv)
    _to_int8(space.qkv, -127)
    _attend(space.qkv, slot, keys, values, space.scores, space.narrow)
    at = multiply(space.narrow, weights.matrices, at, space.sums)
    _add(space.stream, space.sums)
    _normalise(space.stream, space.narrow)
    at = multiply(space.narrow, weights.matrices, at, middle)
    _to_int8(middle, 0)
    at = multiply(middle, weights.matrices, at, space.sums)
    _add(space.stream, space.sums)
    return at


@compiled
def _frequencies(slot: int, slots: Slots, weights: Weights, space: Workspace) -> Any:
    """Frequencies (K,) of a slot: see `transformer.StageTransformer.logits`."""
    length = slots.vectors.shape[1]
    for number in range(len(slots.distances)):
        row = slots.rows[slots.places[slot] + slots.distances[number]]
        space.context[number * length : (number + 1) * length] = slots.vectors[row]
    at = multiply(space.context, weights.matrices, 0, space.sums)
    space.stream[:] = weights.row_sums[slots.y[slot]]
    space.stream[:] += weights.column_sums[slots.x[slot]]
    _add(space.stream, space.sums)
    for layer in range(len(weights.hidden)):
        at = _apply_layer(layer, slots.begin + slot, weights, at, space)
    _normalise(space.stream, space.narrow)
    multiply(space.narrow, weights.matrices, at, space.logits)
    for code in range(len(weights.last_bias)):
        logit = np.float64(space.logits[code]) + weights.last_bias[code]
        space.wide[code] = np.floor(logit * _SHIFT)
    _set_frequencies(space.wide, space.frequencies)
    return space.frequencies


@compiled
def decode_slots(slots: Slots, weights: Weights, space: Workspace, data: Any, decoder: Any) -> None:
    """Set the rows of all slots; the decoder stops where the data are too short."""
    for slot in range(len(slots.places)):
        found = _frequencies(slot, slots, weights, space)
        slots.rows[slots.places[slot]] = slots.first_row + decode_symbol(found, data, decoder)
        if decoder[2] > len(data) + BEHIND:
            return


@compiled
def weigh_slots(slots: Slots, weights: Weights, space: Workspace, symbols: Any) -> None:
    """Intervals of the codes that are in the rows, (2 n,): of each the sum of the frequencies
    before it, and its own.
    """
    for slot in range(len(slots.places)):
        found = _frequencies(slot, slots, weights, space)
        code = slots.rows[slots.places[slot]] - slots.first_row
        symbols[2 * slot] = found[:code].sum()
        symbols[2 * slot + 1] = found[code]


@compiled
def choose_slots(
    slots: Slots, weights: Weights, space: Workspace, begin: int, costs: Any, weight: float
) -> None:
    """Set rows of the slots from number `begin` to the code with the least costs (S, K) + weight *
    bits.
    """
    for number in range(len(costs)):
        found = _frequencies(begin + number, slots, weights, space)
        best = 0
        least = np.inf
        for code in range(len(found)):
            cost = costs[number, code] - weight * np.log2(np.float64(found[code]))
            if cost < least:
                best = code
                least = cost
        slots.rows[slots.places[begin + number]] = slots.first_row + best
