"""The product of a vector with a matrix of integers, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from .kernels import compiled


@compiled
def multiply(vector: Any, weights: Any, at: int, sums: Any) -> int:
    """sums (O,) = vector (I,) times the matrix at a place of the flat weights; the place behind it.

    Four rows at a time, so that sums are read and written a quarter as often, and none for zeros.
    """
    width = len(sums)
    count = 0
    used = np.empty(len(vector), np.int64)
    for number in range(len(vector)):
        if vector[number] != 0:
            used[count] = number
            count += 1
    sums[:] = 0
    for first in range(0, count - 3, 4):
        i = used[first]
        j = used[first + 1]
        k = used[first + 2]
        m = used[first + 3]
        one = weights[at + i * width : at + (i + 1) * width]
        two = weights[at + j * width : at + (j + 1) * width]
        three = weights[at + k * width : at + (k + 1) * width]
        four = weights[at + m * width : at + (m + 1) * width]
        a = vector[i]
        b = vector[j]
        c = vector[k]
        d = vector[m]
        for place in range(width):
            sums[place] += (a * one[place] + b * two[place]) + (c * three[place] + d * four[place])
    for rest in range(count - count % 4, count):
        row = weights[at + used[rest] * width : at + (used[rest] + 1) * width]
        for place in range(width):
            sums[place] += vector[used[rest]] * row[place]
    return at + len(vector) * width
