"""The inner loop of the scalar coder: codes of positions in order, from each of which all that
follow learn.

It is the same text with numba and without, so the bytes are the same. Every function codes: it
encodes the number that it is given, or decodes one and pays no heed to what it is given, and gives
the number that was coded. y and x count from the border of the padded codes.
"""

from __future__ import annotations

from typing import Any

from ..kernels import compiled, usable
from ..logistic import LIMIT
from ..rangecoder import BEHIND, TOTAL
from ..rangecoder_kernel import code_bit
from .scalar_state import (
    BEYOND,
    BORDER,
    GROUP,
    LOWEST,
    MAX_COUNT,
    MAX_LENGTH,
    MAX_SUM,
    MOST_COUNTED,
    NUM_CONTEXTS,
    NUM_DECISIONS,
    NUM_SETS,
    NUM_SHARED,
    NUM_TABLES,
    RATE,
    SIGN,
    SOME,
    Item,
    Stream,
    Work,
)


@compiled
def _decide(bit: int, stage: int, decision: int, size: int, work: Work) -> int:
    """A decision in the contexts that are noted, which tables and weights learn from.

    size: of the neighbours, which chooses the weights.
    """
    tables = work.tables
    state = work.state
    notes = work.notes
    stream = work.stream
    number = stage * NUM_DECISIONS + decision
    first = number * (work.item.codes.shape[1] * NUM_CONTEXTS + NUM_SHARED)
    weights = number * NUM_SETS + size
    total = 0
    for table in range(NUM_TABLES):
        entry = first + notes.contexts[table]
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
def _toss(bit: int, stream: Stream) -> int:
    """A bit that is 1 as often as 0."""
    half = TOTAL >> 1
    return code_bit(bit, half, stream.data, stream.decoder, stream.encoder, stream.out)


@compiled
def _code_beyond(excess: int, stream: Stream) -> int:
    """A number from 0 on, by the Elias gamma code of the number after it."""
    number = excess + 1
    length = 0
    while length < MAX_LENGTH and _toss(1 if number >> (length + 1) else 0, stream):
        length += 1
    found = 1
    for place in range(length - 1, -1, -1):
        found = found * 2 + _toss(number >> place & 1, stream)
    return found - 1


@compiled
def _guess(codes: Any, channel: int, y: int, x: int) -> int:
    """What neighbours say of a code of the first stage: the median of west, north and the plane of
    both through north-west (LOCO-I, Weinberger et al. 2000).
    """
    west = codes[0, channel, y, x - 1]
    north = codes[0, channel, y - 1, x]
    if y == BORDER:
        return west
    if x == BORDER:
        return north
    plane = west + north - codes[0, channel, y - 1, x - 1]
    return max(min(west, north), min(max(west, north), plane))


@compiled
def _sign(value: int) -> int:
    if value == 0:
        return 0
    return 2 if value > 0 else 1


@compiled
def _around_before(codes: Any, stage: int, channel: int, y: int, x: int) -> int:
    """Magnitudes around a code in the stage before, which is there in full."""
    total = 0
    for row in range(y - 1, y + 2):
        for column in range(x - 1, x + 2):
            weight = 2 if row == y or column == x else 1
            total += weight * abs(codes[stage - 1, channel, row, column])
    return total - 2 * abs(codes[stage - 1, channel, y, x])


@compiled
def _activity_around(item: Item, y: int, x: int) -> int:
    """The activity west and north of a position."""
    return item.activity[y & 1, x - 1] + item.activity[1 - (y & 1), x]


@compiled
def _note_group(stage: int, first: int, y: int, x: int, decayed: int, work: Work) -> int:
    """Note the contexts of the decision on a group; the size of its neighbours."""
    codes = work.item.codes
    sizes = work.sizes
    contexts = work.notes.contexts
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
    size = sizes[min(total, MAX_SUM)]
    size_here = sizes[min(decayed, MAX_SUM)]
    size_before = sizes[min(before, MAX_SUM)]
    own = first * NUM_CONTEXTS
    shared = codes.shape[1] * NUM_CONTEXTS
    contexts[0] = own + size
    contexts[1] = own + 5 * min(west, 4) + min(north, 4)
    contexts[2] = own + sizes[min(_activity_around(work.item, y, x), MAX_SUM)]
    contexts[3] = shared + NUM_SETS * size + size_here
    contexts[4] = own + size_here
    contexts[5] = own + size_before
    contexts[6] = shared + (min(size, 7) * 8 + min(size_before, 7)) * 8 + min(size_here, 7)
    return size


@compiled
def _note_magnitude(stage: int, channel: int, y: int, x: int, decayed: int, work: Work) -> int:
    """Note the contexts of the decisions on a magnitude; the size of its neighbours."""
    codes = work.item.codes
    sizes = work.sizes
    contexts = work.notes.contexts
    west = abs(codes[stage, channel, y, x - 1])
    north = abs(codes[stage, channel, y - 1, x])
    if stage == 0 and work.item.predicted[channel]:
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
    size = sizes[min(2 * (west + north) + far, MAX_SUM)]
    size_beside = sizes[min(beside, MAX_SUM)]
    size_here = sizes[min(decayed, MAX_SUM)]
    own = channel * NUM_CONTEXTS
    shared = codes.shape[1] * NUM_CONTEXTS
    contexts[0] = own + size
    contexts[1] = own + 4 * min(west, 3) + min(north, 3)
    contexts[2] = own + size_beside
    contexts[3] = shared + NUM_SETS * size + size_here
    contexts[4] = own + size_here
    contexts[6] = shared + (min(size, 7) * 8 + min(size_beside, 7)) * 16 + 2 * min(size_here, 7)
    if stage == 0:
        contexts[5] = own + sizes[min(_activity_around(work.item, y, x), MAX_SUM)]
        return size
    before = min(abs(codes[stage - 1, channel, y, x]), 3)
    if stage > 1 and codes[stage - 2, channel, y, x] != 0:
        before = max(before, 2)
    size_before = sizes[min(_around_before(codes, stage, channel, y, x), MAX_SUM)]
    contexts[5] = own + 4 * min(size_before, 7) + before
    contexts[6] += 1 if before else 0
    return size


@compiled
def _note_sign(stage: int, channel: int, y: int, x: int, work: Work) -> None:
    """Note the contexts of the decision on a sign, where they are others than the magnitude's."""
    codes = work.item.codes
    contexts = work.notes.contexts
    own = channel * NUM_CONTEXTS
    west = _sign(codes[stage, channel, y, x - 1])
    contexts[0] = own + 3 * west + _sign(codes[stage, channel, y - 1, x])
    contexts[1] = own + west
    contexts[5] = own + (_sign(codes[stage - 1, channel, y, x]) if stage else 0)


@compiled
def _code_number(
    value: int, least: int, stage: int, channel: int, y: int, x: int, decayed: int, work: Work
) -> int:
    """A signed number: its magnitude, which is `least` or more, then its sign."""
    size = _note_magnitude(stage, channel, y, x, decayed, work)
    magnitude = abs(value)
    found = least
    while found < MOST_COUNTED:
        bit = 1 if magnitude > found else 0
        if not _decide(bit, stage, min(found, BEYOND), size, work):
            break
        found += 1
    if found == MOST_COUNTED:
        found += _code_beyond(magnitude - MOST_COUNTED, work.stream)
    if not found:
        return 0
    _note_sign(stage, channel, y, x, work)
    if _decide(1 if value > 0 else 0, stage, SIGN, 0, work):
        return found
    return -found


@compiled
def _code_some(stage: int, first: int, y: int, x: int, decayed: int, work: Work) -> int:
    """Whether a group has codes other than zero."""
    codes = work.item.codes
    some = 0
    for channel in range(first, min(first + GROUP, codes.shape[1])):
        if codes[stage, channel, y, x] != 0:
            some = 1
    size = _note_group(stage, first, y, x, decayed, work)
    return _decide(some, stage, SOME, size, work)


@compiled
def _code_position(stage: int, y: int, x: int, work: Work) -> None:
    """The codes of a stage at one position, all channels."""
    item = work.item
    codes = item.codes
    channels = codes.shape[1]
    decayed = 0
    small = 0
    for first in range(0, channels, GROUP):
        last = min(first + GROUP, channels) - 1
        if first and not _code_some(stage, first, y, x, decayed, work):
            decayed = decayed >> 2
            continue
        # A group with codes other than zero, of which none has come, has one in the end.
        is_due = first > 0
        for channel in range(first, last + 1):
            guess = 0
            if stage == 0 and item.predicted[channel]:
                guess = _guess(codes, channel, y, x)
            number = codes[stage, channel, y, x] - guess
            least = 1 if is_due and channel == last else 0
            number = _code_number(number, least, stage, channel, y, x, decayed, work)
            if number:
                is_due = False
            value = min(max(number + guess, -item.limit), item.limit)
            codes[stage, channel, y, x] = value
            decayed = decayed * 3 // 4 + 4 * min(abs(number), 15)
            small += min(abs(value), 3)
    item.activity[y & 1, x] = small


@compiled
def code_part(stage: int, top: int, bottom: int, left: int, right: int, work: Work) -> None:
    """The codes of a stage in rows `top` up to `bottom`, of each the columns `left` up to `right`.

    It stops behind a position for which the bytes were too few.
    """
    stream = work.stream
    for y in range(top, bottom):
        for x in range(left, right):
            _code_position(stage, y, x, work)
            if len(stream.decoder) and stream.decoder[2] > len(stream.data) + BEHIND:
                return


def run(stage: int, top: int, bottom: int, left: int, right: int, work: Work) -> None:
    """`code_part` of arrays.

    Without numba, of views of them that give plain numbers, with which Python is faster.
    """
    code_part(stage, top, bottom, left, right, work if usable() else _view(work))


def _view(group: Any) -> Any:
    """Memory views are of one or more dimensions with plain numbers in them."""
    if isinstance(group, tuple):
        return type(group)(*map(_view, group))
    return memoryview(group) if hasattr(group, "shape") else group
