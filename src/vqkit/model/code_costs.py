"""What scalar codes cost in bits: an estimate that gradients pass, for searches over codes.

An adaptive coder prices a code by the codes around it that are known by then. This is such a
coder's price in closed form: two decisions on a magnitude (whether it is beyond 0, and beyond any
later one), each a logistic function of how large the neighbours are, and a bit for the sign. Its
weights are fitted to the codes at hand, as the coder's tables will be.

Shapes: C channels, codes (C, rows, columns) as signed numbers, zero the commonest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows and columns before a code that its price looks at.
REACH = 2
# What is added to a mean of magnitudes before its logarithm is taken: to one of a few neighbours,
# and to one of a channel or position.
FEW = 0.03
MANY = 0.003
# Magnitudes of channels before a code's own weigh less with each channel between.
DECAY = 0.75
# Weights of both decisions before anything was fitted, in the order of `_features`, and how many
# codes they count as.
BEYOND_ZERO = (0.6, 0.3, 0.2, 0.1, 0.6, 2.0)
BEYOND_ONE = (0.4, 0.1, 0.1, 0.0, 0.1, -0.5)
BELIEF = 3.0
# Newton steps of a fit.
FIT_STEPS = 4


class Prices(NamedTuple):
    """Bits of a magnitude of 0 and of 1, and of every further one; (C, rows, columns) each."""

    zero: Tensor
    one: Tensor
    more: Tensor

    def bits(self, magnitudes: Tensor) -> Tensor:
        """Of magnitudes (C, rows, columns); between whole ones a line."""
        low = torch.lerp(self.zero, self.one, magnitudes)
        return torch.where(magnitudes < 1, low, self.one + (magnitudes - 1) * self.more)


class CodeCosts:
    """The estimate.

    differs (C,) bool: channels that are coded as differences to what their neighbours say.
    """

    def __init__(self, differs: Tensor) -> None:
        self.differs = differs[:, None, None]
        self.weights = torch.tensor([BEYOND_ZERO, BEYOND_ONE], device=differs.device)
        channels = torch.arange(len(differs), device=differs.device)
        apart = channels[:, None] - channels
        self._before = (DECAY ** (apart - 1)).where(apart > 0, 0.0) * (1 - DECAY)
        self._beside = ((apart.abs() <= 3) & (apart != 0)).float() / 6

    @torch.no_grad()
    def fit(self, codes: Tensor) -> None:
        """Follow codes: Newton steps of a logistic regression, held near the weights of before."""
        magnitudes = (codes - self.guesses(codes)).abs()
        features = self._features(self.context(codes))
        coded = magnitudes > 0
        zero = _regression(features, coded.float(), torch.ones_like(codes), self.weights[0])
        trials = magnitudes.where(coded, 0.0)
        more = _regression(features, (magnitudes - 1).clamp(min=0), trials, self.weights[1])
        self.weights = torch.stack([zero, more])

    def bits(self, codes: Tensor) -> Tensor:
        """Of all codes together, a scalar; they may lie between whole numbers."""
        prices = self.prices(self.context(codes))
        return prices.bits((codes - self.guesses(codes)).abs()).sum()

    def prices(self, context: Tensor) -> Prices:
        """What each code may cost where magnitudes are those of `context`."""
        features = self._features(context)
        zero, more = torch.einsum("df,fcyx->dcyx", self.weights, features)
        further = F.softplus(-more) / math.log(2)
        one = 1 + (F.softplus(-zero) + F.softplus(more)) / math.log(2)
        return Prices(F.softplus(zero) / math.log(2), one, further)

    def context(self, codes: Tensor) -> Tensor:
        """Magnitudes as neighbours see them: of what is coded, be it the code or a difference."""
        return (codes - self.guesses(codes)).abs()

    def guesses(self, codes: Tensor) -> Tensor:
        """What neighbours say of the codes of channels that are coded as differences, the median of
        west, north and the plane through both (LOCO-I, Weinberger et al. 2000); zero for others.
        """
        if not self.differs.any():
            return torch.zeros_like(codes)
        around = F.pad(codes.detach(), (1, 0, 1, 0))
        west = around[:, 1:, :-1]
        north = around[:, :-1, 1:]
        plane = west + north - around[:, :-1, :-1]
        lower = torch.minimum(west, north)
        upper = torch.maximum(west, north)
        return torch.maximum(lower, torch.minimum(upper, plane)).where(self.differs, 0.0)

    def _features(self, context: Tensor) -> Tensor:
        """Logarithms of mean magnitudes around every code: (6, C, rows, columns)."""
        rows, columns = context.shape[1:]
        around = F.pad(context, (REACH, REACH, REACH, 0))

        def shifted(up: int, left: int) -> Tensor:
            top = REACH - up
            first = REACH - left
            return around[:, top : top + rows, first : first + columns]

        near = shifted(0, 1) + shifted(1, 0)
        far = shifted(1, 1) + shifted(1, -1) + shifted(0, 2) + shifted(2, 0)
        beside = (self._beside @ near.flatten(1)).view_as(context) / 2
        before = (self._before @ context.flatten(1)).view_as(context)
        position = near.clamp(max=6).mean(0, keepdim=True) / 2
        channel = context.mean((1, 2), keepdim=True)
        few = [FEW + (2 * near + far) / 8, FEW + beside, FEW + before]
        many = [(MANY + position).expand_as(context), (MANY + channel).expand_as(context)]
        return torch.stack([*few, *many, torch.full_like(context, math.e)]).log()


def _regression(features: Tensor, positives: Tensor, trials: Tensor, weights: Tensor) -> Tensor:
    """Weights (F,) of a logistic regression of counts (C, rows, columns) on features (F, C, rows,
    columns), held near those that are given.
    """
    used = trials.flatten() > 0
    chosen = features.flatten(1)[:, used]
    wanted = positives.flatten()[used]
    counts = trials.flatten()[used]
    belief = BELIEF * torch.eye(len(weights), device=weights.device)
    found = weights
    for _ in range(FIT_STEPS):
        likely = torch.sigmoid(found @ chosen)
        gradient = chosen @ (counts * likely - wanted) + BELIEF * (found - weights)
        curvature = (chosen * (counts * likely * (1 - likely))) @ chosen.T + belief
        found = found - torch.linalg.solve(curvature, gradient)
    return found
