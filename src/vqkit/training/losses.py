"""From a model's terms to the one number that is minimised."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..config.sections import LossConfig, WeightConfig
from ..model.quantizers import weighted_sum


def loss_weights(config: LossConfig, progress: float) -> dict[str, float]:
    """Weight of every term at `progress` in [0, 1] of training, by the name that it has in the
    recipe's `losses`.
    """
    return {name: scheduled(weight, progress) for name, weight in _weights(config).items()}


def peak_weights(config: LossConfig) -> dict[str, float]:
    """The highest weight of every term.

    Validation uses these, so that its losses are comparable over a run.
    """
    return {name: weight.peak for name, weight in _weights(config).items()}


def changing_weights(config: LossConfig) -> set[str]:
    """Names of the weights that depend on the time."""
    names = set()
    for name, weight in _weights(config).items():
        if weight.peak and weight.schedule != "constant":
            names.add(name)
    return names


def scheduled(weight: WeightConfig, progress: float) -> float:
    """The weight at `progress` in [0, 1]: a line from 0 to the peak over `share`, then the peak.

    Once or every cycle.

    Cycles after Fu et al. 2019, arXiv 1903.10145, equation 6. The start is not quite 0: with
    several ranks every parameter must have a gradient in every step, and a term of weight 0 is left
    out of the sum.
    """
    if weight.schedule == "constant":
        return weight.peak
    cycles = weight.cycles if weight.schedule == "cyclic" else 1
    position = 1.0 if progress >= 1 else progress * cycles % 1.0
    return weight.peak * min(max(position, 1e-6) / weight.share, 1.0)


def total_loss(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum of every term times the weight of the same name."""
    return weighted_sum(terms, weights, next(iter(terms.values())))


def _weights(config: LossConfig) -> dict[str, WeightConfig]:
    return {name: value for name, value in config if isinstance(value, WeightConfig)}
