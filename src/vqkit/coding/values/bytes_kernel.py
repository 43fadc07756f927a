"""Bytes in order, from each bit of which all that follow learn.

It is the same text with numba and without, so the bytes are the same.
"""

from __future__ import annotations

from typing import Any

from ..kernels import compiled
from ..logistic import LIMIT
from ..rangecoder import BEHIND
from ..rangecoder_kernel import code_bit
from .bytes_state import (
    BUCKET,
    FINE,
    FOUND_BY,
    LONGEST,
    MASK,
    MAX_COUNT,
    MAX_WEIGHT,
    MIX,
    NUM_CONTEXTS,
    NUM_INPUTS,
    NUM_ORDERS,
    RATE,
    SCATTER,
    SHORTEST,
    STEP,
    STEPS,
    Learnt,
    Noted,
    Tables,
)


@compiled
def _onto(found: int, number: int) -> int:
    """A hash that goes on with one number more."""
    return (found * MIX + number + 1) & MASK


@compiled
def _is_letter(byte: int) -> bool:
    return 97 <= byte | 32 <= 122 or byte >= 128 or 48 <= byte <= 57


@compiled
def _set_hashes(text: Any, at: int, word: int, before: int, noted: Noted) -> None:
    """Hashes of what comes before the byte at a place: word and before are of the word so far and
    of the one before it.
    """
    found = 0
    for order in range(NUM_ORDERS):
        found = _onto(found, text[at - 1 - order])
        noted.hashes[order] = _onto(found, order)
    noted.hashes[NUM_ORDERS] = _onto(word, NUM_ORDERS)
    noted.hashes[NUM_ORDERS + 1] = _onto(_onto(before, word), NUM_ORDERS + 1)


@compiled
def _enter(node: int, tables: Tables, learnt: Learnt, noted: Noted) -> None:
    """Find the buckets of all contexts for four bits more, those before them being `node`."""
    last = len(learnt.buckets) // BUCKET - 1
    for context in range(NUM_CONTEXTS):
        mixed = _onto(noted.hashes[context], node) * SCATTER & MASK
        mixed = (mixed ^ mixed >> 15) * MIX & MASK
        check = mixed & 255
        bucket = (mixed >> 8) & last
        first = bucket * BUCKET
        other = (bucket ^ 1) * BUCKET
        if learnt.buckets[first] == check:
            place = first
        elif learnt.buckets[other] == check:
            place = other
        else:
            mine = tables.totals[learnt.buckets[first + 1]]
            place = other if tables.totals[learnt.buckets[other + 1]] < mine else first
            for number in range(1, BUCKET):
                learnt.buckets[place + number] = 0
            learnt.buckets[place] = check
        noted.places[context] = place
        if len(noted.buckets):
            count = noted.buckets[0] + 1
            noted.buckets[count] = place // BUCKET
            noted.buckets[0] = count


@compiled
def _matched(text: Any, at: int, pointer: int) -> int:
    """How many bytes before two places are alike, LONGEST at most."""
    length = 0
    while (
        length < LONGEST
        and length < pointer
        and text[at - 1 - length] == text[pointer - 1 - length]
    ):
        length += 1
    return length


@compiled
def _follow(text: Any, at: int, learnt: Learnt, noted: Noted) -> int:
    """Go on with the match, or find another one; the byte that it expects, with a 1 before its
    bits, 0 without a match.
    """
    pointer = noted.position[2]
    length = noted.position[3]
    if length and text[pointer] == text[at - 1]:
        length = min(length + 1, LONGEST)
        pointer += 1
    else:
        length = 0
    slot = (noted.hashes[FOUND_BY - 1] * SCATTER & MASK) >> 8 & (len(learnt.found) - 1)
    if length == 0:
        pointer = learnt.found[slot]
        length = _matched(text, at, pointer)
        if length < SHORTEST:
            length = 0
    learnt.found[slot] = at
    if len(noted.found):
        count = noted.found[0] + 1
        noted.found[count] = slot
        noted.found[0] = count
    noted.position[2] = pointer
    noted.position[3] = length
    return text[pointer] | 256 if length else 0


@compiled
def _set_inputs(place: int, known: int, sign: int, tables: Tables, noted: Noted) -> None:
    """Two inputs of a probability, of 2^FINE, that a bit is 1; sign: -1 where it is of a 0."""
    one = min(max(known >> (FINE - 16), 1), 65535)
    noted.inputs[place] = sign * tables.stretch[one]
    noted.inputs[place + 1] = sign * ((one - 32768) >> 4)


@compiled
def _ask_contexts(inner: int, tables: Tables, learnt: Learnt, noted: Noted) -> int:
    """Inputs of all contexts; the largest order that was seen before, 0 for none."""
    order = 0
    for context in range(NUM_CONTEXTS):
        state = learnt.buckets[noted.places[context] + inner]
        if state:
            known = learnt.maps[(context * 256 + state) * 2]
            _set_inputs(2 * context, known, 1, tables, noted)
            if context < NUM_ORDERS:
                order = context + 1
        else:
            noted.inputs[2 * context] = 0
            noted.inputs[2 * context + 1] = 0
    return order


@compiled
def _mix(weights: Any, first: int, noted: Noted) -> int:
    """The logit of one mixer, whose weights begin at `first`."""
    total = 0
    for number in range(NUM_INPUTS):
        total += weights[first + number] * noted.inputs[number]
    return min(max(total >> 16, -LIMIT), LIMIT - 1)


@compiled
def _move_weights(weights: Any, first: int, error: int, noted: Noted) -> None:
    """Move the weights of one mixer towards a bit; error: 2^16 times what it was off by."""
    for number in range(NUM_INPUTS):
        weight = weights[first + number] + (error * noted.inputs[number] >> RATE)
        weights[first + number] = min(max(weight, -MAX_WEIGHT), MAX_WEIGHT)


@compiled
def _move(table: Any, place: int, bit: int, tables: Tables) -> None:
    """Move a probability, of 2^FINE, towards a bit by how often it was seen, which stands behind
    it.
    """
    known = table[place]
    count = table[place + 1]
    table[place] = known + (((bit << FINE) - known) * tables.shares[count] >> 16)
    table[place + 1] = min(count + 1, MAX_COUNT)


@compiled
def _learn_contexts(bit: int, inner: int, tables: Tables, learnt: Learnt, noted: Noted) -> None:
    """Move what is known of the states of all contexts, and go on to those behind the bit."""
    for context in range(NUM_CONTEXTS):
        spot = noted.places[context] + inner
        state = learnt.buckets[spot]
        _move(learnt.maps, (context * 256 + state) * 2, bit, tables)
        learnt.buckets[spot] = tables.next[2 * state + bit]


@compiled
def _note_byte(byte: int, noted: Noted) -> None:
    """Words behind a byte more."""
    word = noted.position[0]
    if _is_letter(byte):
        noted.position[0] = _onto(word, byte | 32 if byte < 128 else byte)
    elif word:
        noted.position[1] = word
        noted.position[0] = 0


@compiled
def code_bytes(
    text: Any,
    start: int,
    end: int,
    tables: Tables,
    learnt: Learnt,
    noted: Noted,
    data: Any,
    decoder: Any,
    encoder: Any,
    out: Any,
) -> None:
    """Bytes of `text` from one place to another: from `data` where there is a decoder, to `out`
    where there is an encoder, else learnt alone. It stops where the bytes were too few.
    """
    noted.inputs[NUM_INPUTS - 1] = 256
    for at in range(start, end):
        _set_hashes(text, at, noted.position[0], noted.position[1], noted)
        expected = _follow(text, at, learnt, noted)
        length = noted.position[3]
        node = 1
        inner = 1
        byte = text[at]
        for place in range(7, -1, -1):
            if place == 7 or place == 3:
                _enter(node, tables, learnt, noted)
                inner = 1
            order = _ask_contexts(inner, tables, learnt, noted)
            is_matching = length > 0 and (expected >> (place + 1)) == node
            likely = expected >> place & 1
            of_match = 0
            if is_matching:
                known = learnt.matches[2 * length]
                _set_inputs(2 * NUM_CONTEXTS, known, 2 * likely - 1, tables, noted)
                of_match = 1 + min(length - 1, 27) // 4
            else:
                noted.inputs[2 * NUM_CONTEXTS] = 0
                noted.inputs[2 * NUM_CONTEXTS + 1] = 0
            first = node * NUM_INPUTS
            second = (order * 8 + of_match) * NUM_INPUTS
            logit = _mix(learnt.by_node, first, noted)
            other = _mix(learnt.by_match, second, noted)
            # What their mean means here, between two places along it.
            mean = (logit + other) >> 1
            along = mean + STEP * (STEPS // 2)
            share = along % STEP
            below = (node * STEPS + along // STEP) * 2
            near = learnt.final[below] * (STEP - share) + learnt.final[below + 2] * share
            corrected = near // STEP >> (FINE - 16)
            one = (tables.squash[mean + LIMIT] + corrected) >> 1
            one = min(max(one, 1), 65535)
            bit = byte >> place & 1
            if len(decoder) or len(encoder):
                bit = code_bit(bit, one, data, decoder, encoder, out)
            wanted = bit << 16
            _move_weights(learnt.by_node, first, wanted - tables.squash[logit + LIMIT], noted)
            _move_weights(learnt.by_match, second, wanted - tables.squash[other + LIMIT], noted)
            _move(learnt.final, below + 2 if share * 2 > STEP else below, bit, tables)
            if is_matching:
                _move(learnt.matches, 2 * length, 1 if bit == likely else 0, tables)
            _learn_contexts(bit, inner, tables, learnt, noted)
            node = node * 2 + bit
            inner = inner * 2 + bit
        text[at] = node & 255
        _note_byte(node & 255, noted)
        if len(decoder) and decoder[2] > len(data) + BEHIND:
            break
