"""Pixels of a plane, one after the other, compiled with numba: the same as `PixelNetwork` and `mixing` give, sooner.

Every float is a whole number below 2^53, so that sums are exact in any order. Shapes: C neighbours, H hidden channels,
M logistics that are mixed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled_prior import compiled, multiply
from .mixing import code_slots
from .pixel_network import (
    FLAG,
    HIDDEN_BITS,
    INPUT_BITS,
    LEVELS,
    LIMIT,
    MIXED,
    MOST,
    OUTPUT_BITS,
    POWERS,
    REACH,
    SQUASH,
    STEP,
    WEIGHT_BITS,
    Layers,
    neighbours,
)

_LAST_SHIFT = HIDDEN_BITS + WEIGHT_BITS - OUTPUT_BITS


def flattened(layers: Layers) -> tuple[Any, ...]:
    """Neighbours (C, 3), all matrices in the order of use, and what is added to their products."""
    plane = next(plane for plane in range(4) if 2 * len(neighbours(plane)) + 1 == len(layers.first))
    matrices = (layers.first, layers.second, layers.third, layers.last)
    weights = np.concatenate([matrix.ravel() for matrix in matrices]).astype(np.float64)
    biases = layers.second_bias, layers.third_bias, layers.last_bias
    return np.array(neighbours(plane)), weights, layers.rows, layers.columns, biases


@compiled
def _inputs(padded: Any, stage: int, y: int, x: int, around: Any, found: Any, anchors: Any) -> None:
    """See `pixel_network.inputs`, of one slot: found (2 C + 1,), anchors (M,)."""
    west, north, corner = padded[stage, y, x - 1], padded[stage, y - 1, x], padded[stage, y - 1, x - 1]
    level, count = (west + north) >> 1, len(around)
    for number in range(count):
        value = padded[stage + around[number, 0], y + around[number, 1], x + around[number, 2]]
        found[number], found[count + number] = value - level, FLAG if value == 0 else 0
    found[2 * count] = level
    anchors[0], anchors[3] = level, west + north - corner
    if stage:
        below = padded[stage - 1, y, x]
        west += below - padded[stage - 1, y, x - 1]
        north += below - padded[stage - 1, y - 1, x]
    anchors[1], anchors[2] = west, north


@compiled
def _activate(sums: Any, bias: Any, given: int) -> None:
    """Products of numbers with `given` bits behind the point become hidden channels."""
    half, scale = 0.5, 1.0 / (1 << (given + WEIGHT_BITS - HIDDEN_BITS))
    for place in range(len(sums)):
        sums[place] = min(max(np.floor((sums[place] + bias[place]) * scale + half), 0.0), MOST)


@compiled
def _cumulative(outputs: Any, anchors: Any, found: Any) -> None:
    """See `pixel_network.cumulative`, of one slot: found (LEVELS + 1,)."""
    total, best = np.int64(0), outputs[:MIXED].max()
    found[:] = 0
    for number in range(MIXED):
        total += POWERS[min((best - outputs[number]) >> 1, LIMIT)]
    for number in range(MIXED):
        weight = (POWERS[min((best - outputs[number]) >> 1, LIMIT)] << 16) // total
        scale = POWERS[min(max(outputs[2 * MIXED + number] >> 1, -8 * STEP), 4 * STEP) + 8 * STEP]
        middle = 8 * anchors[number] + outputs[MIXED + number]
        for level in range(1, LEVELS):
            logit = ((8 * level - 4 - middle) * scale) >> 21
            found[level] += weight * SQUASH[min(max(logit, -LIMIT), LIMIT - 1) + LIMIT]
    for level in range(1, LEVELS):
        found[level] = ((found[level] >> 8) * 255 >> 8) + (level << 8)
    found[LEVELS] = ((1 << 24) * 255 >> 8) + (LEVELS << 8)


@compiled
def code_row(
    padded: Any, stage: int, y: int, around: Any, weights: Any, rows: Any, columns: Any, biases: Any, table_bits: int,
    tables: Any, learnt: Any, symbols: Any, data: Any, decoder: Any,
) -> None:  # fmt: skip
    """Slots of a row of `padded` (planes, h + 2 REACH, w + 2 REACH) in order, see `code_slots`."""
    height, width = padded.shape[1] - 2 * REACH, padded.shape[2] - 2 * REACH
    given, anchors = np.zeros(2 * len(around) + 1), np.zeros(MIXED, np.int64)
    hidden, other = np.zeros(len(biases[0])), np.zeros(len(biases[0]))
    last, outputs = np.zeros(3 * MIXED), np.zeros(3 * MIXED, np.int64)
    below, share, row = np.zeros(LEVELS + 1, np.int64), len(symbols) // width, rows[y * len(rows) // height]
    for x in range(width):
        _inputs(padded, stage, y + REACH, x + REACH, around, given, anchors)
        at = multiply(given, weights, 0, hidden)
        _activate(hidden, row + columns[x * len(columns) // width], INPUT_BITS)
        at = multiply(hidden, weights, at, other)
        _activate(other, biases[0], HIDDEN_BITS)
        at = multiply(other, weights, at, hidden)
        _activate(hidden, biases[1], HIDDEN_BITS)
        multiply(hidden, weights, at, last)
        for number in range(3 * MIXED):
            outputs[number] = (np.int64(last[number]) + biases[2][number] + (1 << _LAST_SHIFT >> 1)) >> _LAST_SHIFT
        _cumulative(outputs, anchors, below)
        place = (stage, y + REACH, x + REACH, x + REACH + 1)
        own = symbols[x * share : (x + 1) * share]
        code_slots(padded, place, LEVELS, below, table_bits, tables, learnt, own, data, decoder)


@compiled
def encode_symbols(symbols: Any, encoder: Any, out: Any) -> None:
    """Append symbols (2 n,), start and frequency of each, to a string: see `rangecoder.Encoder`.

    encoder (3,): low, range, and how many bytes are in out, which has room for two more for each symbol.
    """
    low, span, count = encoder[0], encoder[1], encoder[2]
    for place in range(0, len(symbols), 2):
        first = span * symbols[place] >> 16
        span = (span * (symbols[place] + symbols[place + 1]) >> 16) - first
        low += first
        while span < 1 << 24:
            if low >> 32:  # a carry
                last = count - 1
                while out[last] == 255:
                    out[last] = 0
                    last -= 1
                out[last] += 1
            out[count] = low >> 24 & 255
            low, span, count = low << 8 & ((1 << 32) - 1), span << 8, count + 1
    encoder[0], encoder[1], encoder[2] = low, span, count
