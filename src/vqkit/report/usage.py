"""How many of the codes are used, from wherever there is enough to tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
EVALUATED = "in the evaluated split"
TRAINING = "in the last steps of training"


@dataclass(frozen=True)
class Usage:
    """Shares of the codes that occur.

    shares: of each codebook. mean: over codebooks. reachable: what uniform draws would reach.
    where: EVALUATED or TRAINING. wanted: the part of what is reachable that a healthy run has.
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
        enough = self.wanted * self.reachable
        low = [index for index, share in enumerate(self.shares) if share < enough]
        return sorted(low, key=self.shares.__getitem__)


def num_judged(metrics: Mapping[str, Any]) -> float | None:
    """Images that figures are of: where patches are the items, those that they were cut from, as
    patches of one image are alike. None where it is not known.
    """
    return finite(metrics.get("cut_from") or metrics.get("items"))


def has_codes(summary: RunSummary) -> bool:
    return bool(_counts(summary)) or finite(summary.metrics.get("usage")) is not None


def usage_of(summary: RunSummary) -> Usage | None:
    """Usage on the evaluated split, or on the last steps of training where that split is small and
    lacks codes.

    None where there are no codes, and where neither can tell.
    """
    if not has_codes(summary):
        return None
    evaluated = _evaluated_usage(summary)
    judged = num_judged(summary.metrics)
    items = finite(summary.metrics.get("items"))
    if judged is None or items is None or judged >= ENOUGH_IMAGES or not evaluated.weak:
        return evaluated
    return _training_usage(summary, items)


def _evaluated_usage(summary: RunSummary) -> Usage:
    counts = _counts(summary)
    shares = [float((row > 0).mean()) for row in counts]
    if not shares:
        shares = [float(summary.metrics["usage"])]
    mean = sum(shares) / len(shares)
    return Usage(tuple(shares), mean, reachable_usage(counts), EVALUATED, _wanted(summary))


def _training_usage(summary: RunSummary, images: float) -> Usage | None:
    """Usage over the window of the last row of training that has it, None without such a row."""
    last: Mapping[str, Any] | None = None
    for row in summary.history:
        if row.get("split") == "train" and finite(row.get("usage")) is not None:
            last = row
    if last is None:
        return None
    counts = _counts(summary)
    shares = []
    for index in range(len(counts)):
        share = finite(last.get(f"usage/{index}"))
        if share is not None:
            shares.append(share)
    # The draws of the window are those of the evaluated split, scaled to the window's images.
    window = []
    if summary.window_images:
        window = [row * (summary.window_images / images) for row in counts]
    mean = float(last["usage"])
    reachable = reachable_usage(window)
    return Usage(tuple(shares or [mean]), mean, reachable, TRAINING, _wanted(summary))


def _wanted(summary: RunSummary) -> float:
    return RATED_USAGE if summary.weighs_bits else ENOUGH_USAGE


def reachable_usage(code_counts: Sequence[np.ndarray]) -> float:
    """Usage that uniformly drawn codes would reach: 1 - exp(-draws / K), taken as 1 from five draws
    a code on.
    """
    ratio = min((float(row.sum()) / len(row) for row in code_counts), default=math.inf)
    if ratio >= 5:
        return 1.0
    return 1 - math.exp(-ratio)


def _counts(summary: RunSummary) -> list[np.ndarray]:
    if summary.code_counts is None:
        return []
    return list(summary.code_counts)
