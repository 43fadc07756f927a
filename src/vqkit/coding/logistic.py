"""The logistic function and its inverse as tables of integers, for the mixing of probabilities.

A logit is in steps of 1 / 256 of an octave: odds of 2^(l / 256). A probability is of 65536.
"""

from __future__ import annotations

import math

import numpy as np

# Steps of a logit in which odds double.
STEP = 256
# Logits lie in -LIMIT .. LIMIT - 1.
LIMIT = 16 * STEP


def _power(steps: int) -> int:
    """floor(2^(steps / 256)): eight square roots, each of which may be rounded down."""
    value = 1 << steps
    for _ in range(8):
        value = math.isqrt(value)
    return value


_OCTAVE = np.array([_power(30 * STEP - step) for step in range(STEP)], np.int64)
_STEPS = np.arange(LIMIT + 1)

# 2^30 times 2^(-i / 256), rounded down, for i up to LIMIT.
POWERS = _OCTAVE[_STEPS % STEP] >> (_STEPS // STEP)

# The probability at logit l, in place l + LIMIT.
SQUASH = np.concatenate(
    [
        (POWERS[:0:-1] << 16) // ((1 << 30) + POWERS[:0:-1]),
        (1 << 46) // ((1 << 30) + POWERS[:LIMIT]),
    ]
).clip(1, 65535)

# The lowest logit at which SQUASH reaches a probability.
STRETCH = np.searchsorted(SQUASH, np.arange(1 << 16)).clip(0, 2 * LIMIT - 1) - LIMIT
