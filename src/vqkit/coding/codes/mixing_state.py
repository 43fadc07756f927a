"""What context mixing starts from and learns, and the groups of arrays that its kernels take.

All numbers are integers. Shapes: C tables, one for each context; n slots.
"""

from __future__ import annotations

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
# of the network.
ALONE = 12288
BESIDE = 1024
WHOLE = 1 << 16
# Bits that the product of error and logit loses on its way to a weight, of a table and of the
# network.
RATE = 16
NETWORK_RATE = 15
# Bits of a code.
MAX_BITS = 32
# Rows and columns of zeros around the codes of an item.
BORDER = 3

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


class Learnt(NamedTuple):
    """What an item has taught so far, and what is noted of the bit that is being coded.

    table_bits: entries of a table are 2^table_bits. probabilities, counts: of every entry of C
    tables, that a bit is 1, of 65536, and how often it was seen. weights: MAX_BITS for the network,
    one for each bit of a code, and NUM_CLASSES for each table. Of the bit: entries and weights (2
    C,), logits (C + 1,), the network's behind the tables', and hashes (C,) of what comes before its
    code.
    """

    table_bits: int
    probabilities: Any
    counts: Any
    weights: Any
    places: Any
    logits: Any
    hashes: Any


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


def first_state(num_positions: int, beside_network: bool) -> Learnt:
    """What is known before the first bit of an item."""
    wanted = (16 * num_positions).bit_length()
    table_bits = min(max(wanted, MIN_TABLE_BITS), MAX_TABLE_BITS)
    num_weights = MAX_BITS + NUM_TABLES * NUM_CLASSES
    weights = np.full(num_weights, BESIDE if beside_network else ALONE, np.int64)
    weights[:MAX_BITS] = WHOLE
    return Learnt(
        table_bits,
        probabilities=np.full(NUM_TABLES << table_bits, TOTAL >> 1, np.uint16),
        counts=np.zeros(NUM_TABLES << table_bits, np.uint8),
        weights=weights,
        places=np.zeros(2 * NUM_TABLES, np.int64),
        logits=np.zeros(NUM_TABLES + 1, np.int64),
        hashes=np.zeros(NUM_TABLES, np.int64),
    )
