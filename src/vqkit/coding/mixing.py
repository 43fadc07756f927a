"""The inner loop of context mixing: bits of codes, one after the other, each of which all that follow learn from.

It is the same text with numba and without, so the bytes are the same. All numbers are integers, and every array is flat
but `padded`, the codes (stages, h + 2 REACH, w + 2 REACH) with a border of zeros. `Learnt` is (likely, counts, weights,
where, logits, hashes): probability, of 65536, that a bit is 1, and how often it was seen, for every entry of C tables;
weights, MAX_BITS for the network, one for each bit of a code, and TRUSTS for each table; of the bit that is being
coded, entries and weights (2 C,) and logits (C + 1,), the network's behind the tables'; hashes (C,) of what comes
before the code. `Tables` is (squash, stretch, shares, classes).
"""

from __future__ import annotations

from typing import Any

from .context_mixing import MASK, MAX_BITS, MAX_COUNT, MIX, NETWORK_RATE, RATE, SCATTER, TRUSTS
from .pixel_network import LEVELS, LIMIT
from .rangecoder import TOTAL

try:
    from numba import config as _numba
    from numba import njit as _njit

    _njit(cache=True)(lambda: None)
    COMPILED = not getattr(_numba, "DISABLE_JIT", False)
except (ImportError, RuntimeError):  # the latter where numba finds no folder to keep what it compiled
    COMPILED = False


def _compiled(function: Any) -> Any:
    return _njit(cache=True)(function) if COMPILED else function


@_compiled
def _onto(found: int, number: int) -> int:
    """A hash that goes on with one number more."""
    return (found * MIX + (number & MASK) + 1) & MASK


@_compiled
def _contexts(padded: Any, stage: int, y: int, x: int, hashes: Any) -> int:
    """Set hashes (C,) of what comes before a slot, at y, x of `padded`; C."""
    west, north, corner = padded[stage, y, x - 1], padded[stage, y - 1, x], padded[stage, y - 1, x - 1]
    gradient = west + north - corner
    hashes[0], hashes[1], hashes[2] = stage, _onto(stage, west), _onto(stage, north)
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
    hashes[10], hashes[11] = _onto(hashes[9], west), _onto(hashes[9], north)
    hashes[12] = _onto(_onto(stage, west + here - padded[stage - 1, y, x - 1]), gradient)
    if stage == 1:
        return 13
    hashes[13] = _onto(hashes[9], padded[stage - 2, y, x])
    return 14


@_compiled
def _predict(num: int, node: int, table_bits: int, tables: Any, learnt: Any) -> int:
    """Weighed sum of the logits of all tables, of 65536ths; notes entries, weights and logits."""
    likely, counts, weights, where, logits, hashes = learnt
    _, stretch, _, classes = tables
    total = 0
    for table in range(num):
        mixed = (hashes[table] + node * MIX) & MASK
        entry = (table << table_bits) + ((mixed * SCATTER & MASK) >> (32 - table_bits))
        weight = MAX_BITS + table * TRUSTS + classes[counts[entry]]
        where[2 * table], where[2 * table + 1] = entry, weight
        logits[table] = stretch[likely[entry]]
        total += weights[weight] * logits[table]
    return total


@_compiled
def _learn(bit: int, one: int, num: int, tables: Any, learnt: Any) -> None:
    """Move weights and entries towards a bit, which was 1 with probability `one`."""
    likely, counts, weights, where, logits, _ = learnt
    shares = tables[2]
    wanted = bit << 16
    for table in range(num):
        entry, weight = where[2 * table], where[2 * table + 1]
        weights[weight] += (wanted - one) * logits[table] >> RATE
        count = counts[entry]
        likely[entry] = min(max(likely[entry] + ((wanted - likely[entry]) * shares[count] >> 16), 16), TOTAL - 16)
        counts[entry] = min(count + 1, MAX_COUNT)


@_compiled
def _decoded(one: int, data: Any, decoder: Any) -> int:
    """The next bit: `Decoder` of the range coder for a symbol with two intervals."""
    span, value, position = decoder[0], decoder[1], decoder[2]
    first = span * (TOTAL - one) >> 16
    bit = 1 if value >= first else 0
    span = span - first if bit else first
    value = value - first if bit else value
    while span < 1 << 24:
        digit = data[position] if position < len(data) else 0
        span, value, position = span << 8, value << 8 | digit, position + 1
    decoder[0], decoder[1], decoder[2] = span, value, position
    return bit


@_compiled
def code_slots(
    padded: Any, place: Any, size: int, below: Any, table_bits: int, tables: Any, learnt: Any, symbols: Any,
    data: Any, decoder: Any,
) -> None:  # fmt: skip
    """Slots of a row in order: from bytes to codes where `decoder` is not empty, else from codes to symbols.

    place: stage, y, and first and last x + 1 in `padded`; size K, of `top` bits; below (n * (LEVELS + 1),), or empty
    without a network; symbols (n * top * 2,), start and frequency of each bit; decoder (3,): range, value, position.
    """
    (stage, y, first, end), (weights, logits), (squash, stretch) = place, (learnt[2], learnt[4]), (tables[0], tables[1])
    top = 0
    while (size - 1) >> top:
        top += 1
    for x in range(first, end):
        num, slot = _contexts(padded, stage, y, x, learnt[5]), x - first
        low, node = 0, 1
        for bit_place in range(top - 1, -1, -1):
            middle = low + (1 << bit_place)
            if middle >= size:  # there are no such codes: the bit is 0
                node = node * 2
                continue
            total = _predict(num, node, table_bits, tables, learnt)
            if len(below):
                at = slot * (LEVELS + 1)
                above = below[at + middle + (1 << bit_place)] - below[at + middle]
                ratio = (above << 16) // (below[at + middle + (1 << bit_place)] - below[at + low])
                logits[num] = stretch[min(max(ratio, 1), TOTAL - 1)]
                total += weights[bit_place] * logits[num]
            one = squash[min(max(total >> 16, -LIMIT), LIMIT - 1) + LIMIT]
            if len(decoder):
                bit = _decoded(one, data, decoder)
            else:
                bit = padded[stage, y, x] >> bit_place & 1
                symbol = 2 * (slot * top + top - 1 - bit_place)
                symbols[symbol], symbols[symbol + 1] = (TOTAL - one) * bit, one if bit else TOTAL - one
            _learn(bit, one, num, tables, learnt)
            if len(below):
                weights[bit_place] += ((bit << 16) - one) * logits[num] >> NETWORK_RATE
            low, node = middle if bit else low, node * 2 + bit
        padded[stage, y, x] = low


def run(*arguments: Any) -> None:
    """`code_slots` of arrays; without numba, of views that give plain numbers, with which Python is faster."""
    code_slots(*(arguments if COMPILED else map(_view, arguments)))


def _view(argument: Any) -> Any:
    if isinstance(argument, tuple):
        return tuple(map(_view, argument))
    return memoryview(argument) if hasattr(argument, "shape") else argument
