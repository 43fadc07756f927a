"""The inner loop of the scalar coder: codes of a row in order, each of which all that follow
learn from.

It is the same text with numba and without, so the bytes are the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..kernels import compiled, usable
from ..logistic import LIMIT
from ..rangecoder import BEHIND, TOTAL
from ..rangecoder_kernel import code_bit
from .mixing_state import Tables
from .scalar_state import (
    BEYOND,
    BORDER,
    GROUP,
    LOWEST,
    MAX_COUNT,
    MAX_LENGTH,
    MAX_SIZE,
    MOST_COUNTED,
    NUM_CONTEXTS,
    NUM_DECISIONS,
    NUM_SETS,
    NUM_SHARED,
    NUM_TABLES,
    RATE,
    SIGN,
    SOME,
    ScalarState,
    Scratch,
)


class Item(NamedTuple):
    """The codes of an item: signed numbers (S, C, rows, columns) with a border of zeros, of which
    those of the channels that `predicted` (C,) marks are told as differences in the first stage;
    half_octaves: of sizes; limit: the largest magnitude.
    """

    codes: Any
    predicted: Any
    half_octaves: Any
    limit: int


class Stream(NamedTuple):
    """Where decisions come from or go to.

    data, decoder: bytes and state of a range decoder, which is empty where codes are encoded.
    encoder, out: state of a range encoder and its bytes.
    """

    data: Any
    decoder: Any
    encoder: Any
    out: Any


@compiled
def _decide(
    bit: int,
    where: int,
    place: int,
    weights: int,
    tables: Tables,
    state: ScalarState,
    notes: Scratch,
    stream: Stream,
) -> int:
    """One decision, coded and learnt from.

    where: its first entry in every table, and place: that of its channel behind it. weights: its
    set.
    """
    total = 0
    for table in range(NUM_TABLES):
        entry = where + notes.contexts[table]
        # The fourth and the last table know nothing of the channel.
        if table != 3 and table != NUM_TABLES - 1:
            entry += place
        logit = tables.stretch[state.probabilities[table, entry]]
        notes.entries[table] = entry
        notes.logits[table] = logit
        total += state.weights[weights, table] * logit
    one = tables.squash[min(max(total >> 16, -LIMIT), LIMIT - 1) + LIMIT]
    bit = code_bit(bit, one, stream.data, stream.decoder, stream.encoder, stream.out)
    wanted = bit << 16
    for table in range(NUM_TABLES):
        entry = notes.entries[table]
        state.weights[weights, table] += (wanted - one) * notes.logits[table] >> RATE
        count = state.counts[table, entry]
        known = int(state.probabilities[table, entry])
        moved = known + ((wanted - known) * tables.shares[count] >> 16)
        state.probabilities[table, entry] = min(max(moved, LOWEST), TOTAL - LOWEST)
        state.counts[table, entry] = min(count + 1, MAX_COUNT)
    return bit


@compiled
def _guess(codes: Any, channel: int, y: int, x: int) -> int:
    """The median of west, north and the plane of both through north-west (LOCO-I, Weinberger et
    al. 2000)."""
    west = codes[0, channel, y, x - 1]
    north = codes[0, channel, y - 1, x]
    corner = codes[0, channel, y - 1, x - 1]
    if y == BORDER:
        return west
    if x == BORDER:
        return north
    return max(min(west, north), min(max(west, north), west + north - corner))


@compiled
def _sign(value: int) -> int:
    if value == 0:
        return 0
    return 2 if value > 0 else 1


@compiled
def _size_before(codes: Any, stage: int, channel: int, y: int, x: int) -> int:
    """Magnitudes around a code in the stage before, which is there in full."""
    total = 0
    for row in range(y - 1, y + 2):
        for column in range(x - 1, x + 2):
            weight = 2 if row == y or column == x else 1
            total += weight * abs(codes[stage - 1, channel, row, column])
    return total - 2 * abs(codes[stage - 1, channel, y, x])


@compiled
def _toss(bit: int, stream: Stream) -> int:
    """A bit that is 1 as often as 0, coded."""
    half = TOTAL >> 1
    return code_bit(bit, half, stream.data, stream.decoder, stream.encoder, stream.out)


@compiled
def _bits_beyond(excess: int, stream: Stream) -> int:
    """A number from 0 on, coded: the Elias gamma code of the number after it."""
    number = excess + 1
    length = 0
    while length < MAX_LENGTH and _toss(1 if number >> (length + 1) else 0, stream):
        length += 1
    found = 1
    for place in range(length - 1, -1, -1):
        found = found * 2 + _toss(number >> place & 1, stream)
    return found - 1


@compiled
def _group_contexts(
    stage: int, first: int, y: int, x: int, item: Item, activity: Any, decayed: int, notes: Scratch
) -> int:
    """Set the contexts of a group's decision; the size of its neighbours."""
    codes = item.codes
    sizes = item.half_octaves
    west = 0
    north = 0
    total = 0
    before = 0
    for channel in range(first, min(first + GROUP, codes.shape[1])):
        at_west = min(abs(codes[stage, channel, y, x - 1]), 3)
        at_north = min(abs(codes[stage, channel, y - 1, x]), 3)
        west += 1 if at_west else 0
        north += 1 if at_north else 0
        total += 2 * (at_west + at_north)
        total += min(abs(codes[stage, channel, y - 1, x + 1]), 3)
        if stage:
            before += min(abs(codes[stage - 1, channel, y, x]), 3)
    contexts = notes.contexts
    size = sizes[min(total, MAX_SIZE)]
    size_here = sizes[min(decayed, MAX_SIZE)]
    size_around = sizes[min(activity[y, x - 1] + activity[y - 1, x], MAX_SIZE)]
    size_before = sizes[min(before, MAX_SIZE)]
    shared = codes.shape[1] * NUM_CONTEXTS
    contexts[0] = size
    contexts[1] = 5 * min(west, 4) + min(north, 4)
    contexts[2] = size_around
    contexts[3] = shared + NUM_SETS * size + size_here
    contexts[4] = size_here
    contexts[5] = size_before
    contexts[6] = shared + (min(size, 7) * 8 + min(size_before, 7)) * 8 + min(size_here, 7)
    return size


@compiled
def _code_contexts(
    stage: int,
    channel: int,
    y: int,
    x: int,
    item: Item,
    activity: Any,
    decayed: int,
    notes: Scratch,
) -> int:
    """Set the contexts of the decisions on a magnitude; the size of its neighbours."""
    codes = item.codes
    sizes = item.half_octaves
    west = abs(codes[stage, channel, y, x - 1])
    north = abs(codes[stage, channel, y - 1, x])
    if stage == 0 and item.predicted[channel]:
        corner = codes[stage, channel, y - 1, x - 1]
        far = abs(codes[stage, channel, y, x - 2] - codes[stage, channel, y, x - 1])
        far += abs(codes[stage, channel, y - 1, x + 1] - codes[stage, channel, y - 1, x])
        west = abs(codes[stage, channel, y, x - 1] - corner)
        north = abs(codes[stage, channel, y - 1, x] - corner)
    else:
        far = abs(codes[stage, channel, y - 1, x - 1])
        far += abs(codes[stage, channel, y - 1, x + 1])
        far += abs(codes[stage, channel, y, x - 2])
        far += abs(codes[stage, channel, y - 2, x])
    beside = 0
    for other in range(max(0, channel - 2), min(codes.shape[1], channel + 4)):
        if other != channel:
            beside += abs(codes[stage, other, y, x - 1]) + abs(codes[stage, other, y - 1, x])
    size = sizes[min(2 * (west + north) + far, MAX_SIZE)]
    size_beside = sizes[min(beside, MAX_SIZE)]
    size_here = sizes[min(decayed, MAX_SIZE)]
    shared = codes.shape[1] * NUM_CONTEXTS
    contexts = notes.contexts
    contexts[0] = size
    contexts[1] = 4 * min(west, 3) + min(north, 3)
    contexts[2] = size_beside
    contexts[3] = shared + NUM_SETS * size + size_here
    contexts[4] = size_here
    contexts[6] = shared + (min(size, 7) * 8 + min(size_beside, 7)) * 16 + 2 * min(size_here, 7)
    if stage == 0:
        contexts[5] = sizes[min(activity[y, x - 1] + activity[y - 1, x], MAX_SIZE)]
        return size
    before = min(abs(codes[stage - 1, channel, y, x]), 3)
    if stage > 1 and codes[stage - 2, channel, y, x] != 0:
        before = max(before, 2)
    size_before = sizes[min(_size_before(codes, stage, channel, y, x), MAX_SIZE)]
    contexts[5] = 4 * min(size_before, 7) + before
    contexts[6] += 1 if before else 0
    return size


@compiled
def _code_sign(
    is_positive: int,
    stage: int,
    channel: int,
    y: int,
    x: int,
    item: Item,
    tables: Tables,
    state: ScalarState,
    notes: Scratch,
    stream: Stream,
) -> int:
    codes = item.codes
    west = _sign(codes[stage, channel, y, x - 1])
    contexts = notes.contexts
    contexts[0] = 3 * west + _sign(codes[stage, channel, y - 1, x])
    contexts[1] = west
    contexts[5] = _sign(codes[stage - 1, channel, y, x]) if stage else 0
    decision = stage * NUM_DECISIONS + SIGN
    where = decision * (codes.shape[1] * NUM_CONTEXTS + NUM_SHARED)
    place = channel * NUM_CONTEXTS
    weights = decision * NUM_SETS
    return _decide(is_positive, where, place, weights, tables, state, notes, stream)


@compiled
def _code_number(
    value: int,
    is_there: bool,
    stage: int,
    channel: int,
    size: int,
    y: int,
    x: int,
    item: Item,
    tables: Tables,
    state: ScalarState,
    notes: Scratch,
    stream: Stream,
) -> int:
    """A signed number, coded: decisions on its magnitude, then its sign. is_there: it is known not
    to be zero.
    """
    magnitude = abs(value)
    entries = item.codes.shape[1] * NUM_CONTEXTS + NUM_SHARED
    place = channel * NUM_CONTEXTS
    found = 1 if is_there else 0
    while found < MOST_COUNTED:
        decision = stage * NUM_DECISIONS + min(found, BEYOND)
        weights = decision * NUM_SETS + size
        bit = 1 if magnitude > found else 0
        where = decision * entries
        if not _decide(bit, where, place, weights, tables, state, notes, stream):
            break
        found += 1
    if found == MOST_COUNTED:
        found += _bits_beyond(magnitude - MOST_COUNTED, stream)
    if not found:
        return 0
    bit = 1 if value > 0 else 0
    if _code_sign(bit, stage, channel, y, x, item, tables, state, notes, stream):
        return found
    return -found


@compiled
def _has_some(
    stage: int,
    first: int,
    y: int,
    x: int,
    item: Item,
    activity: Any,
    decayed: int,
    tables: Tables,
    state: ScalarState,
    notes: Scratch,
    stream: Stream,
) -> int:
    """Whether a group has codes other than zero, coded."""
    codes = item.codes
    some = 0
    for channel in range(first, min(first + GROUP, codes.shape[1])):
        if codes[stage, channel, y, x] != 0:
            some = 1
    size = _group_contexts(stage, first, y, x, item, activity, decayed, notes)
    decision = stage * NUM_DECISIONS + SOME
    where = decision * (codes.shape[1] * NUM_CONTEXTS + NUM_SHARED)
    place = first * NUM_CONTEXTS
    weights = decision * NUM_SETS + size
    return _decide(some, where, place, weights, tables, state, notes, stream)


@compiled
def code_row(
    stage: int,
    y: int,
    item: Item,
    activity: Any,
    tables: Tables,
    state: ScalarState,
    notes: Scratch,
    stream: Stream,
) -> None:
    """The codes of a row of a stage: position after position, of each all channels.

    activity (rows, columns): sum of small magnitudes at every position of this stage; set here. It
    stops behind a position for which the bytes were too few.
    """
    codes = item.codes
    channels = codes.shape[1]
    for x in range(BORDER, codes.shape[3] - BORDER):
        decayed = 0
        small = 0
        for first in range(0, channels, GROUP):
            last = min(first + GROUP, channels) - 1
            if first and not _has_some(
                stage, first, y, x, item, activity, decayed, tables, state, notes, stream
            ):
                decayed = decayed >> 2
                continue
            is_empty = first > 0
            for channel in range(first, last + 1):
                guess = 0
                if stage == 0 and item.predicted[channel]:
                    guess = _guess(codes, channel, y, x)
                size = _code_contexts(stage, channel, y, x, item, activity, decayed, notes)
                number = _code_number(
                    codes[stage, channel, y, x] - guess,
                    is_empty and channel == last,
                    stage,
                    channel,
                    size,
                    y,
                    x,
                    item,
                    tables,
                    state,
                    notes,
                    stream,
                )
                if number:
                    is_empty = False
                value = min(max(number + guess, -item.limit), item.limit)
                if len(stream.decoder):
                    codes[stage, channel, y, x] = value
                decayed = decayed * 3 // 4 + 4 * min(abs(number), 15)
                small += min(abs(value), 3)
        activity[y, x] = small
        if len(stream.decoder) and stream.decoder[2] > len(stream.data) + BEHIND:
            return


def run(
    stage: int,
    y: int,
    item: Item,
    activity: Any,
    tables: Tables,
    state: ScalarState,
    notes: Scratch,
    stream: Stream,
) -> None:
    """`code_row` of arrays.

    Without numba, of views of them that give plain numbers, with which Python is faster.
    """
    groups = (item, activity, tables, state, notes, stream)
    if usable():
        code_row(stage, y, *groups)
    else:
        code_row(stage, y, *map(_view, groups))


def _view(group: Any) -> Any:
    """Memory views are of one or more dimensions with plain numbers in them."""
    if isinstance(group, tuple):
        return type(group)(*map(_view, group))
    return memoryview(group) if hasattr(group, "shape") else group
