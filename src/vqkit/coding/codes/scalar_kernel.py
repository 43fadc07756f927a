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
    BORDER,
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
    sizes = item.half_octaves
    contexts = notes.contexts
    entries = channels * NUM_CONTEXTS + NUM_SHARED
    for x in range(BORDER, codes.shape[3] - BORDER):
        around = activity[y, x - 1] + activity[y - 1, x]
        size_around = sizes[min(around, MAX_SIZE)]
        here = 0
        decayed = 0
        small = 0
        for channel in range(channels):
            west = int(codes[stage, channel, y, x - 1])
            north = int(codes[stage, channel, y - 1, x])
            guess = 0
            if stage == 0 and item.predicted[channel]:
                guess = _guess(codes, channel, y, x)
                corner = int(codes[stage, channel, y - 1, x - 1])
                far = abs(codes[stage, channel, y, x - 2] - west)
                far += abs(codes[stage, channel, y - 1, x + 1] - north)
                near_west = abs(west - corner)
                near_north = abs(north - corner)
            else:
                far = abs(codes[stage, channel, y - 1, x - 1])
                far += abs(codes[stage, channel, y - 1, x + 1])
                far += abs(codes[stage, channel, y, x - 2])
                far += abs(codes[stage, channel, y - 2, x])
                near_west = abs(west)
                near_north = abs(north)
            beside = 0
            for other in range(max(0, channel - 2), min(channels, channel + 4)):
                if other != channel:
                    beside += abs(codes[stage, other, y, x - 1])
                    beside += abs(codes[stage, other, y - 1, x])
            size = sizes[min(2 * (near_west + near_north) + far, MAX_SIZE)]
            size_beside = sizes[min(beside, MAX_SIZE)]
            size_here = sizes[min(decayed, MAX_SIZE)]
            before = 0
            sign_before = 0
            if stage:
                coarse = codes[stage - 1, channel, y, x]
                before = min(abs(coarse), 3)
                if stage > 1 and codes[stage - 2, channel, y, x] != 0:
                    before = max(before, 2)
                sign_before = _sign(coarse)
            contexts[0] = size
            contexts[1] = 4 * min(near_west, 3) + min(near_north, 3)
            contexts[2] = size_beside
            contexts[3] = NUM_SETS * size + size_here
            contexts[4] = 2 * size_here + (1 if here else 0)
            contexts[5] = size_around
            shared = (min(size, 7) * 8 + min(size_beside, 7)) * 16 + 2 * min(size_here, 7)
            contexts[6] = shared
            if stage:
                size_before = sizes[min(_size_before(codes, stage, channel, y, x), MAX_SIZE)]
                contexts[5] = 4 * min(size_before, 7) + before
                contexts[6] = shared + (1 if before else 0)
            # Tables that know nothing of the channel lie behind the others.
            contexts[3] += channels * NUM_CONTEXTS
            contexts[6] += channels * NUM_CONTEXTS

            value = codes[stage, channel, y, x] - guess
            magnitude = abs(value)
            decision = stage * NUM_DECISIONS
            place = channel * NUM_CONTEXTS
            found = _decide(
                1 if magnitude else 0,
                decision * entries,
                place,
                decision * NUM_SETS + size,
                tables,
                state,
                notes,
                stream,
            )
            if found:
                while found < MOST_COUNTED:
                    at = decision + min(found, SIGN - 1)
                    if not _decide(
                        1 if magnitude > found else 0,
                        at * entries,
                        place,
                        at * NUM_SETS + size,
                        tables,
                        state,
                        notes,
                        stream,
                    ):
                        break
                    found += 1
                if found == MOST_COUNTED:
                    found += _bits_beyond(magnitude - MOST_COUNTED, stream)
                contexts[0] = 3 * _sign(west) + _sign(north)
                contexts[1] = _sign(west)
                contexts[5] = sign_before
                at = decision + SIGN
                if not _decide(
                    1 if value > 0 else 0,
                    at * entries,
                    place,
                    at * NUM_SETS,
                    tables,
                    state,
                    notes,
                    stream,
                ):
                    found = -found
                here += 1
            if len(stream.decoder):
                value = min(max(found + guess, -item.limit), item.limit)
                codes[stage, channel, y, x] = value
            decayed = decayed * 3 // 4 + 4 * min(abs(found), 15)
            small += min(abs(codes[stage, channel, y, x]), 3)
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
