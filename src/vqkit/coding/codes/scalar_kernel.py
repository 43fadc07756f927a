"""The inner loop of the scalar coder: codes of positions in order, from each of which all that
follow learn.

It is the same text with numba and without, so the bytes are the same. Every function codes: it
encodes the number that it is given, or decodes one and pays no heed to what it is given, and gives
the number that was coded. y and x count from the border of the padded rows at hand.
"""

from __future__ import annotations

from typing import Any

from ..kernels import compiled, usable
from ..logistic import LIMIT
from ..rangecoder import BEHIND, TOTAL
from ..rangecoder_kernel import code_bit
from .scalar_state import (
    BEHIND_GROUPS,
    BEYOND,
    BORDER,
    GROUP,
    LOWEST,
    MAX_COUNT,
    MAX_EXPECTED,
    MAX_LENGTH,
    MAX_SUM,
    MOST_COUNTED,
    MOST_KNOWN,
    MOST_SUMMED,
    NUM_BESIDE,
    NUM_CONTEXTS,
    NUM_DECISIONS,
    NUM_FEATURES,
    NUM_GROUP_FEATURES,
    NUM_HERE,
    NUM_SETS,
    NUM_SHARED,
    NUM_SIGNS,
    NUM_TABLES,
    PRICE_SHIFT,
    RATE,
    SIGN,
    SOME,
    UNITS,
    Item,
    Learning,
    Stream,
    Work,
)


@compiled
def _probability(number: int, own: int, shared: int, channels: int, learning: Learning) -> int:
    """How likely a decision is 1 in the contexts that are noted, of TOTAL; entries and logits are
    noted for those who learn from it. Parameters as of `_decide`.
    """
    tables = learning.tables
    entries = learning.state.entries
    weights = learning.state.weights
    notes = learning.notes
    first = number * (channels * NUM_CONTEXTS + NUM_SHARED)
    one_set = number * (channels + NUM_SETS) + own
    other_set = number * (channels + NUM_SETS) + channels + shared
    total = 0
    for table in range(NUM_TABLES):
        entry = first + notes.contexts[table]
        logit = tables.stretch[entries[table, entry] >> 8]
        notes.entries[table] = entry
        notes.logits[table] = logit
        total += (weights[one_set, table] + weights[other_set, table]) * logit
    return tables.squash[min(max(total >> 17, -LIMIT), LIMIT - 1) + LIMIT]


@compiled
def _decide(bit: int, number: int, own: int, shared: int, channels: int, learning: Learning) -> int:
    """A decision in the contexts that are noted, which tables and weights learn from.

    number: of the decision among those of all stages. own: the channel whose weights take part.
    shared: of the weights of all channels, the set that does.
    """
    tables = learning.tables
    entries = learning.state.entries
    weights = learning.state.weights
    notes = learning.notes
    stream = learning.stream
    one_set = number * (channels + NUM_SETS) + own
    other_set = number * (channels + NUM_SETS) + channels + shared
    one = _probability(number, own, shared, channels, learning)
    bit = code_bit(bit, one, stream.data, stream.decoder, stream.encoder, stream.out)
    wanted = bit << 16
    error = wanted - one
    for table in range(NUM_TABLES):
        change = error * notes.logits[table] >> RATE
        weights[one_set, table] += change
        weights[other_set, table] += change
        entry = notes.entries[table]
        known = entries[table, entry]
        count = known & 255
        known = known >> 8
        moved = known + ((wanted - known) * tables.shares[count] >> 16)
        moved = min(max(moved, LOWEST), TOTAL - LOWEST)
        entries[table, entry] = moved << 8 | min(count + 1, MAX_COUNT)
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
def _guess(item: Item, here: int, y: int, x: int) -> int:
    """What neighbours say of a value of the first stage: the median of west, north and the plane of
    both through north-west (LOCO-I, Weinberger et al. 2000).
    """
    values = item.values
    row = item.columns * item.channels
    west = values[here - item.channels]
    north = values[here - row]
    if y == item.first:
        return west
    if x == BORDER:
        return north
    plane = west + north - values[here - row - item.channels]
    return max(min(west, north), min(max(west, north), plane))


@compiled
def _sign(value: int) -> int:
    if value == 0:
        return 0
    return 2 if value > 0 else 1


@compiled
def _add(
    out: Any, start: int, weights: Any, first_weight: int, known: Any, first: int, count: int
) -> None:
    """Add weighed numbers to so many of `out`."""
    sums = out[start : start + count]
    shares = weights[first_weight : first_weight + count]
    numbers = known[first : first + count]
    for place in range(count):
        sums[place] += shares[place] * numbers[place]


@compiled
def _expect_groups(stage: int, place: int, work: Work) -> None:
    """Note what sums of groups are expected to be, as far as other positions and stages tell.

    place: of the position among all.
    """
    item = work.item
    sums = item.sums
    totals = item.totals
    weights = work.relations.groups
    groups = item.groups
    expected = work.item.expected_sums
    width = groups + BEHIND_GROUPS
    row = item.columns * width
    here = place * width
    west = here - width
    north = here - row
    first = stage * NUM_GROUP_FEATURES * groups
    for group in range(groups):
        expected[group] = weights[first + 16 * groups + group]
    _add(expected, 0, weights, first, sums, west, groups)
    _add(expected, 0, weights, first + groups, sums, north, groups)
    _add(expected, 0, weights, first + 2 * groups, sums, north - width, groups)
    _add(expected, 0, weights, first + 3 * groups, sums, north + width, groups)
    _add(expected, 0, weights, first + 4 * groups, sums, west - width, groups)
    _add(expected, 0, weights, first + 4 * groups, sums, north - row, groups)
    for near in (west, north):
        _add(expected, 0, weights, first + 9 * groups, sums, near - 1, groups)
        _add(expected, 0, weights, first + 9 * groups, sums, near + 1, groups)
    if stage:
        before = here - item.rows * row
        total = totals[place - item.rows * item.columns]
        _add(expected, 0, weights, first + 10 * groups, sums, before, groups)
        _add(expected, 0, weights, first + 11 * groups, sums, before - 1, groups)
        _add(expected, 0, weights, first + 12 * groups, sums, before + 1, groups)
        _add(expected, 0, weights, first + 13 * groups, sums, before - width, groups)
        _add(expected, 0, weights, first + 13 * groups, sums, before + width, groups)
        _add(expected, 0, weights, first + 13 * groups, sums, before - row, groups)
        _add(expected, 0, weights, first + 13 * groups, sums, before + row, groups)
        for group in range(groups):
            expected[group] += weights[first + 14 * groups + group] * total
        if stage > 1:
            before = before - item.rows * row
            _add(expected, 0, weights, first + 15 * groups, sums, before, groups)


@compiled
def _group_level(stage: int, group: int, place: int, so_far: int, work: Work) -> int:
    """The level of what the sum of a group is expected to be.

    so_far: what groups before it sum up to.
    """
    item = work.item
    sums = item.sums
    weights = work.relations.groups
    groups = item.groups
    here = place * (groups + BEHIND_GROUPS) + group
    first = stage * NUM_GROUP_FEATURES * groups + group
    total = work.item.expected_sums[group]
    total += weights[first + 5 * groups] * sums[here - 1]
    total += weights[first + 6 * groups] * sums[here - 2]
    total += weights[first + 7 * groups] * sums[here - 3]
    total += weights[first + 8 * groups] * so_far
    return work.levels[min(total >> 1, MAX_EXPECTED)]


@compiled
def _note_some(stage: int, group: int, place: int, decayed: int, level: int, work: Work) -> None:
    """Note the contexts of the decision whether a group has values other than zero.

    level: of what its sum is expected to be.
    """
    item = work.item
    sums = item.sums
    sizes = work.sizes
    contexts = work.learning.notes.contexts
    width = item.groups + BEHIND_GROUPS
    here = place * width + group
    row = item.columns * width
    west = sums[here - width]
    north = sums[here - row]
    before = sums[here - item.rows * row] if stage else 0
    size = sizes[min(2 * (west + north) + sums[here - row + width], MAX_SUM)]
    size_here = sizes[min(decayed, MAX_SUM)]
    size_before = sizes[min(before, MAX_SUM)]
    own = group * GROUP * NUM_CONTEXTS
    shared = item.channels * NUM_CONTEXTS
    contexts[0] = own + level
    contexts[1] = own + 5 * min(west, 4) + min(north, 4)
    contexts[2] = shared + (level * 8 + min(size_here, 7)) * 4 + min(size_before, 3)
    contexts[3] = shared + (min(size, 7) * 8 + min(size_before, 7)) * 8 + min(size_here, 7)
    contexts[4] = own + size_here
    contexts[5] = own + size_before


@compiled
def _expect_magnitudes(stage: int, first: int, count: int, place: int, work: Work) -> None:
    """Note what magnitudes of the channels of a group are expected to be, as far as other
    positions and stages tell of each channel and of the group.
    """
    item = work.item
    known = item.magnitudes
    weights = work.relations.magnitudes
    channels = item.channels
    expected = work.item.expected
    row = item.columns * channels
    here = place * channels + first
    west = here - channels
    north = here - row
    at = stage * NUM_FEATURES * channels + first
    width = item.groups + BEHIND_GROUPS
    across = item.columns * width
    group = place * width + first // GROUP
    if stage:
        of_group = item.sums[group - item.rows * across]
    else:
        of_group = item.sums[group - width] + item.sums[group - across]
    for channel in range(count):
        bias = weights[at + 11 * channels + channel]
        expected[first + channel] = bias + weights[at + 10 * channels + channel] * of_group
    _add(expected, first, weights, at, known, west, count)
    _add(expected, first, weights, at + channels, known, north, count)
    _add(expected, first, weights, at + 2 * channels, known, north - channels, count)
    _add(expected, first, weights, at + 3 * channels, known, north + channels, count)
    _add(expected, first, weights, at + 4 * channels, known, west - channels, count)
    _add(expected, first, weights, at + 5 * channels, known, north - row, count)
    if stage:
        back = here - item.rows * row
        _add(expected, first, weights, at + 6 * channels, known, back, count)
        for near in (back - channels, back + channels, back - row, back + row):
            _add(expected, first, weights, at + 7 * channels, known, near, count)
        for line in (back - row, back + row):
            _add(expected, first, weights, at + 8 * channels, known, line - channels, count)
            _add(expected, first, weights, at + 8 * channels, known, line + channels, count)
        if stage > 1:
            back = back - item.rows * row
            _add(expected, first, weights, at + 9 * channels, known, back, count)


@compiled
def _magnitude_level(stage: int, channel: int, place: int, work: Work) -> int:
    """The level of what the magnitude of a number is expected to be."""
    item = work.item
    known = item.magnitudes
    weights = work.relations.magnitudes
    partners = work.relations.partners
    channels = item.channels
    row = item.columns * channels
    here = place * channels
    first = (stage * NUM_FEATURES + 12) * channels + channel
    first_partner = (stage * channels + channel) * (NUM_HERE + NUM_BESIDE)
    total = work.item.expected[channel]
    for number in range(NUM_HERE):
        other = here + partners[first_partner + number]
        total += weights[first + number * channels] * known[other]
    for number in range(NUM_HERE, NUM_HERE + NUM_BESIDE):
        other = here + partners[first_partner + number]
        beside = known[other - channels] + known[other - row]
        total += weights[first + number * channels] * beside
    return work.levels[min(total >> 2, MAX_EXPECTED)]


@compiled
def _note_magnitude(
    stage: int, channel: int, place: int, decayed: int, expected: int, due: int, work: Work
) -> int:
    """Note the contexts of the decisions on a magnitude; the shared set of weights.

    expected: half the level of the sum of its group. due: 0 where the group has shown a value other
    than zero or need not, 1 or 2 in its first and second half.
    """
    item = work.item
    known = item.magnitudes
    sizes = work.sizes
    contexts = work.learning.notes.contexts
    channels = item.channels
    row = item.columns * channels
    here = place * channels + channel
    size_here = sizes[min(decayed, MAX_SUM)]
    own = channel * NUM_CONTEXTS
    shared = channels * NUM_CONTEXTS
    before = 0
    if stage:
        back = here - item.rows * row
        before = min(known[back], 3)
        if stage > 1 and known[back - item.rows * row]:
            before = max(before, 2)
        cross = known[back - channels] + known[back + channels]
        cross += known[back - row] + known[back + row]
        corners = known[back - row - channels] + known[back - row + channels]
        corners += known[back + row - channels] + known[back + row + channels]
        contexts[5] = own + 4 * min(sizes[min(2 * cross + corners, MAX_SUM)], 7) + before
    else:
        around = item.totals[place - 1] + item.totals[place - item.columns]
        contexts[5] = own + sizes[min(around, MAX_SUM)]
    level = _magnitude_level(stage, channel, place, work)
    contexts[0] = own + level
    contexts[1] = own + 4 * min(known[here - channels], 3) + min(known[here - row], 3)
    contexts[2] = shared + (level * 8 + min(size_here, 7)) * 4 + before
    contexts[3] = shared + (level * 16 + expected) * 2 + min(due, 1)
    contexts[4] = own + 2 * expected + min(before, 1)
    return (level >> 1) + 16 * due + 48 * min(before, 2)


@compiled
def _sign_at(which: int, channel: int, position: int, back: int, row: int, item: Any) -> int:
    """The sign at a place that goes with a channel: site * C + channel.

    position: of the first channel there. back: numbers from a stage to the one before, 0 in the
    first. row: from one row to the next. item: values and channels.
    """
    values, channels = item
    site = which // channels
    other = which % channels
    at = position + other
    if site == 0:
        return _sign(values[at]) if other < channel else 0
    if site == 1:
        return _sign(values[at - channels])
    if site == 2:
        return _sign(values[at - row])
    if back == 0:
        return 0
    at -= back
    if site == 3:
        return _sign(values[at - channels])
    if site == 4:
        return _sign(values[at - row])
    if site == 5:
        return _sign(values[at + channels])
    return _sign(values[at + row])


@compiled
def _note_sign(stage: int, channel: int, place: int, work: Work) -> None:
    """Note the contexts of the decision on a sign."""
    item = work.item
    values = item.values
    contexts = work.learning.notes.contexts
    channels = item.channels
    row = item.columns * channels
    position = place * channels
    here = position + channel
    west = _sign(values[here - channels])
    north = _sign(values[here - row])
    corner = _sign(values[here - row - channels])
    before = 0
    first = 0
    east = 0
    south = 0
    if stage:
        back = here - item.rows * row
        before = _sign(values[back])
        east = _sign(values[back + channels])
        south = _sign(values[back + row])
        if stage > 1:
            first = _sign(values[back - item.rows * row])
    own = channel * NUM_CONTEXTS
    signs = work.relations.signs
    step = item.rows * row if stage else 0
    contexts[0] = own + 9 * west + 3 * north + corner
    contexts[1] = own + 9 * before + 3 * west + north
    contexts[2] = own + 9 * before + 3 * first + east
    contexts[3] = own + 3 * before + south
    for pair in range(2):
        at = (stage * channels + channel) * NUM_SIGNS + 2 * pair
        one = _sign_at(signs[at], channel, position, step, row, (values, channels))
        other = _sign_at(signs[at + 1], channel, position, step, row, (values, channels))
        contexts[4 + pair] = own + 9 * one + 3 * other + before


@compiled
def _price(bit: int, one: int, work: Work) -> int:
    """What a decision costs that is 1 with probability `one`: its bits, as a squared error."""
    choice = work.choice
    return choice.weight * choice.bits[(one if bit else TOTAL - one) >> PRICE_SHIFT] >> 8


@compiled
def _price_of_number(
    number: int, least: int, stage: int, channel: int, shared: int, work: Work
) -> int:
    """What a number costs in the contexts that are noted, as `_code_number` codes it; a bit for the
    sign.
    """
    magnitude = abs(number)
    channels = work.item.channels
    learning = work.learning
    first = stage * NUM_DECISIONS
    price = work.choice.weight if magnitude else 0
    found = least
    while found < MOST_COUNTED:
        one = _probability(first + min(found, BEYOND), channel, shared, channels, learning)
        if magnitude <= found:
            return price + _price(0, one, work)
        price += _price(1, one, work)
        found += 1
    beyond = magnitude - MOST_COUNTED + 1
    while beyond:
        price += 2 * work.choice.weight
        beyond >>= 1
    return price - work.choice.weight


@compiled
def _wanted(channel: int, place: int, work: Work) -> int:
    """The value that is wanted at a place, in units of a step's UNITS-th."""
    return work.choice.wanted[place * work.item.channels + channel - work.choice.first]


@compiled
def _choose_number(
    least: int, stage: int, channel: int, place: int, guess: int, shared: int, work: Work
) -> int:
    """The number that costs least, of the value nearest to the one that is wanted, the next toward
    zero, and zero; what it costs is added to what is noted.
    """
    limit = work.item.limit
    wanted = _wanted(channel, place, work)
    nearest = min(max((wanted + UNITS // 2) // UNITS, -limit), limit)
    best = 0
    best_cost = -1
    for which in range(3):
        value = 0
        if which == 1 and nearest:
            value = nearest - 1 if nearest > 0 else nearest + 1
        if which == 2:
            value = nearest
        number = value - guess
        if abs(number) < least:
            continue
        error = wanted - value * UNITS
        price = _price_of_number(number, least, stage, channel, shared, work)
        if best_cost < 0 or error * error + price < best_cost:
            best = number
            best_cost = error * error + price
    if best_cost < 0:
        # The last of a group that has a value other than zero.
        best = 1 if wanted > 0 else -1
        error = wanted - best * UNITS
        best_cost = error * error + work.choice.weight
    work.choice.cost[0] += best_cost
    return best


@compiled
def _choose_some(stage: int, group: int, place: int, decayed: int, level: int, work: Work) -> int:
    """Whether a group costs less with values other than zero than without. Nothing learns from it.

    level: of what its sum is expected to be.
    """
    item = work.item
    channels = item.channels
    cost = work.choice.cost
    first = group * GROUP
    last = min(first + GROUP, channels) - 1
    without = 0
    largest = 0
    for channel in range(first, last + 1):
        wanted = _wanted(channel, place, work)
        without += wanted * wanted
        largest = max(largest, abs(wanted))
    if largest <= UNITS // 2:
        return 0
    _note_some(stage, group, place, decayed, level, work)
    number = stage * NUM_DECISIONS + SOME
    one = _probability(number, first, level >> 1, channels, work.learning)
    without += _price(0, one, work)
    cost[0] = _price(1, one, work)
    _expect_magnitudes(stage, first, last + 1 - first, place, work)
    is_due = True
    for channel in range(first, last + 1):
        due = 0
        if is_due:
            due = 1 if channel - first < GROUP // 2 else 2
        least = 1 if is_due and channel == last else 0
        shared = _note_magnitude(stage, channel, place, decayed, level >> 1, due, work)
        size = abs(_choose_number(least, stage, channel, place, 0, shared, work))
        if size:
            is_due = False
        item.magnitudes[place * channels + channel] = min(size, MOST_KNOWN)
        decayed = decayed * 3 // 4 + 4 * min(size, 15)
    for channel in range(first, last + 1):
        item.magnitudes[place * channels + channel] = 0
    return 1 if cost[0] < without else 0


@compiled
def _code_number(
    value: int,
    least: int,
    stage: int,
    channel: int,
    place: int,
    decayed: int,
    expected: int,
    due: int,
    guess: int,
    work: Work,
) -> int:
    """A signed number: its magnitude, which is `least` or more, then its sign. guess: what it is
    the difference to.
    """
    shared = _note_magnitude(stage, channel, place, decayed, expected, due, work)
    if stage == work.choice.stage:
        value = _choose_number(least, stage, channel, place, guess, shared, work)
    magnitude = abs(value)
    channels = work.item.channels
    first = stage * NUM_DECISIONS
    found = least
    while found < MOST_COUNTED:
        bit = 1 if magnitude > found else 0
        if not _decide(bit, first + min(found, BEYOND), channel, shared, channels, work.learning):
            break
        found += 1
    if found == MOST_COUNTED:
        found += _code_beyond(magnitude - MOST_COUNTED, work.learning.stream)
    if not found:
        return 0
    _note_sign(stage, channel, place, work)
    if _decide(1 if value > 0 else 0, first + SIGN, channel, 0, channels, work.learning):
        return found
    return -found


@compiled
def _code_group(
    stage: int, first: int, y: int, x: int, place: int, decayed: int, expected: int, work: Work
) -> int:
    """The values of a group that has one other than zero, or is the first; how much of them goes on
    to the next. It sets the group's sum.
    """
    item = work.item
    channels = item.channels
    last = min(first + GROUP, channels) - 1
    # A group with values other than zero, of which none has come, has one in the end.
    is_due = first > 0
    total = 0
    _expect_magnitudes(stage, first, last + 1 - first, place, work)
    for channel in range(first, last + 1):
        here = place * channels + channel
        guess = 0
        if stage == 0 and item.predicted[channel]:
            guess = _guess(item, here, y, x)
        due = 0
        if is_due:
            due = 1 if channel - first < GROUP // 2 else 2
        least = 1 if is_due and channel == last else 0
        number = item.values[here] - guess
        number = _code_number(
            number, least, stage, channel, place, decayed, expected, due, guess, work
        )
        if number:
            is_due = False
        size = abs(number)
        item.values[here] = min(max(number + guess, -item.limit), item.limit)
        item.magnitudes[here] = min(size, MOST_KNOWN)
        decayed = decayed * 3 // 4 + 4 * min(size, 15)
        total += min(size, MOST_SUMMED)
    item.sums[place * (item.groups + BEHIND_GROUPS) + first // GROUP] = total
    return decayed


@compiled
def _code_position(stage: int, y: int, x: int, work: Work) -> None:
    """The values of a stage at one position, all channels."""
    item = work.item
    channels = item.channels
    groups = item.groups
    place = (stage * item.rows + y) * item.columns + x
    decayed = 0
    so_far = 0
    if groups > 1:
        _expect_groups(stage, place, work)
    for group in range(groups):
        first = group * GROUP
        expected = 0
        if group:
            some = 0
            for channel in range(first, min(first + GROUP, channels)):
                if item.values[place * channels + channel] != 0:
                    some = 1
            level = _group_level(stage, group, place, so_far, work)
            if stage == work.choice.stage:
                some = _choose_some(stage, group, place, decayed, level, work)
            _note_some(stage, group, place, decayed, level, work)
            number = stage * NUM_DECISIONS + SOME
            if not _decide(some, number, first, level >> 1, channels, work.learning):
                if stage == work.choice.stage:
                    for channel in range(first, min(first + GROUP, channels)):
                        item.values[place * channels + channel] = 0
                decayed = decayed >> 2
                continue
            expected = level >> 1
        decayed = _code_group(stage, first, y, x, place, decayed, expected, work)
        so_far += item.sums[place * (groups + BEHIND_GROUPS) + group]
    item.totals[place] = so_far


@compiled
def code_part(stage: int, top: int, bottom: int, left: int, right: int, work: Work) -> None:
    """The codes of a stage in rows `top` up to `bottom`, of each the columns `left` up to `right`.

    It stops behind a position for which the bytes were too few.
    """
    stream = work.learning.stream
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
