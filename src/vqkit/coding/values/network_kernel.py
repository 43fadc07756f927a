"""Values of a channel in order, compiled: what `ValueNetwork` and context mixing give, sooner.

Every float is an integer below 2^53, so that sums are exact in any order. Shapes: C neighbours, H
hidden channels, M logistics that are mixed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..codes.mixing_kernel import code_rows as mix_rows
from ..codes.mixing_state import BORDER, Learnt, Rows, Stream, Tables, neighbours
from ..kernels import compiled
from ..logistic import LIMIT, POWERS, SQUASH, STEP
from ..product_kernel import multiply
from ..rangecoder import BEHIND
from .network import (
    CODE_BITS,
    FLAG,
    HIDDEN_BITS,
    INPUT_BITS,
    LEVELS,
    MIXED,
    MOST,
    OUTPUT_BITS,
    WEIGHT_BITS,
    ChannelNetwork,
)

_LAST_SHIFT = HIDDEN_BITS + WEIGHT_BITS - OUTPUT_BITS


class Weights(NamedTuple):
    """A network: its neighbours (C, 3), all matrices in the order of use, flat, and what is
    added.
    """

    neighbours: Any
    matrices: Any
    rows: Any
    columns: Any
    second_bias: Any
    third_bias: Any
    last_bias: Any


def flattened(network: ChannelNetwork, channel: int) -> Weights:
    """The network of a channel as `code_rows` takes it."""
    matrices = (network.first, network.second, network.third, network.last)
    flat = np.concatenate([matrix.ravel() for matrix in matrices]).astype(np.float64)
    return Weights(
        np.array(neighbours(channel)),
        flat,
        network.rows,
        network.columns,
        network.second_bias,
        network.third_bias,
        network.last_bias,
    )


@compiled
def _set_inputs(
    padded: Any, stage: int, y: int, x: int, around: Any, found: Any, anchors: Any
) -> None:
    """See `network.inputs`, of the slot at y, x of `padded`: found (2 C + 1,), anchors (M,)."""
    west = padded[stage, y, x - 1]
    north = padded[stage, y - 1, x]
    level = (west + north) >> 1
    count = len(around)
    for number in range(count):
        value = padded[stage + around[number, 0], y + around[number, 1], x + around[number, 2]]
        found[number] = value - level
        found[count + number] = FLAG if value == 0 else 0
    found[2 * count] = level
    anchors[0] = level
    anchors[3] = west + north - padded[stage, y - 1, x - 1]
    if stage:
        here = padded[stage - 1, y, x]
        west += here - padded[stage - 1, y, x - 1]
        north += here - padded[stage - 1, y - 1, x]
    anchors[1] = west
    anchors[2] = north


@compiled
def _activate(sums: Any, bias: Any, given: int) -> None:
    """Products of numbers with `given` bits behind the point become hidden channels."""
    scale = 1.0 / (1 << (given + WEIGHT_BITS - HIDDEN_BITS))
    for place in range(len(sums)):
        sums[place] = min(max(np.floor((sums[place] + bias[place]) * scale + 0.5), 0.0), MOST)


@compiled
def _set_cumulative(outputs: Any, anchors: Any, found: Any) -> None:
    """See `network.cumulative`, of one slot: found (LEVELS + 1,)."""
    best = outputs[:MIXED].max()
    total = np.int64(0)
    for number in range(MIXED):
        total += POWERS[min((best - outputs[number]) >> 1, LIMIT)]
    found[:] = 0
    for number in range(MIXED):
        weight = (POWERS[min((best - outputs[number]) >> 1, LIMIT)] << 16) // total
        octaves = min(max(outputs[2 * MIXED + number] >> 1, -8 * STEP), 4 * STEP)
        scale = POWERS[octaves + 8 * STEP]
        middle = 8 * anchors[number] + outputs[MIXED + number]
        for level in range(1, LEVELS):
            logit = ((8 * level - 4 - middle) * scale) >> 21
            found[level] += weight * SQUASH[min(max(logit, -LIMIT), LIMIT - 1) + LIMIT]
    for level in range(1, LEVELS):
        found[level] = ((found[level] >> 8) * 255 >> 8) + (level << 8)
    found[LEVELS] = ((1 << 24) * 255 >> 8) + (LEVELS << 8)


@compiled
def code_rows(rows: Rows, weights: Weights, tables: Tables, learnt: Learnt, stream: Stream) -> None:
    """Slots of whole rows in order, see `mixing_kernel.code_rows`."""
    num_rows = rows.padded.shape[1] - 2 * BORDER
    num_columns = rows.padded.shape[2] - 2 * BORDER
    num_hidden = len(weights.second_bias)
    given = np.zeros(2 * len(weights.neighbours) + 1)
    anchors = np.zeros(MIXED, np.int64)
    hidden = np.zeros(num_hidden)
    other = np.zeros(num_hidden)
    last = np.zeros(3 * MIXED)
    outputs = np.zeros(3 * MIXED, np.int64)
    below = np.zeros(LEVELS + 1, np.int64)
    start = 0
    for y in range(rows.top, rows.bottom):
        row_sums = weights.rows[(y - BORDER) * len(weights.rows) // num_rows]
        for x in range(rows.first, rows.end):
            column_sums = weights.columns[(x - BORDER) * len(weights.columns) // num_columns]
            _set_inputs(rows.padded, rows.stage, y, x, weights.neighbours, given, anchors)
            at = multiply(given, weights.matrices, 0, hidden)
            _activate(hidden, row_sums + column_sums, INPUT_BITS)
            at = multiply(hidden, weights.matrices, at, other)
            _activate(other, weights.second_bias, HIDDEN_BITS)
            at = multiply(other, weights.matrices, at, hidden)
            _activate(hidden, weights.third_bias, HIDDEN_BITS)
            multiply(hidden, weights.matrices, at, last)
            for number in range(3 * MIXED):
                total = np.int64(last[number]) + weights.last_bias[number]
                outputs[number] = (total + (1 << _LAST_SHIFT >> 1)) >> _LAST_SHIFT
            _set_cumulative(outputs, anchors, below)
            slot = Rows(rows.padded, rows.stage, y, y + 1, x, x + 1, LEVELS)
            own = Stream(stream.data, stream.decoder, stream.symbols[start : start + 2 * CODE_BITS])
            mix_rows(slot, below, tables, learnt, own)
            start += 2 * CODE_BITS
        if len(stream.decoder) and stream.decoder[2] > len(stream.data) + BEHIND:
            return
