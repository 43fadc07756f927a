"""The inner loop of context mixing: bits of codes in order, from each of which all that follow
learn.

It is the same text with numba and without, so the bytes are the same.
"""

from __future__ import annotations

from typing import Any

from ..kernels import compiled, usable
from ..logistic import LIMIT
from ..rangecoder import BEHIND, TOTAL
from ..rangecoder_kernel import decode_bit
from .linear_kernel import learn_value, predict_value, value_below
from .mixing_state import (
    LINEAR_WEIGHTS,
    MASK,
    MAX_BITS,
    MAX_COUNT,
    MIX,
    NETWORK_RATE,
    NUM_CLASSES,
    NUM_DEVIATIONS,
    RATE,
    SCATTER,
    Learnt,
    Rows,
    Stream,
    Tables,
)


@compiled
def _onto(found: int, number: int) -> int:
    """A hash that goes on with one number more."""
    return (found * MIX + (number & MASK) + 1) & MASK


@compiled
def _set_hashes(padded: Any, stage: int, y: int, x: int, hashes: Any) -> int:
    """Set hashes of the contexts of the slot at y, x of `padded`; how many there are."""
    west = padded[stage, y, x - 1]
    north = padded[stage, y - 1, x]
    corner = padded[stage, y - 1, x - 1]
    gradient = west + north - corner
    hashes[0] = stage
    hashes[1] = _onto(stage, west)
    hashes[2] = _onto(stage, north)
    hashes[3] = _onto(hashes[1], north)
    hashes[4] = _onto(_onto(hashes[3], corner), padded[stage, y - 1, x + 1])
    hashes[5] = _onto(hashes[1], padded[stage, y, x - 2])
    hashes[6] = _onto(hashes[2], padded[stage, y - 2, x])
    hashes[7] = _onto(stage, gradient)
    hashes[8] = _onto(_onto(stage, (west + north) >> 1), abs(west - north) >> 2)
    if stage == 0:
        return 9
    here = padded[stage - 1, y, x]
    hashes[9] = _onto(stage, here)
    hashes[10] = _onto(hashes[9], west)
    hashes[11] = _onto(hashes[9], north)
    hashes[12] = _onto(_onto(stage, west + here - padded[stage - 1, y, x - 1]), gradient)
    if stage == 1:
        return 13
    hashes[13] = _onto(hashes[9], padded[stage - 2, y, x])
    return 14


@compiled
def _predict(num: int, node: int, tables: Tables, learnt: Learnt) -> int:
    """Weighed sum of the logits of all tables, of 65536ths; notes entries, weights and logits."""
    total = 0
    for table in range(num):
        mixed = (learnt.hashes[table] + node * MIX) & MASK
        place = (mixed * SCATTER & MASK) >> (32 - learnt.table_bits)
        entry = (table << learnt.table_bits) + place
        weight = MAX_BITS + table * NUM_CLASSES + tables.classes[learnt.counts[entry]]
        learnt.places[2 * table] = entry
        learnt.places[2 * table + 1] = weight
        logit = tables.stretch[learnt.probabilities[entry]]
        learnt.logits[table] = logit
        total += learnt.weights[weight] * logit
    return total


@compiled
def _learn(bit: int, one: int, num: int, tables: Tables, learnt: Learnt) -> None:
    """Move weights and entries towards a bit, which was 1 with probability `one`."""
    wanted = bit << 16
    for table in range(num):
        entry = learnt.places[2 * table]
        weight = learnt.places[2 * table + 1]
        learnt.weights[weight] += (wanted - one) * learnt.logits[table] >> RATE
        count = learnt.counts[entry]
        known = learnt.probabilities[entry]
        moved = known + ((wanted - known) * tables.shares[count] >> 16)
        learnt.probabilities[entry] = min(max(moved, 16), TOTAL - 16)
        learnt.counts[entry] = min(count + 1, MAX_COUNT)


@compiled
def _logit(low: int, middle: int, end: int, tables: Tables) -> int:
    """Of the upper part of what lies between, by what lies below the edges of both parts."""
    ratio = ((end - middle) << 16) // (end - low)
    return tables.stretch[min(max(ratio, 1), TOTAL - 1)]


@compiled
def _predict_beside(
    below: Any, at: int, low: int, place: int, num: int, tables: Tables, learnt: Learnt
) -> int:
    """What the network, whose distribution is at a place of `below`, and the linear prediction add
    to `_predict`, of the bit that cuts the values from `low` on in two; notes their logits.
    """
    middle = low + (1 << place)
    end = middle + (1 << place)
    linear = learnt.linear
    lower = value_below(low, tables, linear)
    centre = value_below(middle, tables, linear)
    upper = value_below(end, tables, linear)
    learnt.logits[num] = _logit(below[at + low], below[at + middle], below[at + end], tables)
    learnt.logits[num + 1] = _logit(lower, centre, upper, tables)
    weight = LINEAR_WEIGHTS + place * NUM_DEVIATIONS + linear.noted[3]
    network = learnt.weights[place] * learnt.logits[num]
    return network + learnt.weights[weight] * learnt.logits[num + 1]


@compiled
def _learn_beside(error: int, place: int, num: int, learnt: Learnt) -> None:
    """Move the weights of both."""
    weight = LINEAR_WEIGHTS + place * NUM_DEVIATIONS + learnt.linear.noted[3]
    learnt.weights[place] += error * learnt.logits[num] >> NETWORK_RATE
    learnt.weights[weight] += error * learnt.logits[num + 1] >> NETWORK_RATE


@compiled
def code_rows(rows: Rows, below: Any, tables: Tables, learnt: Learnt, stream: Stream) -> None:
    """Slots of rows in order: from bytes to codes where there is a decoder, else to symbols.

    below (n * (K + 1),): of 2^24, what a network says lies below each code of each slot; K is then
    a power of two. Empty without a network. It stops behind a row for which the bytes were too few.
    """
    bits = 0
    while (rows.num_codes - 1) >> bits:
        bits += 1
    slot = 0
    for y in range(rows.top, rows.bottom):
        for x in range(rows.first, rows.end):
            num = _set_hashes(rows.padded, rows.stage, y, x, learnt.hashes)
            if len(below):
                predict_value(rows.padded, rows.stage, y, x, learnt.linear)
            low = 0
            node = 1
            for place in range(bits - 1, -1, -1):
                middle = low + (1 << place)
                # There are no such codes, so the bit is 0.
                if middle >= rows.num_codes:
                    node = node * 2
                    continue
                total = _predict(num, node, tables, learnt)
                if len(below):
                    at = slot * (rows.num_codes + 1)
                    total += _predict_beside(below, at, low, place, num, tables, learnt)
                one = tables.squash[min(max(total >> 16, -LIMIT), LIMIT - 1) + LIMIT]
                if len(stream.decoder):
                    bit = decode_bit(one, stream.data, stream.decoder)
                else:
                    bit = rows.padded[rows.stage, y, x] >> place & 1
                    symbol = 2 * (slot * bits + bits - 1 - place)
                    stream.symbols[symbol] = (TOTAL - one) * bit
                    stream.symbols[symbol + 1] = one if bit else TOTAL - one
                _learn(bit, one, num, tables, learnt)
                if len(below):
                    _learn_beside((bit << 16) - one, place, num, learnt)
                low = middle if bit else low
                node = node * 2 + bit
            rows.padded[rows.stage, y, x] = low
            if len(below):
                learn_value(low, y, x, learnt.linear)
            slot += 1
        if len(stream.decoder) and stream.decoder[2] > len(stream.data) + BEHIND:
            return


def run(rows: Rows, below: Any, tables: Tables, learnt: Learnt, stream: Stream) -> None:
    """`code_rows` of arrays.

    Without numba, of views of them that give plain numbers, with which Python is faster.
    """
    groups = (rows, below, tables, learnt, stream)
    code_rows(*(groups if usable() else map(_view, groups)))


def _view(group: Any) -> Any:
    if isinstance(group, tuple):
        return type(group)(*map(_view, group))
    return memoryview(group) if hasattr(group, "shape") else group
