"""A fixed codebook shaped like the prior N(0, I): nothing to learn, uniform codes for latents that
follow it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...config.quantizers import GaussianCodebookConfig
from .base import Quantizer, TokensQuantized
from .estimators import straight_through
from .fsq import number_of_codes
from .search import nearest

# Seed of the draws: all models of one size have the same codebook.
SEED = 0


def build_gaussian_codebook(config: GaussianCodebookConfig) -> Quantizer:
    """The quantizer of a config's layout."""
    if config.layout == "bins":
        return GaussianBins(config)
    return GaussianDraws(config)


class GaussianBins(Quantizer):
    """Every channel cut into bins of equal probability under N(0, 1), each bin decoded to its
    conditional mean.

    The edges of L bins are the quantiles i / L. The mean of N(0, 1) between a and b is
    (phi(a) - phi(b)) / P(a < x < b), here L (phi(a) - phi(b)): the value of least squared error for
    the bin (Max 1960). A code is the mixed-radix number of the bins, first channel least
    significant; a token on an edge belongs to the bin above it. The term `commitment` is
    |token - sg(value)|^2, a mean over tokens and channels.

    Buffers, all constant and not saved:
        levels, basis (d,): int64, bins of each channel and what one bin adds to the code.
        edges (d, max L - 1): filled up with infinity where a channel has fewer bins.
        means (d, max L): filled up with zeros.
    """

    default_weights = {"commitment": 0.25}

    levels: Tensor
    basis: Tensor
    edges: Tensor
    means: Tensor

    def __init__(self, config: GaussianCodebookConfig) -> None:
        super().__init__(len(config.levels), [number_of_codes(config.levels)], config.latent_dim)
        edges = torch.full((len(config.levels), max(config.levels) - 1), math.inf)
        means = torch.zeros(len(config.levels), max(config.levels))
        for channel, count in enumerate(config.levels):
            inner, middles = equal_bins(count)
            edges[channel, : count - 1] = inner
            means[channel, :count] = middles
        basis = torch.cumprod(torch.tensor([1, *config.levels[:-1]]), 0)
        self.register_buffer("levels", torch.tensor(config.levels), persistent=False)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("means", means, persistent=False)

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        digits = self._digits(tokens.detach())
        values = self._values(digits)
        terms = {"commitment": F.mse_loss(tokens, values)}
        return TokensQuantized(straight_through(tokens, values), self._number(digits), terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return self._number(self._digits(tokens))

    def lookup(self, codes: Tensor) -> Tensor:
        return self._values((codes // self.basis) % self.levels)

    def _digits(self, tokens: Tensor) -> Tensor:
        """(N, d) -> bins in [0, L - 1]: how many of the channel's edges are at or below the
        token.
        """
        bins = torch.searchsorted(self.edges, tokens.t().contiguous(), right=True).t()
        # An infinite token is also above the edges that only fill up the table.
        return bins.minimum(self.levels - 1)

    def _values(self, digits: Tensor) -> Tensor:
        return self.means.gather(1, digits.t()).t()

    def _number(self, digits: Tensor) -> Tensor:
        return (digits * self.basis).sum(-1, keepdim=True)


class GaussianDraws(Quantizer):
    """The nearest of K frozen draws from N(0, I) ('Gaussian Quant', arXiv 2512.06609).

    The draws have a seed of their own: all models with this K and d share them. Each channel is
    shifted and scaled to mean 0 and mean square 1, so that a small codebook has the moments of the
    prior too. The term `commitment` is |token - sg(code)|^2, a mean over tokens and channels.

    Buffers:
        codebook (K, d): constant, but saved, as another version of PyTorch may draw other numbers.
    """

    default_weights = {"commitment": 0.25}

    codebook: Tensor

    def __init__(self, config: GaussianCodebookConfig) -> None:
        super().__init__(config.code_dim, [config.codebook_size], config.latent_dim)
        source = torch.Generator().manual_seed(SEED)
        size = (config.codebook_size, config.code_dim)
        draws = torch.randn(size, generator=source, dtype=torch.float64)
        draws = (draws - draws.mean(0)) / draws.std(0, correction=0)
        self.register_buffer("codebook", draws.float())

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        codes = nearest(tokens.detach(), self.codebook)
        picked = self.codebook.index_select(0, codes)
        terms = {"commitment": F.mse_loss(tokens, picked)}
        return TokensQuantized(straight_through(tokens, picked), codes[:, None], terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return nearest(tokens, self.codebook)[:, None]

    def lookup(self, codes: Tensor) -> Tensor:
        return self.codebook.index_select(0, codes[:, 0])

    def codes(self) -> Tensor:
        """The codebook as it is compared and looked up (K, d)."""
        return self.codebook


def equal_bins(count: int) -> tuple[Tensor, Tensor]:
    """Edges (count - 1,) and conditional means (count,) of bins of equal probability under N(0, 1),
    float64.
    """
    edges = torch.special.ndtri(torch.arange(1, count, dtype=torch.float64) / count)
    density = torch.exp(-0.5 * edges.square()) / math.sqrt(2 * math.pi)
    outside = density.new_zeros(1)
    return edges, -count * torch.diff(density, prepend=outside, append=outside)
