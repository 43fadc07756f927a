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
def _moved(known: int, count: int, bit: int, tables: Tables) -> int:
    """A probability behind a bit, by how often it was seen."""
    return known + (((bit << FINE) - known) * tables.shares[count] >> 16)


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
    inputs = noted.inputs
    maps = learnt.maps
    word = noted.position[0]
    before = noted.position[1]
    pointer = noted.position[2]
    length = noted.position[3]
    for at in range(start, end):
        _set_hashes(text, at, word, before, noted)
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
        expected = text[pointer] | 256 if length else 0
        node = 1
        byte = text[at]
        for place in range(7, -1, -1):
            if place == 7 or place == 3:
                _enter(node, tables, learnt, noted)
                inner = 1
            # Predict.
            known_orders = 0
            for context in range(NUM_CONTEXTS):
                state = learnt.buckets[noted.places[context] + inner]
                if state:
                    one = maps[(context * 256 + state) * 2] >> (FINE - 16)
                    one = min(max(one, 1), 65535)
                    inputs[2 * context] = tables.stretch[one]
                    inputs[2 * context + 1] = (one - 32768) >> 4
                    if context < NUM_ORDERS:
                        known_orders = context + 1
                else:
                    inputs[2 * context] = 0
                    inputs[2 * context + 1] = 0
            likely = 0
            matching = length > 0 and (expected >> (place + 1)) == node
            if matching:
                likely = expected >> place & 1
                one = learnt.matches[2 * length] >> (FINE - 16)
                one = min(max(one, 1), 65535)
                logit = tables.stretch[one]
                linear = (one - 32768) >> 4
                inputs[2 * NUM_CONTEXTS] = logit if likely else -logit
                inputs[2 * NUM_CONTEXTS + 1] = linear if likely else -linear
            else:
                inputs[2 * NUM_CONTEXTS] = 0
                inputs[2 * NUM_CONTEXTS + 1] = 0
            inputs[NUM_INPUTS - 1] = 256
            of_match = 0
            if matching:
                of_match = 1 + min(length - 1, 27) // 4
                of_match = min(of_match, 7)
            first = node * NUM_INPUTS
            second = (known_orders * 8 + of_match) * NUM_INPUTS
            total = 0
            other_total = 0
            for number in range(NUM_INPUTS):
                total += learnt.by_node[first + number] * inputs[number]
                other_total += learnt.by_match[second + number] * inputs[number]
            logit = min(max(total >> 16, -LIMIT), LIMIT - 1)
            other_logit = min(max(other_total >> 16, -LIMIT), LIMIT - 1)
            one = tables.squash[logit + LIMIT]
            other_one = tables.squash[other_logit + LIMIT]
            mixed = (logit + other_logit) >> 1
            one_mixed = tables.squash[mixed + LIMIT]
            # What the result means here, between two places along it.
            along = mixed + STEP * (STEPS // 2)
            step = along // STEP
            share = along % STEP
            at_final = (node * STEPS + step) * 2
            if step >= STEPS - 1:
                at_final -= 2
                share = STEP
            corrected = (
                learnt.final[at_final] * (STEP - share) + learnt.final[at_final + 2] * share
            ) // STEP >> (FINE - 16)
            final = (one_mixed + corrected) >> 1
            final = min(max(final, 1), 65535)
            bit = byte >> place & 1
            if len(decoder) or len(encoder):
                bit = code_bit(bit, final, data, decoder, encoder, out)
            # Learn.
            error = (bit << 16) - one
            other_error = (bit << 16) - other_one
            for number in range(NUM_INPUTS):
                weight = learnt.by_node[first + number] + (error * inputs[number] >> RATE)
                learnt.by_node[first + number] = min(max(weight, -MAX_WEIGHT), MAX_WEIGHT)
                weight = learnt.by_match[second + number] + (other_error * inputs[number] >> RATE)
                learnt.by_match[second + number] = min(max(weight, -MAX_WEIGHT), MAX_WEIGHT)
            near = at_final + 2 if share * 2 > STEP else at_final
            learnt.final[near] = _moved(learnt.final[near], learnt.final[near + 1], bit, tables)
            learnt.final[near + 1] = min(learnt.final[near + 1] + 1, MAX_COUNT)
            if matching:
                right = 1 if bit == likely else 0
                known = learnt.matches[2 * length]
                count = learnt.matches[2 * length + 1]
                learnt.matches[2 * length] = _moved(known, count, right, tables)
                learnt.matches[2 * length + 1] = min(count + 1, MAX_COUNT)
            for context in range(NUM_CONTEXTS):
                spot = noted.places[context] + inner
                state = learnt.buckets[spot]
                entry = (context * 256 + state) * 2
                maps[entry] = _moved(maps[entry], maps[entry + 1], bit, tables)
                maps[entry + 1] = min(maps[entry + 1] + 1, MAX_COUNT)
                learnt.buckets[spot] = tables.next[2 * state + bit]
            node = node * 2 + bit
            inner = inner * 2 + bit
        byte = node & 255
        text[at] = byte
        if _is_letter(byte):
            word = _onto(word, byte | 32 if byte < 128 else byte)
        elif word:
            before = word
            word = 0
        if len(decoder) and decoder[2] > len(data) + BEHIND:
            break
    noted.position[0] = word
    noted.position[1] = before
    noted.position[2] = pointer
    noted.position[3] = length
