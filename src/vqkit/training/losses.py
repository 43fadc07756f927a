"""From a model's terms to the one number that is minimised."""

from __future__ import annotations

from torch import Tensor

from ..config import LossConfig
from ..model import Output
from ..model.quantizers import weighted_sum


def total_loss(output: Output, config: LossConfig) -> Tensor:
    """Sum of every term times the weight of the same name in the recipe's `losses`."""
    weights = {name: getattr(config, name) for name in output.terms}
    return weighted_sum(output.terms, weights, output.reconstruction)
