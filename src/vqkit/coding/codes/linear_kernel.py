"""A linear prediction of values that learns from each of them, and a distribution around it.

Weighed least squares over all values of a stage so far, of which older ones count less: their
normal equations are kept as integers, and after each value every weight is set once to what solves
its own equation beside the others as they are (Gauss and Seidel). A value counts the less, the
further its surroundings were from what was predicted. docs/file-format.md has it in full. It is the
same text with numba and without, as `mixing_kernel` is.

Moments stay below 2^37 (a difference is below 2^8, a value counts 2^11 at most, and 2^10 of them
are remembered), weights within 2^18, and neighbours are 51 at most: all sums are below 2^62.
"""

from __future__ import annotations

from typing import Any

from ..kernels import compiled
from ..logistic import LIMIT
from .mixing_state import BORDER, LEAST_DEVIATION, NUM_DEVIATIONS, Linear, Tables

# What is added to a square moment, so that the equations have one solution.
_RIDGE = 2048
# Of 65536: largest weight of a neighbour.
_MOST = 1 << 18
# Bits that moments lose with every value.
_FORGET = 10
# Values that a mean deviation is taken over: 2^6.
_MEAN = 6


@compiled
def _middle(padded: Any, channel: int, y: int, x: int) -> int:
    """What the neighbours in a channel are measured from: the mean of west and north."""
    west = padded[channel, y, x - 1]
    north = padded[channel, y - 1, x]
    if y == BORDER:
        return west
    if x == BORDER:
        return north
    return (west + north) >> 1


@compiled
def _digits(number: int) -> int:
    """Binary digits."""
    found = 0
    while number:
        number >>= 1
        found += 1
    return found


@compiled
def predict_value(padded: Any, stage: int, y: int, x: int, linear: Linear) -> None:
    """Note what is said of the slot at y, x of `padded`."""
    num = len(linear.given)
    bottom = padded.shape[1] - BORDER
    end = padded.shape[2] - BORDER
    from_value = _middle(padded, stage, y, x)
    total = from_value << 16
    for number in range(num):
        channel = stage + linear.around[number, 0]
        row = y + linear.around[number, 1]
        column = x + linear.around[number, 2]
        given = 0
        if BORDER <= row < bottom and BORDER <= column < end:
            given = padded[channel, row, column] - _middle(padded, channel, y, x)
        linear.given[number] = given
        total += linear.weights[number] * given
    here = y & 1
    above = 1 - here
    errors = linear.errors
    near = (
        2 * (errors[here, x - 1] + errors[above, x]) + errors[above, x - 1] + errors[above, x + 1]
    )
    kind = min(max(_digits(near * near) - 4, 0), NUM_DEVIATIONS - 1)
    linear.noted[0] = from_value
    linear.noted[1] = min(max(total >> 13, 0), 8 * 255)
    linear.noted[2] = (1 << 27) // linear.deviations[kind]
    linear.noted[3] = kind


@compiled
def value_below(level: int, tables: Tables, linear: Linear) -> int:
    """What lies below a level, of 2^24: the logistic distribution around the prediction, and a
    little of every level.

    With the mean deviation a, odds double twice in each a: the mean of abs(x) under a logistic
    distribution of scale s is 2 s ln 2.
    """
    if level == 0:
        return 0
    if level == 256:
        return 1 << 24
    logit = ((8 * level - 4 - linear.noted[1]) * linear.noted[2]) >> 12
    return tables.squash[min(max(logit, -LIMIT), LIMIT - 1) + LIMIT] * 255 + (level << 8)


@compiled
def learn_value(value: int, y: int, x: int, linear: Linear) -> None:
    """Learn from the value of the slot that was predicted last."""
    kind = linear.noted[3]
    error = abs(8 * value - linear.noted[1])
    linear.errors[y & 1, x] = error
    known = linear.deviations[kind]
    linear.deviations[kind] = max(known + error - (known >> _MEAN), LEAST_DEVIATION)
    importance = linear.noted[2] >> 10
    target = value - linear.noted[0]
    num = len(linear.given)
    for row in range(num):
        scaled = linear.given[row] * importance
        known = linear.targets[row]
        linear.targets[row] = known + scaled * target - (known >> _FORGET)
        for place in range(row * num, row * num + num):
            known = linear.moments[place]
            product = scaled * linear.given[place - row * num]
            linear.moments[place] = known + product - (known >> _FORGET)
    for row in range(num):
        rest = linear.targets[row] << 16
        for column in range(num):
            rest -= linear.moments[row * num + column] * linear.weights[column]
        moved = linear.weights[row] + rest // (linear.moments[row * num + row] + _RIDGE)
        linear.weights[row] = min(max(moved, -_MOST), _MOST)
