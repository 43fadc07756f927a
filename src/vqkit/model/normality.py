"""The term `transform`: how far what the quantizer gets is from N(0, I), by three measures that
gradients can follow.

Tokens are the positions of all images of a batch, N of them, D wide. With several ranks each
measures its own, and the means of their gradients are used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config.sections import LossConfig
from .blocks import CONVOLUTIONS
from .quantizers.base import to_tokens


def build_normality(config: LossConfig, width: int, dims: int = 2) -> nn.Module | None:
    """A measure: latents (B, width, *grid), generator, mask (B, *grid) bool or None -> scalar.

    None when its weight is always 0: it costs nothing.

    This `match` is the registry.
    """
    if not config.transform.peak:
        return None
    match config.transform_distance:
        case "sliced_wasserstein":
            return SlicedWasserstein()
        case "moments":
            return Moments()
        case "prior_network":
            return PriorNetwork(width, dims)


class SlicedWasserstein(nn.Module):
    """Mean squared Wasserstein-2 distance to N(0, 1) along random directions, after Kolouri et al.
    2018 (1804.01947).

    In one dimension the distance between N sorted values and the normal distribution is exact,
    without drawing from it: each value is compared with the part of the normal that it stands for.
    It sees the whole distribution, not only moments. Of more than `max_tokens` a random subset is
    sorted, as time grows with their number.
    """

    def __init__(self, num_directions: int = 64, max_tokens: int = 4096) -> None:
        super().__init__()
        self.num_directions = num_directions
        self.max_tokens = max_tokens

    def forward(
        self, latents: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None
    ) -> Tensor:
        # In evaluation: the same directions every time, and the global generator stays as it is.
        if generator is None:
            generator = torch.Generator(latents.device).manual_seed(0)
        tokens = _real_tokens(latents, mask)
        if len(tokens) > self.max_tokens:
            order = torch.randperm(len(tokens), generator=generator, device=tokens.device)
            tokens = tokens[order[: self.max_tokens]]
        shape = (self.num_directions, tokens.shape[1])
        drawn = torch.randn(shape, generator=generator, device=tokens.device)
        directions = F.normalize(drawn, dim=1)
        with torch.autocast(latents.device.type, enabled=False):
            return wasserstein_to_normal(directions @ tokens.T).mean()


def wasserstein_to_normal(values: Tensor) -> Tensor:
    """Squared Wasserstein-2 distance between the N values of each row (R, N) and N(0, 1): (R,),
    exact.

    W^2 = integral over u of (x_(ceil(N u)) - Phi^-1(u))^2. With m_i, the mean of the normal between
    its quantiles (i - 1) / N and i / N, that is the mean of (x_(i) - m_i)^2 plus what the bins hold
    beside their means, 1 - mean(m_i^2): N values cannot come closer than that.
    """
    count = values.shape[1]
    edges = torch.linspace(0, 1, count + 1, dtype=torch.float64, device=values.device)
    # Of the normal distribution at the edges: 0 at both ends.
    density = torch.exp(-0.5 * torch.special.ndtri(edges).square()) / math.sqrt(2 * math.pi)
    means = count * (density[:-1] - density[1:])
    within = 1.0 - means.square().mean()
    between = (values.sort(dim=1).values - means.to(values.dtype)).square().mean(1)
    return between + within.to(values.dtype)


class Moments(nn.Module):
    """Squared distance of mean and covariance of the tokens to those of N(0, I), a mean over the D
    channels.

    Cheap and without noise, but blind to everything beyond second moments: clusters pass as normal.
    """

    def forward(
        self, latents: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None
    ) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            tokens = _real_tokens(latents, mask)
            mean = tokens.mean(0)
            centred = tokens - mean
            excess = centred.T @ centred / len(tokens) - torch.eye(len(mean), device=tokens.device)
            return (mean.square().sum() + excess.square().sum()) / len(mean)


class PriorNetwork(nn.Module):
    """A network predicts mean m and scale s of every value of z' from the eight neighbours of its
    position.

    The network is fitted by likelihood, which keeps s finite: z' as given, minimise ((z' - m) /
    s)^2 / 2 + log s. z' is pulled to what it would be if that prediction had standardised it: (z' -
    (z' - m) / s)^2 with the second z' held fixed. Both rest where m = 0 and s = 1, when no position
    tells anything about another. (The plain squared distance ((z' - m) / s)^2 as the pull would be
    least where all z' are equal.) The fit has the value 0 and only a gradient, so the term is 0 for
    tokens that are normal as far as the network can tell.
    """

    def __init__(self, width: int, dims: int = 2, hidden: int = 32) -> None:
        super().__init__()
        convolution = CONVOLUTIONS[dims]
        self.neighbours = convolution(width, hidden, 3, padding=1)
        self.head = convolution(hidden, 2 * width, 1)
        for value in self.head.parameters():
            nn.init.zeros_(value)

    def forward(
        self, latents: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None
    ) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            if mask is not None:
                latents = latents.where(mask[:, None], 0.0)
            given = latents.detach()
            mean, log_scale = self.predict(given)
            standardised = (given - mean) * torch.exp(-log_scale)
            fit = _real_mean(0.5 * standardised.square() + log_scale, mask)
            return _real_mean((latents - standardised.detach()).square(), mask) + fit - fit.detach()

    def predict(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale (B, D, *grid) each, at every position from all of its neighbours but
        not from itself.
        """
        layer = self.neighbours
        weight = layer.weight * _hollow(layer.weight)
        hidden = F.gelu(layer._conv_forward(latents, weight, layer.bias))
        mean, log_scale = self.head(hidden).chunk(2, dim=1)
        return mean, log_scale.clamp(-7.0, 7.0)


def _hollow(weight: Tensor) -> Tensor:
    """Ones around a zero, of the size of a convolution's kernel."""
    mask = torch.ones_like(weight[0, 0])
    mask[(1,) * mask.dim()] = 0.0
    return mask


def _real_tokens(latents: Tensor, mask: Tensor | None) -> Tensor:
    """Latents (B, D, *grid) -> (N, D) float32 of the positions that are real."""
    tokens = to_tokens(latents.float())
    if mask is None:
        return tokens
    return tokens[mask.flatten()]


def _real_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (B, D, *grid) over the positions that are real."""
    if mask is None:
        return values.mean()
    return values.where(mask[:, None], 0.0).sum() / (mask.sum() * values.shape[1])
