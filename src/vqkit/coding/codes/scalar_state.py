"""What the scalar coder starts from and learns, and the groups of arrays that its kernel takes.

All numbers are integers. Shapes: S stages, C channels, T tables, E entries of a table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rangecoder import TOTAL
from .mixing_state import ALONE, TABLES, Tables

Array = NDArray[Any]

# Limits of a coder's file. A channel's codes lie in -511 .. 511.
MAX_STAGES = 64
MAX_CHANNELS = 1024
MAX_LEVELS = 1023
# Channels of all stages together: 2^24 entries, and a file of 80 MB.
MAX_CODES = 1 << 13

NUM_TABLES = 6
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
# Sets of weights of a decision that all channels share. Beside them each channel has one.
NUM_SETS = 144
# Sums of magnitudes are told apart in steps of half an octave, up to this one.
MAX_SUM = 32
MAX_COUNT = 250
# A coder that was fitted counts an entry as seen so often at most, so that a file still moves it.
FITTED_COUNT = 20
# Bits that the product of error and logit loses on its way to a weight.
RATE = 15
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
# Zeros behind the sums of the groups of a position, for those who look three groups back.
BEHIND_GROUPS = 3
# Rows and columns of zeros around the codes of an item.
BORDER = 2


# Channels that tell something of a channel: those before it at its position, those west and north
# of it, and those whose signs tell of its sign.
NUM_HERE = 6
NUM_BESIDE = 6
NUM_SIGNS = 4
# Where a sign may be: here, west and north in a stage, and west, north, east and south in the stage
# before.
NUM_SITES = 7
# What the expectation of a magnitude, and that of the sum of a group, are made of.
NUM_FEATURES = 12 + NUM_HERE + NUM_BESIDE
NUM_GROUP_FEATURES = 17
# Weights of an expectation are within this, of 4096.
MAX_FACTOR = (1 << 15) - 1
# Magnitudes are known to others up to this, and in sums up to that.
MOST_KNOWN = 127
MOST_SUMMED = 3
# Expectations are told apart below this; 1024 stand for one.
MAX_EXPECTED = (1 << 13) - 1

# The level of an expectation: four times its logarithm to base 2, from 1 / 32 on.
LEVELS = np.array([max((n**4).bit_length() - 20, 0) for n in range(MAX_EXPECTED + 1)]).clip(max=31)

# The size of every sum: twice its logarithm to base 2, floor(log2(n^2)) + 1, and 0 for 0.
SIZES = np.array([(total * total).bit_length() for total in range(MAX_SUM + 1)])

# Values that an encoder would like to code are told in parts of a step.
UNITS = 64
# Bits of a decision in 256ths, by its probability without its last binary digits.
PRICE_SHIFT = 4
PRICES = np.round(
    256 * np.log2((TOTAL >> PRICE_SHIFT) / (np.arange((TOTAL >> PRICE_SHIFT) + 1) + 0.5)).clip(0)
).astype(np.int32)

# The tables of functions in the types that take the least of a processor's cache.
COMPACT = Tables(
    TABLES.squash.astype(np.int32),
    TABLES.stretch.astype(np.int16),
    TABLES.shares.astype(np.int32),
    TABLES.classes.astype(np.int8),
)


class ScalarState(NamedTuple):
    """What was learnt, stage by stage.

    entries (T, E) int32: the probability, of 65536, that a decision is 1, times 256, and how often
    it was met. weights (sets, T) int64, of 65536.
    """

    entries: Array
    weights: Array

    def copy(self) -> ScalarState:
        """The same, to learn from an item."""
        return ScalarState(*(array.copy() for array in self))

    def first(self, num_stages: int, channels: int) -> ScalarState:
        """That of the first stages."""
        (_, entries), (sets, _) = state_shapes(num_stages, channels)
        return ScalarState(self.entries[:, :entries].copy(), self.weights[:sets].copy())


def state_shapes(num_stages: int, channels: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(T, E), and the shape of all weights."""
    entries = num_stages * NUM_DECISIONS * (channels * NUM_CONTEXTS + NUM_SHARED)
    sets = num_stages * NUM_DECISIONS * (channels + NUM_SETS)
    return (NUM_TABLES, entries), (sets, NUM_TABLES)


def first_state(num_stages: int, channels: int) -> ScalarState:
    """What is known before anything was seen."""
    entries, sets = state_shapes(num_stages, channels)
    return ScalarState(
        entries=np.full(entries, TOTAL >> 1 << 8, np.int32),
        weights=np.full(sets, ALONE + (ALONE >> 1), np.int64),
    )


class Relations(NamedTuple):
    """What tells of a number, as integers; G groups of channels.

    partners (S, C, NUM_HERE + NUM_BESIDE): channels at the same position, then such west and north.
    signs (S, C, NUM_SIGNS): site * C + channel. magnitudes (S, NUM_FEATURES, C) and groups (S,
    NUM_GROUP_FEATURES, G): weights of what an expectation is made of, of 4096.
    """

    partners: Array
    signs: Array
    magnitudes: Array
    groups: Array

    def first(self, num_stages: int) -> Relations:
        """Those of the first stages."""
        return Relations(*(array[:num_stages].copy() for array in self))

    def flat(self) -> Relations:
        """The same for the kernel."""
        return Relations(*(array.ravel() for array in self))


def relation_shapes(num_stages: int, channels: int) -> dict[str, tuple[int, int, int]]:
    """The shapes of relations, by name."""
    groups = -(-channels // GROUP)
    return {
        "partners": (num_stages, channels, NUM_HERE + NUM_BESIDE),
        "signs": (num_stages, channels, NUM_SIGNS),
        "magnitudes": (num_stages, NUM_FEATURES, channels),
        "groups": (num_stages, NUM_GROUP_FEATURES, groups),
    }


class Item(NamedTuple):
    """The rows of an item that are on their way in or out.

    Everything is flat and has a border around its positions. values (stages * rows * columns * C):
    signed numbers. magnitudes: of the numbers that were coded, as many. sums (stages * rows *
    columns * (G + BEHIND_GROUPS)): of small magnitudes of each group, and zeros behind. totals
    (stages * rows * columns): sums of all groups. expected (C,) and expected_sums (G,): what is
    expected of numbers and groups of a position, of 4096. predicted (C,): channels that are coded
    as differences in the first stage. limit: the largest magnitude of a value. first: where the
    first row of the item is among these rows, or would be.
    """

    values: Any
    magnitudes: Any
    sums: Any
    totals: Any
    expected: Any
    expected_sums: Any
    predicted: Any
    limit: int
    channels: int
    groups: int
    rows: int
    columns: int
    first: int


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


class Learning(NamedTuple):
    """What a decision takes. Few arrays, as every call of a compiled function copies them."""

    state: ScalarState
    notes: Scratch
    stream: Stream
    tables: Tables


class Choice(NamedTuple):
    """What an encoder needs that chooses the numbers of a stage itself.

    stage: which; -1 for none. wanted (rows * columns * C): its values, in units of a step's
    UNITS-th. first: of the positions of all stages, where those of the stage begin, times C.
    weight: what a bit costs, in squared units. bits: PRICES. cost (1,): room for a sum.
    """

    stage: int
    wanted: Any
    first: int
    weight: int
    bits: Any
    cost: Any


class Work(NamedTuple):
    """All that the kernel takes."""

    item: Item
    learning: Learning
    choice: Choice
    relations: Relations
    sizes: Any
    levels: Any
