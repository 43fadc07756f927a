"""What tells of a number of the scalar coder: the channels that go with it, and how much each of
its neighbours counts. Fitted to items in floating point, kept as integers.

Shapes: S stages, C channels, G groups, P positions of all items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scalar_state import (
    BORDER,
    GROUP,
    MAX_FACTOR,
    MOST_KNOWN,
    MOST_SUMMED,
    NUM_BESIDE,
    NUM_FEATURES,
    NUM_GROUP_FEATURES,
    NUM_HERE,
    NUM_SIGNS,
    Relations,
    relation_shapes,
)

Floats = NDArray[np.float32]
# Positions that relations are fitted to, at most.
MAX_POSITIONS = 1 << 13
# Of an expectation of one.
ONE = 4096
# Channels that are fitted together: features of them take 1 MB a channel.
_TOGETHER = 32
# Rows and columns of neighbours in the same stage that an expectation is made of.
_PAST = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0))
_CROSS = ((0, -1), (0, 1), (-1, 0), (1, 0))
_CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def first_relations(num_stages: int, channels: int) -> Relations:
    """Before anything was seen: neighbours in the channel itself, and the group."""
    shapes = relation_shapes(num_stages, channels)
    found = Relations(**{name: np.zeros(shape, np.int32) for name, shape in shapes.items()})
    # West, north, and half as much around them; the stage before.
    around = np.array([[2], [2], [1], [1], [1], [1]]) * (ONE >> 3)
    found.magnitudes[:, :6] = around
    found.magnitudes[:, 6] = ONE >> 2
    found.magnitudes[:, 11] = ONE >> 5
    found.groups[:, :6] = around
    found.groups[:, 10] = ONE >> 3
    found.groups[:, 16] = ONE >> 5
    return found


def fitted_relations(values: Sequence[Any], numbers: Sequence[Any]) -> Relations:
    """Relations of items (S, C, rows, columns): of their values, and of the numbers that are coded
    in their place.
    """
    enough = 0
    positions = 0
    while enough < len(values) and positions < MAX_POSITIONS:
        positions += values[enough][0, 0].size
        enough += 1
    num_stages, channels = values[0].shape[:2]
    known = [
        _Planes([np.minimum(abs(one), MOST_KNOWN) for one in numbers[:enough]], stage)
        for stage in range(num_stages)
    ]
    signs = [_Planes([np.sign(one) for one in values[:enough]], s) for s in range(num_stages)]
    found = first_relations(num_stages, channels)
    for stage in range(num_stages):
        found.signs[stage] = _sign_partners(signs[: stage + 1])
        found.groups[stage] = _group_weights(known[: stage + 1])
        _fit_magnitudes(known[: stage + 1], found.partners[stage], found.magnitudes[stage])
    return found


class _Planes:
    """A stage of all items, small integers, with zeros around each."""

    def __init__(self, items: Sequence[Any], stage: int) -> None:
        around = ((0, 0), (BORDER, BORDER), (BORDER, BORDER))
        self._padded = [np.pad(item[stage], around) for item in items]

    def at(self, row: int, column: int) -> Floats:
        """(C, P): the numbers so far from each position."""
        parts = []
        for one in self._padded:
            rows = one.shape[1] - 2 * BORDER
            columns = one.shape[2] - 2 * BORDER
            top = BORDER + row
            left = BORDER + column
            part = one[:, top : top + rows, left : left + columns]
            parts.append(part.reshape(len(one), -1))
        return np.concatenate(parts, 1).astype(np.float32)

    def sum(self, places: Sequence[tuple[int, int]]) -> Floats:
        """(C, P): the sum of several such."""
        return np.sum([self.at(*place) for place in places], 0, np.float32)

    def groups(self, places: Sequence[tuple[int, int]]) -> Floats:
        """(G, P): that of small magnitudes, in each group."""
        small = np.sum([np.minimum(self.at(*place), MOST_SUMMED) for place in places], 0)
        missing = -len(small) % GROUP
        padded = np.pad(small, ((0, missing), (0, 0)))
        return padded.reshape(-1, GROUP, small.shape[1]).sum(1, dtype=np.float32)


def _sign_partners(stages: Sequence[_Planes]) -> NDArray[np.int64]:
    """(C, NUM_SIGNS): the sites and channels whose signs agree or disagree most surely."""
    own = stages[-1].at(0, 0)
    channels = len(own)
    sites = [own, stages[-1].at(0, -1), stages[-1].at(-1, 0)]
    if len(stages) > 1:
        sites += [stages[-2].at(*place) for place in ((0, -1), (-1, 0), (0, 1), (1, 0))]
    surely = []
    for site, signs in enumerate(sites):
        agree = abs(own @ signs.T)
        both = abs(own) @ abs(signs).T
        found = agree / np.sqrt(both + 20)
        if site == 0:
            found = np.tril(found, -1)
        elif site < 3:
            # West and north in the channel itself are contexts anyway.
            np.fill_diagonal(found, 0)
        surely.append(found)
    order = np.argsort(-np.concatenate(surely, 1), 1, kind="stable")
    # What tells nothing is the channel itself, of which nothing is known.
    best = np.repeat(np.arange(channels)[:, None], NUM_SIGNS, 1)
    width = min(NUM_SIGNS, order.shape[1])
    best[:, :width] = order[:, :width]
    return best


def _group_weights(stages: Sequence[_Planes]) -> NDArray[np.int64]:
    """(NUM_GROUP_FEATURES, G)."""
    own = stages[-1].groups([(0, 0)])
    groups, positions = own.shape
    empty = np.zeros((3, positions), np.float32)

    def lagged(sums: Floats, lag: int) -> Floats:
        """Those of the group so many before."""
        return np.concatenate([empty, sums, empty])[3 - lag : 3 - lag + groups]

    past = [stages[-1].groups([place]) for place in _PAST[:4]]
    past.append(stages[-1].groups(_PAST[4:]))
    near = past[0] + past[1]
    features = [*past, *(lagged(own, lag) for lag in (1, 2, 3)), np.cumsum(own, 0) - own]
    features.append(lagged(near, 1) + lagged(near, -1))
    before = stages[-2].groups([(0, 0)]) if len(stages) > 1 else np.zeros_like(own)
    cross = stages[-2].groups(_CROSS) if len(stages) > 1 else np.zeros_like(own)
    first = stages[-3].groups([(0, 0)]) if len(stages) > 2 else np.zeros_like(own)
    whole = np.broadcast_to(before.sum(0), own.shape)
    features += [before, lagged(before, 1), lagged(before, -1), cross, whole, first]
    features.append(np.ones_like(own))
    assert len(features) == NUM_GROUP_FEATURES
    return _as_integers(_regress(np.stack(features, 2), own)[0]).T


def _fit_magnitudes(stages: Sequence[_Planes], partners: Any, weights: Any) -> None:
    """Set partners (C, NUM_HERE + NUM_BESIDE) and weights (NUM_FEATURES, C) of the last stage."""
    own = stages[-1].at(0, 0)
    near = stages[-1].sum(_PAST[:2])
    past = [stages[-1].at(*place) for place in _PAST]
    if len(stages) > 1:
        past += [stages[-2].at(0, 0), stages[-2].sum(_CROSS), stages[-2].sum(_CORNERS)]
        sums = stages[-2].groups([(0, 0)])
    else:
        past += [np.zeros_like(own)] * 3
        sums = stages[-1].groups(_PAST[:2])
    past.append(stages[-3].at(0, 0) if len(stages) > 2 else np.zeros_like(own))
    past += [np.repeat(sums, GROUP, 0)[: len(own)], np.ones_like(own)]
    for first in range(0, len(own), _TOGETHER):
        part = slice(first, first + _TOGETHER)
        wanted = own[part]
        features = np.stack([one[part] for one in past], 2)
        expected = _regress(features, wanted)[1]
        scale = 1 / np.sqrt(expected + 0.02)
        # What is not explained yet chooses the partners.
        rest = (wanted - expected) * scale**2
        number = np.arange(first, first + len(wanted))[:, None]
        here = _best(rest, own, np.arange(len(own)) < number, NUM_HERE)
        beside = _best(rest, near, np.arange(len(own)) != number, NUM_BESIDE)
        chosen = np.concatenate(
            [own[here[0]] * here[1][..., None], near[beside[0]] * beside[1][..., None]], 1
        )
        features = np.concatenate([features, chosen.transpose(0, 2, 1)], 2)
        assert features.shape[2] == NUM_FEATURES
        weights[:, part] = _as_integers(_regress(features, wanted)[0]).T
        partners[part] = np.concatenate([here[0], beside[0]], 1)


def _best(rest: Floats, others: Floats, allowed: Any, count: int) -> tuple[Any, Any]:
    """The channels (n, count) that go best with what is not explained (n, P), of those allowed
    (n, C), and whether each does at all; channel 0 where it does not.
    """
    centred = others - others.mean(1, keepdims=True)
    spread = np.sqrt((centred**2).sum(1)) + 1e-6
    found = np.where(allowed, rest @ centred.T / spread, 0)
    found = np.pad(found, ((0, 0), (0, max(0, count - found.shape[1]))))
    order = np.argsort(-found, 1, kind="stable")[:, :count]
    is_good = np.take_along_axis(found, order, 1) > 0
    return np.where(is_good, order, 0), is_good


def _regress(features: Floats, wanted: Floats) -> tuple[Any, Any]:
    """Weights (n, F) of features (n, P, F), none below zero, whose sum is nearest to numbers
    (n, P), and that sum.

    Squared errors count less where the sum is large, as they are larger there.
    """
    count = features.shape[2]
    weights = np.zeros((len(features), count))
    expected = np.broadcast_to(wanted.mean(1, keepdims=True), wanted.shape) + np.float32(1e-3)
    for _ in range(3):
        weighted = features * ((expected + 0.02) ** -1.5)[..., None]
        products = (weighted.transpose(0, 2, 1) @ features).astype(np.float64)
        goal = (weighted.transpose(0, 2, 1) @ wanted[..., None])[..., 0].astype(np.float64)
        diagonal = np.einsum("nff->nf", products)
        diagonal += 1e-3 * diagonal.mean(1, keepdims=True) + 1e-9
        for _ in range(40):
            for one in range(count):
                slope = goal[:, one] - (products[:, one] * weights).sum(1)
                step = slope / products[:, one, one]
                weights[:, one] = np.maximum(0, weights[:, one] + step)
        found = (features @ weights.astype(np.float32)[..., None])[..., 0]
        expected = np.maximum(found, np.float32(1e-3))
    return weights, expected


def _as_integers(weights: Any) -> NDArray[np.int64]:
    return np.round(weights * ONE).clip(0, MAX_FACTOR).astype(np.int64)
