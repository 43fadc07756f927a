"""Latents with a variance: what makes an autoencoder variational (Kingma & Welling 2014, arXiv
1312.6114).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .quantizers.base import rank, ranks


def mean_and_log_variance(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Encoder output (B, 2 D, *grid) -> mean and log-variance of q(z|x), (B, D, *grid) each,
    float32.
    """
    mean, log_var = latents.float().chunk(2, dim=1)
    # Far outside of what a trained encoder gives: exp stays finite.
    return mean, log_var.clamp(-30.0, 20.0)


def sample(mean: Tensor, log_var: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """z = mean + exp(log_var / 2) * eps with eps ~ N(0, 1): a draw that gradients pass (section
    2.4).
    """
    # Every rank draws the noise of the whole batch and takes its part: the same run on any number
    # of ranks.
    shape = (ranks() * len(mean), *mean.shape[1:])
    noise = torch.randn(shape, generator=generator, device=mean.device).chunk(ranks())[rank()]
    return mean + (0.5 * log_var).exp() * noise


def kl(mean: Tensor, log_var: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) in nats per item, mean over the batch (appendix B): a
    scalar.

    mean, log_var: (B, D, *grid). mask: (B, *grid) bool, True where a position counts.
    """
    nats = mean.square() + log_var.exp() - 1.0 - log_var
    if mask is not None:
        nats = nats.where(mask[:, None], 0.0)
    return 0.5 * nats.flatten(1).sum(1).mean()
