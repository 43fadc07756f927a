"""What context mixing starts from and learns, and the groups of arrays that its kernels take.

All numbers are integers. Shapes: C tables, one for each context; n slots; A neighbours.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..logistic import SQUASH, STRETCH
from ..rangecoder import TOTAL

# Multipliers of the hash of contexts, and of the hash that chooses an entry.
MASK = (1 << 32) - 1
MIX = 0x2545F491
SCATTER = 0x2C1B3C6D

NUM_TABLES = 14
MIN_TABLE_BITS = 12
MAX_TABLE_BITS = 20
MAX_COUNT = 255
# Classes of how often an entry was seen: bit lengths of its count.
NUM_CLASSES = 9
# First weights, of 65536: of entries where there are only tables, of entries beside a network, and
# of the network. That of the linear prediction is 0: small items are better without it.
ALONE = 12288
BESIDE = 1024
WHOLE = 1 << 16
# Bits that the product of error and logit loses on its way to a weight, of a table, and of the
# other two.
RATE = 16
NETWORK_RATE = 15
# Bits of a code.
MAX_BITS = 32
# Rows and columns of zeros around the codes of an item.
BORDER = 3

# Bits of a value.
VALUE_BITS = 8
# Classes of how far the linear prediction was off beside a slot, and where its weights begin among
# all.
NUM_DEVIATIONS = 16
LINEAR_WEIGHTS = MAX_BITS + NUM_TABLES * NUM_CLASSES
# What a mean deviation starts from, four levels, and does not fall below.
FIRST_DEVIATION = 32 << 6
LEAST_DEVIATION = 1 << 6

# Of 65536: how far an entry moves, by how often it was seen.
SHARES = np.array([131072 // (2 * count + 3) for count in range(MAX_COUNT + 1)])
CLASSES = np.array([count.bit_length() for count in range(MAX_COUNT + 1)])


class Tables(NamedTuple):
    """Tables of functions: the logistic function and its inverse, SHARES and CLASSES."""

    squash: Any
    stretch: Any
    shares: Any
    classes: Any


TABLES = Tables(SQUASH, STRETCH, SHARES, CLASSES)


class Linear(NamedTuple):
    """A linear prediction of the values of a stage from A neighbours, which learns from each value.

    around (A, 3): channels back, rows down and columns right of a neighbour. weights (A,), of
    65536. moments (A * A,) and targets (A,): sums of the products of neighbours with one another
    and with the value, in which older slots count less. deviations (NUM_DEVIATIONS,): mean distance
    of value and prediction, by class, in 64ths of an eighth of a level. errors (2, columns + 2
    BORDER): that distance in eighths, in the last even and odd row. Of the slot that is coded:
    given (A,), the neighbours, and noted (4,): what they are measured from, the prediction in
    eighths, the steepness of its distribution, and its class.
    """

    around: Any
    weights: Any
    moments: Any
    targets: Any
    deviations: Any
    errors: Any
    given: Any
    noted: Any


class Learnt(NamedTuple):
    """What an item has taught so far, and what is noted of the bit that is being coded.

    table_bits: entries of a table are 2^table_bits. probabilities, counts: of every entry of C
    tables, that a bit is 1, of 65536, and how often it was seen. weights: MAX_BITS for the network,
    one for each bit of a code, NUM_CLASSES for each table, and NUM_DEVIATIONS for each bit of a
    value, for the linear prediction. linear: of the stage, without neighbours where there is no
    network. Of the bit: entries and weights (2 C,), logits (C + 2,), the network's and the linear
    prediction's behind the tables', and hashes (C,) of what comes before its code.
    """

    table_bits: int
    probabilities: Any
    counts: Any
    weights: Any
    places: Any
    logits: Any
    hashes: Any
    linear: Linear


class Rows(NamedTuple):
    """Slots of some rows, which are coded in order.

    padded: the codes (stages, rows + 2 BORDER, columns + 2 BORDER) of the item with a border of
    zeros. top and bottom: rows of `padded`, first and end: its columns, from one up to the other.
    num_codes: K.
    """

    padded: Any
    stage: int
    top: int
    bottom: int
    first: int
    end: int
    num_codes: int


class Stream(NamedTuple):
    """Where symbols come from or go to.

    data, decoder: bytes and state of a range decoder; the decoder is empty where codes are encoded.
    symbols (n * bits * 2,): then start and frequency of each bit.
    """

    data: Any
    decoder: Any
    symbols: Any


def neighbours(channel: int) -> list[tuple[int, int, int]]:
    """Channels back, rows down and columns right of what stands around a value and is decoded
    before it.

    The nearest of its own channel, and 3 x 3 of those before.
    """
    offsets = []
    for down, right in product(range(-BORDER, 1), range(-BORDER, BORDER + 1)):
        if (down, right) < (0, 0):
            offsets.append((0, down, right))
    for back, down, right in product(range(1, channel + 1), (-1, 0, 1), (-1, 0, 1)):
        offsets.append((-back, down, right))
    return offsets


def first_linear(around: list[tuple[int, int, int]], columns: int) -> Linear:
    """What is known of a stage before its first value: of neighbours nothing."""
    num = len(around)
    return Linear(
        around=np.array(around, np.int64).reshape(num, 3),
        weights=np.zeros(num, np.int64),
        moments=np.zeros(num * num, np.int64),
        targets=np.zeros(num, np.int64),
        deviations=np.full(NUM_DEVIATIONS, FIRST_DEVIATION, np.int64),
        errors=np.zeros((2, columns + 2 * BORDER), np.int64),
        given=np.zeros(num, np.int64),
        noted=np.zeros(4, np.int64),
    )


def first_state(num_positions: int, beside_network: bool) -> Learnt:
    """What is known before the first bit of an item."""
    wanted = (16 * num_positions).bit_length()
    table_bits = min(max(wanted, MIN_TABLE_BITS), MAX_TABLE_BITS)
    num_weights = LINEAR_WEIGHTS + VALUE_BITS * NUM_DEVIATIONS
    weights = np.full(num_weights, BESIDE if beside_network else ALONE, np.int64)
    weights[:MAX_BITS] = WHOLE
    weights[LINEAR_WEIGHTS:] = 0
    return Learnt(
        table_bits,
        probabilities=np.full(NUM_TABLES << table_bits, TOTAL >> 1, np.uint16),
        counts=np.zeros(NUM_TABLES << table_bits, np.uint8),
        weights=weights,
        places=np.zeros(2 * NUM_TABLES, np.int64),
        logits=np.zeros(NUM_TABLES + 2, np.int64),
        hashes=np.zeros(NUM_TABLES, np.int64),
        linear=first_linear([], 0),
    )
