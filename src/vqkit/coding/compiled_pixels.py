"""Pixels of a plane, one after the other, compiled with numba: the same as `PixelNetwork` and `mixing` give, sooner.

Every float is a whole number below 2^24, so that sums are exact in any order. Shapes: C neighbours, H hidden channels,
M logistics that are mixed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled_prior import compiled, multiply
from .mixing import code_slots
from .pixel_network import FLAG, LEVELS, LIMIT, MIXED, POWERS, REACH, SQUASH, STEP, Layers, neighbours


def flattened(layers: Layers) -> tuple[Any, ...]:
    """Neighbours (C, 3), all matrices in the order of use, and what is added to their products."""
    plane = next(plane for plane in range(4) if 2 * len(neighbours(plane)) + 1 == len(layers.first))
    weights = np.concatenate([layers.first.ravel(), layers.second.ravel(), layers.last.ravel()]).astype(np.float32)
    return np.array(neighbours(plane)), weights, layers.rows, layers.columns, layers.second_bias, layers.last_bias


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
def _activate(sums: Any, bias: Any, more: Any, shift: int) -> None:
    for place in range(len(sums)):
        whole = np.int64(sums[place]) + bias[place] + more[place]
        sums[place] = min(max((whole + (1 << shift >> 1)) >> shift, 0), 127)


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
    padded: Any, stage: int, y: int, around: Any, weights: Any, rows: Any, columns: Any, second_bias: Any,
    last_bias: Any, table_bits: int, tables: Any, learnt: Any, symbols: Any, data: Any, decoder: Any,
) -> None:  # fmt: skip
    """Slots of a row of `padded` (planes, h + 2 REACH, w + 2 REACH) in order, see `code_slots`."""
    height, width = padded.shape[1] - 2 * REACH, padded.shape[2] - 2 * REACH
    given, anchors = np.zeros(2 * len(around) + 1, np.float32), np.zeros(MIXED, np.int64)
    first, second = np.zeros(len(second_bias), np.float32), np.zeros(len(second_bias), np.float32)
    last, outputs = np.zeros(3 * MIXED, np.float32), np.zeros(3 * MIXED, np.int64)
    below, nothing, share = np.zeros(LEVELS + 1, np.int64), np.zeros_like(second_bias), len(symbols) // width
    for x in range(width):
        _inputs(padded, stage, y + REACH, x + REACH, around, given, anchors)
        at = multiply(given, weights, 0, first)
        _activate(first, rows[y * len(rows) // height], columns[x * len(columns) // width], 9)
        at = multiply(first, weights, at, second)
        _activate(second, second_bias, nothing, 7)
        multiply(second, weights, at, last)
        for number in range(3 * MIXED):
            outputs[number] = np.int64(last[number]) + last_bias[number]
        _cumulative(outputs, anchors, below)
        place = (stage, y + REACH, x + REACH, x + REACH + 1)
        own = symbols[x * share : (x + 1) * share]
        code_slots(padded, place, LEVELS, below, table_bits, tables, learnt, own, data, decoder)
