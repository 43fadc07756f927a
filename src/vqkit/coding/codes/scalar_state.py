"""What the scalar coder starts from and learns, and the groups of arrays that its kernel takes.

All numbers are integers. Shapes: S stages, C channels, T tables, E entries of a table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rangecoder import TOTAL
from .mixing_state import ALONE

Array = NDArray[Any]

NUM_TABLES = 7
# Contexts of a table, of every decision of every channel.
NUM_CONTEXTS = 32
# Contexts of a table that all channels share.
NUM_SHARED = 1024
# Decisions of a code: whether it is zero; whether it is beyond 1, 2, 3, and any more; its sign; and
# of a group, whether it has codes other than zero.
NUM_DECISIONS = 7
BEYOND = 4
SIGN = 5
SOME = 6
# Channels of a group. All codes of the first are told, those of others where there is one beside
# zero. Channels that are told as differences lie in the first.
GROUP = 8
# Sets of weights of a decision, by the size of the neighbours.
NUM_SETS = 12
# Sizes are told apart in steps of half an octave.
MAX_SIZE = 4095
MAX_COUNT = 250
# A coder that was fitted counts an entry as seen so often at most, so that a file still moves it.
FITTED_COUNT = 30
# Bits that the product of error and logit loses on its way to a weight.
RATE = 16
LOWEST = 24
# Magnitudes up to this are counted up, one decision each; what is beyond follows in bits.
MOST_COUNTED = 20
# Bits behind the first of what is beyond, at most: twice the largest magnitude of a difference.
MAX_LENGTH = 11
# Rows and columns of zeros around the codes of an item.
BORDER = 2


def _half_octaves() -> Array:
    """Of every size, twice its logarithm to base 2, and 0 for none: floor(log2(n^2)) + 1."""
    sizes = np.arange(MAX_SIZE + 1)
    steps = [min(NUM_SETS - 1, int(size * size).bit_length()) for size in sizes]
    return np.array(steps, np.int64)


HALF_OCTAVES = _half_octaves()


class ScalarState(NamedTuple):
    """What was learnt. probabilities (T, E), that a decision is 1, of 65536; counts (T, E), how
    often each was met; weights (sets, T), of 65536.
    """

    probabilities: Array
    counts: Array
    weights: Array

    def copy(self) -> ScalarState:
        """The same, to learn from an item."""
        return ScalarState(*(array.copy() for array in self))


class Scratch(NamedTuple):
    """What is noted of the decision that is coded: contexts, entries and logits of tables (T,)."""

    contexts: Array
    entries: Array
    logits: Array


def scratch() -> Scratch:
    """Room for one decision."""
    return Scratch(*(np.zeros(NUM_TABLES, np.int64) for _ in Scratch._fields))


def first_state(num_stages: int, channels: int) -> ScalarState:
    """What is known before anything was seen."""
    entries = num_stages * NUM_DECISIONS * (channels * NUM_CONTEXTS + NUM_SHARED)
    num_sets = num_stages * NUM_DECISIONS * NUM_SETS
    return ScalarState(
        probabilities=np.full((NUM_TABLES, entries), TOTAL >> 1, np.uint16),
        counts=np.zeros((NUM_TABLES, entries), np.uint8),
        weights=np.full((num_sets, NUM_TABLES), ALONE + (ALONE >> 1), np.int64),
    )
