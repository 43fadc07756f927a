"""What `reconstruction` measures: distances on standardised pixels, or the likelihood of 8-bit pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Distortion: TypeAlias = Literal["mse", "log_mse", "l1", "huber", "logistic"]


class Likelihood(nn.Module):
    """The term `reconstruction`, a mean over all values of standardised images (B, C, H, W).

    mse, l1, huber (delta 1), log_mse (the mean over images of the log of their mse), or logistic: the discretised
    logistic of `discretised_logistic_nll` with one learned scale a channel, in nats per value. `std` (C,) is the
    deviation that the pixels in [0, 1] were divided by.
    """

    bin_width: Tensor

    def __init__(self, kind: Distortion, std: Sequence[float]) -> None:
        super().__init__()
        self.kind = kind
        if kind == "logistic":
            self.register_buffer("bin_width", 1 / (255 * torch.tensor(std)).view(1, -1, 1, 1), persistent=False)
            start = math.log(0.1 * math.sqrt(3) / math.pi)  # deviation of a tenth of the data's
            self.log_scale = nn.Parameter(torch.full((1, len(std), 1, 1), start))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        match self.kind:
            case "mse":
                return F.mse_loss(output, target)
            case "log_mse":  # the floor is 40 dB under the data's variance: what is perfect already pulls no more
                return (F.mse_loss(output, target, reduction="none").flatten(1).mean(1) + 1e-4).log().mean()
            case "l1":
                return F.l1_loss(output, target)
            case "huber":
                return F.huber_loss(output, target)
            case "logistic":
                return discretised_logistic_nll(output, self.log_scale, target, self.bin_width).mean()


def discretised_logistic_nll(mean: Tensor, log_scale: Tensor, target: Tensor, bin_width: Tensor) -> Tensor:
    """-log of the logistic's mass in the bin around each target, in nats (Salimans et al. 2017, arXiv 1701.05517).

    mean, target: (B, C, H, W); log_scale and bin_width: broadcastable, in the units of the mean. The outermost bins
    are not widened to take the tails, so the value is never below the true cost.
    """
    half = 0.5 * bin_width * torch.exp(-log_scale)
    centred = (target - mean).abs() * torch.exp(-log_scale)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - e^(b - a)): neither cancels nor overflows for a > b
    return -(torch.log(-torch.expm1(-2 * half)) + F.logsigmoid(centred + half) + F.logsigmoid(half - centred))
