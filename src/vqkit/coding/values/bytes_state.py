"""What the coder of bytes starts from and learns, and the groups of arrays that its kernel takes.

All numbers are integers. Shapes: C contexts, S states of a place, B buckets of a table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..logistic import SQUASH, STRETCH

MASK = (1 << 32) - 1
MIX = 0x2545F491
SCATTER = 0x2C1B3C6D

# Contexts: the last byte, the last two, ... six, the word so far, and that with the word before it.
NUM_ORDERS = 6
NUM_CONTEXTS = NUM_ORDERS + 2
# Inputs of a mixer: two for each context, two of the match, and one that never changes.
NUM_INPUTS = 2 * NUM_CONTEXTS + 3
# Bytes of a bucket: what tells its context, and a state for each of the nodes of four bits.
BUCKET = 16
# Counts that a state may have of one bit where there are so many of the other.
MOST = (40, 24, 12, 6, 5)
# Bytes before a place by which an earlier one is found, how many must be alike, and how many are
# counted.
FOUND_BY = 6
SHORTEST = 5
LONGEST = 31
# Zeros around each text of the history, so that every item begins as those did.
GAP = FOUND_BY
# Bits behind the point of a probability that is learnt.
FINE = 28
MAX_COUNT = 255
# Of weights: their one, and bits that the product of error and logit loses on its way to one.
WHOLE = 1 << 16
RATE = 17
MAX_WEIGHT = 1 << 24
# Places of what corrects the result, along its logit, and logits from one to the next.
STEPS = 33
STEP = 256


def _states() -> list[tuple[int, int, int]]:
    """Counts of zeros and ones and the last bit of every state, the one that was never seen first.

    The last bit is told where both are there and neither is above 12.
    """
    found = [(0, 0, 0)]
    for zeros in range(MOST[0] + 1):
        for ones in range(MOST[0] + 1):
            fewer = min(zeros, ones)
            if not zeros + ones or fewer >= len(MOST) or max(zeros, ones) > MOST[fewer]:
                continue
            found.append((zeros, ones, 0))
            if fewer and max(zeros, ones) <= 12:
                found.append((zeros, ones, 1))
    return found


STATES = _states()
NUM_STATES = len(STATES)


def _next(zeros: int, ones: int, bit: int) -> int:
    """The state behind a bit: one count grows, and the other forgets."""
    mine, other = (ones, zeros) if bit else (zeros, ones)
    if other > 2:
        other = (other + 3) // 2 if other < 6 else (other + 5) // 3
    mine += 1
    fewer = min(mine, other)
    if fewer >= len(MOST):
        mine = other = len(MOST) - 1
        fewer = mine
    mine = min(mine, MOST[min(other, len(MOST) - 1)])
    other = min(other, MOST[min(mine, len(MOST) - 1)])
    pair = (other, mine) if bit else (mine, other)
    last = bit if min(pair) and max(pair) <= 12 else 0
    return STATES.index((*pair, last))


NEXT = np.array([[_next(zeros, ones, bit) for bit in (0, 1)] for zeros, ones, _ in STATES])
TOTALS = np.array([zeros + ones for zeros, ones, _ in STATES])
# First probabilities that a bit is 1 behind a state.
FIRST = np.array([((2 * n1 + 1) << FINE) // (2 * (n0 + n1) + 2) for n0, n1, _ in STATES])
SHARES = np.array([131072 // (2 * count + 3) for count in range(MAX_COUNT + 1)])


class Tables(NamedTuple):
    """Tables of functions: the logistic function and its inverse, SHARES, NEXT (S, 2), flat, and
    TOTALS.
    """

    squash: Any
    stretch: Any
    shares: Any
    next: Any
    totals: Any


TABLES = Tables(SQUASH, STRETCH, SHARES, NEXT.reshape(-1), TOTALS)


class Learnt(NamedTuple):
    """What was learnt so far. All flat.

    buckets (B * 16,) uint8. maps (C * 256 * 2,): of each context and state, how likely a 1 is and
    how often that was seen; matches (32 * 2,): likewise of each length, how likely the match is
    right. by_node, by_match: weights (256, NUM_INPUTS) and (NUM_CONTEXTS + 1) * 8, NUM_INPUTS) of
    two mixers. final (256 * STEPS * 2,): corrected probabilities. found (2^n,) int32: the place
    behind the last one with a hash. All int32 but the buckets.
    """

    buckets: Any
    maps: Any
    matches: Any
    by_node: Any
    by_match: Any
    final: Any
    found: Any


class Noted(NamedTuple):
    """What is noted of the item that is being coded.

    hashes (C,), places (C,), inputs (NUM_INPUTS,): of a byte, its contexts, their buckets and what
    they say. position (4,): hashes of the word so far and of the one before, where the match goes
    on, and how long it is. buckets, found: buckets and places of `found` that were touched, behind
    how many there are of them; empty where nothing needs to be noted.
    """

    hashes: Any
    places: Any
    inputs: Any
    position: Any
    buckets: Any
    found: Any


# Of `Noted.position`, before the first byte of an item.
FIRST_POSITION = [0, 0, 0, 0]


def onto(found: Any, number: Any) -> Any:
    """A hash that goes on with one number more."""
    return (found * MIX + number + 1) & MASK


def places_found(history: np.ndarray, found_bits: int) -> np.ndarray:
    """`Learnt.found` of a history: for each hash of FOUND_BY bytes the last place behind them."""
    found = np.zeros(1 << found_bits, np.int32)
    places = np.arange(FOUND_BY, len(history))
    hashes = np.zeros(len(places), np.int64)
    for back in range(1, FOUND_BY + 1):
        hashes = onto(hashes, history[places - back].astype(np.int64))
    hashes = onto(hashes, FOUND_BY - 1)
    slots = (hashes * SCATTER & MASK) >> 8 & (len(found) - 1)
    # Of places with the same hash the last one stays.
    found[slots] = places
    return found


def first_learnt(bucket_bits: int, found_bits: int) -> Learnt:
    """What is known before the first byte."""
    maps = np.zeros((NUM_CONTEXTS, 256, 2), np.int32)
    maps[:, :NUM_STATES, 0] = FIRST
    maps[:, NUM_STATES:, 0] = 1 << FINE >> 1
    matches = np.zeros((LONGEST + 1, 2), np.int32)
    matches[:, 0] = (3 << FINE) // 4
    weights = np.zeros((NUM_INPUTS,), np.int32)
    weights[: 2 * NUM_CONTEXTS : 2] = WHOLE // 4
    final = np.zeros((256, STEPS, 2), np.int32)
    middles = (np.arange(STEPS) - STEPS // 2) * STEP
    final[:, :, 0] = SQUASH[np.clip(middles, -4096, 4095) + 4096] << (FINE - 16)
    return Learnt(
        np.zeros(BUCKET << bucket_bits, np.uint8),
        maps.reshape(-1),
        matches.reshape(-1),
        np.tile(weights, 256),
        np.tile(weights, (NUM_CONTEXTS + 1) * 8),
        final.reshape(-1),
        np.zeros(1 << found_bits, np.int32),
    )
