"""How many of the codes are used, from wherever there is enough to tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .summary import RunSummary
from .wording import finite

# Images of a split that can show codes to be unused: codes of one image are alike, so that few
# images hold few of them.
ENOUGH_IMAGES = 100
# Share of the codes that must be used.
ENOUGH_USAGE = 0.90
# The same with a bit rate in the choice of codes, which uses them unevenly by intention.
RATED_USAGE = 0.50
EVALUATED, TRAINING = "in the evaluated split", "in the last steps of training"


@dataclass(frozen=True)
class Usage:
    """Shares of the codes of each codebook that occur, their mean, what uniform draws would reach,
    and where.
    """

    shares: tuple[float, ...]
    mean: float
    reachable: float
    where: str
    wanted: float

    @property
    def lowest(self) -> float:
        return min(self.shares)

    @property
    def weak(self) -> list[int]:
        """Codebooks with too few codes in use, from 0, the weakest first."""
        low = [index for index, one in enumerate(self.shares) if one < self.wanted * self.reachable]
        return sorted(low, key=self.shares.__getitem__)


def has_codes(summary: RunSummary) -> bool:
    return bool(_counts(summary)) or finite(summary.metrics.get("usage")) is not None


def usage_of(summary: RunSummary) -> Usage | None:
    """Usage on the evaluated split; on the last steps of training where that split is small and
    lacks codes.

    None where there are no codes, and where neither can tell.
    """
    if not has_codes(summary):
        return None
    wanted = RATED_USAGE if summary.weighs_bits else ENOUGH_USAGE
    rows, images = _counts(summary), finite(summary.metrics.get("items"))
    shares = [float((row > 0).mean()) for row in rows] or [float(summary.metrics["usage"])]
    evaluated = Usage(
        tuple(shares), sum(shares) / len(shares), reachable_usage(rows), EVALUATED, wanted
    )
    if images is None or images >= ENOUGH_IMAGES or not evaluated.weak:
        return evaluated
    trained = [
        row
        for row in summary.history
        if row.get("split") == "train" and finite(row.get("usage")) is not None
    ]
    if not trained:
        return None
    last = trained[-1]
    each = [
        value
        for index in range(len(rows))
        if (value := finite(last.get(f"usage/{index}"))) is not None
    ]
    window = (
        [row * (summary.window_images / images) for row in rows] if summary.window_images else []
    )
    mean = float(last["usage"])
    return Usage(tuple(each or [mean]), mean, reachable_usage(window), TRAINING, wanted)


def reachable_usage(code_counts: Sequence[np.ndarray]) -> float:
    """Usage that uniformly drawn codes would reach: 1 - exp(-draws / K) where draws are few, else
    1.
    """
    ratio = min((float(row.sum()) / len(row) for row in code_counts), default=math.inf)
    return 1.0 if ratio >= 5 else 1 - math.exp(-ratio)


def _counts(summary: RunSummary) -> list[np.ndarray]:
    return [] if summary.code_counts is None else list(summary.code_counts)
