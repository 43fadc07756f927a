"""What the scalar coder starts from and learns, and the groups of arrays that its kernel takes.

All numbers are integers. Shapes: S stages, C channels, T tables, E entries of a table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rangecoder import TOTAL
from .mixing_state import ALONE, Tables

Array = NDArray[Any]

# Limits of a coder's file. A channel's codes lie in -511 .. 511.
MAX_STAGES = 64
MAX_CHANNELS = 1024
MAX_LEVELS = 1023
# Channels of all stages together: 2^24 entries, and a file of 80 MB.
MAX_CODES = 1 << 13

NUM_TABLES = 7
# Contexts of a table for every decision of a channel.
NUM_CONTEXTS = 32
# Contexts of a table for every decision that all channels share.
NUM_SHARED = 1024
# Decisions on a code: whether its magnitude is beyond 0, 1, 2, 3, and any more; its sign. The last
# is on a group: whether it has codes other than zero.
NUM_DECISIONS = 7
BEYOND = 4
SIGN = 5
SOME = 6
# Channels of a group. All codes of the first are coded, those of others where one is not zero.
# Channels that are coded as differences lie in the first.
GROUP = 8
# Sets of weights of a decision, by the size of the neighbours.
NUM_SETS = 12
# Sums of magnitudes are told apart in steps of half an octave, up to this one.
MAX_SUM = 32
MAX_COUNT = 250
# A coder that was fitted counts an entry as seen so often at most, so that a file still moves it.
FITTED_COUNT = 30
# Bits that the product of error and logit loses on its way to a weight.
RATE = 16
LOWEST = 24
# Weights that a coder starts from are within this, of 65536.
MAX_WEIGHT = 1 << 24
# Magnitudes up to this are counted up, one decision each; what is beyond follows in bits.
MOST_COUNTED = 20
# Binary digits behind the first of what is beyond, at most. A difference of two codes is at most
# MAX_LEVELS - 1.
MAX_LENGTH = 9
# Decisions for a code at most: counted ones, bits beyond, the sign, and that of its group.
MOST_DECISIONS = MOST_COUNTED + 2 * MAX_LENGTH + 2
# Rows and columns of zeros around the codes of an item.
BORDER = 2


# The size of every sum: twice its logarithm to base 2, floor(log2(n^2)) + 1, and 0 for 0.
SIZES = np.array([(total * total).bit_length() for total in range(MAX_SUM + 1)])


class ScalarState(NamedTuple):
    """What was learnt, stage by stage.

    probabilities (T, E) uint16, that a decision is 1, of 65536. counts (T, E) uint8, how often each
    was met. weights (sets, T) int64, of 65536.
    """

    probabilities: Array
    counts: Array
    weights: Array

    def copy(self) -> ScalarState:
        """The same, to learn from an item."""
        return ScalarState(*(array.copy() for array in self))

    def first(self, num_stages: int, channels: int) -> ScalarState:
        """That of the first stages."""
        (_, entries), (sets, _) = state_shapes(num_stages, channels)
        return ScalarState(
            probabilities=self.probabilities[:, :entries].copy(),
            counts=self.counts[:, :entries].copy(),
            weights=self.weights[:sets].copy(),
        )


def state_shapes(num_stages: int, channels: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(T, E), and the shape of all weights."""
    entries = num_stages * NUM_DECISIONS * (channels * NUM_CONTEXTS + NUM_SHARED)
    return (NUM_TABLES, entries), (num_stages * NUM_DECISIONS * NUM_SETS, NUM_TABLES)


def first_state(num_stages: int, channels: int) -> ScalarState:
    """What is known before anything was seen."""
    entries, sets = state_shapes(num_stages, channels)
    return ScalarState(
        probabilities=np.full(entries, TOTAL >> 1, np.uint16),
        counts=np.zeros(entries, np.uint8),
        weights=np.full(sets, ALONE + (ALONE >> 1), np.int64),
    )


class Item(NamedTuple):
    """An item on its way in or out.

    codes (S, C, rows, columns): signed numbers with a border of zeros. predicted (C,): channels
    that are coded as differences in the first stage. limit: the largest magnitude of a code.
    activity (2, columns): sums of small magnitudes at the positions of two rows of the stage that
    is coded, even ones and odd ones.
    """

    codes: Any
    predicted: Any
    limit: int
    activity: Any


class Scratch(NamedTuple):
    """What is noted of the decision that is coded, of every table: which entries its context takes
    among those of the decision (T,), which in the table (T,), and their logits (T,).
    """

    contexts: Any
    entries: Any
    logits: Any


def scratch() -> Scratch:
    """Room for one decision."""
    return Scratch(*(np.zeros(NUM_TABLES, np.int64) for _ in Scratch._fields))


class Stream(NamedTuple):
    """Where decisions come from or go to.

    data, decoder: bytes and state of a range decoder, which is empty where codes are encoded.
    encoder, out: state of a range encoder and its bytes.
    """

    data: Any
    decoder: Any
    encoder: Any
    out: Any


class Work(NamedTuple):
    """All that the kernel takes."""

    item: Item
    state: ScalarState
    notes: Scratch
    stream: Stream
    tables: Tables
    sizes: Any
