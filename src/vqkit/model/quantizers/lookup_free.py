"""Codes that are signs: one bit a channel, no codebook to search, and the exact entropy of all
2^bits codes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ...config.quantizers import BSQConfig, LFQConfig
from .base import Quantizer, TokensQuantized, all_reduce_sum, place_among_ranks, ranks
from .estimators import straight_through
from .results import terms_of

# Bits whose average code is held as one table: 2^18 float32 are 1 MiB.
BITS_PER_GROUP = 18


class SignQuantizer(Quantizer):
    """What both families share: values +-scale by sign, the bits as a binary number, the entropy
    term.

    Channel i is bit i of the code, first channel least significant; zero counts as positive. The
    term `entropy` is

        (E[H(p(code | token))] - diversity * H(E[p(code | token)])) / (bits ln 2)

    with p(code | token) = softmax(-beta |token - code|^2), beta = `inverse_temperature`. It lies in
    [-diversity, 1] and is low when each token is certain of its code (first part) and all codes are
    in use (second part). |token - code|^2 is a sum over channels, so p is a product of independent
    bits: bit i is one with probability

        sigmoid(-beta (x_i - scale)^2 + beta (x_i + scale)^2) = sigmoid(4 beta scale x_i).

    The default `diversity` is far above the papers' 1. On Fashion-MNIST (300 steps) 1 to 3 leave a
    third of 2^14 codes unused; 10 to 20 use 93 to 95 % of them and cost 0.1 to 0.2 dB.

    In eval mode the terms are computed when they are read: codes and values take a fiftieth of the
    time that the entropy of 2^18 codes does.

    Buffers, constant and not saved:
        basis (d,): int64, powers of two.
    """

    basis: Tensor

    def __init__(self, config: LFQConfig | BSQConfig, scale: float) -> None:
        super().__init__(config.bits, [1 << config.bits], config.latent_dim)
        self.scale = scale
        self.inverse_temperature = config.inverse_temperature
        self.diversity = config.diversity
        self.register_buffer("basis", 2 ** torch.arange(config.bits), persistent=False)

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        ones = tokens.detach() >= 0
        # In eval mode ranks may see different numbers of batches, and would wait for one another
        # forever.
        over_ranks = self.training
        # What waits to be read is a copy: the latents are not ours.
        held = tokens if self.training else tokens.clone()
        terms = terms_of(lambda: self._terms(held, ones, over_ranks), self.training, tokens.device)
        values = straight_through(tokens, self._values(ones))
        return TokensQuantized(values, self._number(ones), terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return self._number(tokens >= 0)

    def lookup(self, codes: Tensor) -> Tensor:
        return self._values((codes & self.basis) != 0)

    def _terms(self, tokens: Tensor, ones: Tensor, over_ranks: bool) -> dict[str, Tensor]:
        return {"entropy": self._entropy(tokens, over_ranks)}

    def _values(self, ones: Tensor) -> Tensor:
        """(N, d) bool -> +-scale; never zero, as sign(0) would be."""
        return torch.where(ones, self.scale, -self.scale)

    def _number(self, ones: Tensor) -> Tensor:
        return (ones * self.basis).sum(-1, keepdim=True)

    def _entropy(self, tokens: Tensor, over_ranks: bool) -> Tensor:
        logits = (4.0 * self.inverse_temperature * self.scale) * tokens
        average = entropy_of_average_code(logits, over_ranks)
        return (entropy_of_bits(logits) - self.diversity * average) / (self.code_dim * math.log(2))


class LookupFreeQuantizer(SignQuantizer):
    """Values +-1 (Yu et al. 2023, arXiv 2310.05737, section 3.1, with its entropy penalty).

    The term `commitment` |token - sg(value)|^2, a mean over tokens and channels, keeps tokens from
    growing.
    """

    default_weights = {"entropy": 0.1, "commitment": 0.25}

    def __init__(self, config: LFQConfig) -> None:
        super().__init__(config, scale=1.0)

    def _terms(self, tokens: Tensor, ones: Tensor, over_ranks: bool) -> dict[str, Tensor]:
        terms = super()._terms(tokens, ones, over_ranks)
        return {**terms, "commitment": F.mse_loss(tokens, self._values(ones))}


class BinarySphericalQuantizer(SignQuantizer):
    """Values +-1/sqrt(d), for tokens on the unit sphere (Zhao et al. 2024, arXiv 2406.07548).

    Tokens and values have the same length, which bounds the error without a commitment term. The
    paper too adds up the entropy of one token over bits; for the entropy of the average code it
    takes bits as independent, while here it is exact.
    """

    default_weights = {"entropy": 0.1}

    def __init__(self, config: BSQConfig) -> None:
        super().__init__(config, scale=config.bits**-0.5)

    def bound(self, tokens: Tensor) -> Tensor:
        return F.normalize(tokens, dim=1)


# ------------------------------------------------------------------------------------------ entropy


def entropy_of_bits(logits: Tensor) -> Tensor:
    """Mean over tokens of the entropy of their code, in nats; logits (N, bits) of independent bits.

    It is -p ln p - q ln q with ln p = -softplus(-t) and ln q = -softplus(t), which is finite, with
    all gradients, where p is 0 or 1.
    """
    ones = torch.sigmoid(logits) * F.softplus(-logits)
    zeros = torch.sigmoid(-logits) * F.softplus(logits)
    return (ones + zeros).sum(1).mean()


def entropy_of_average_code(logits: Tensor, over_ranks: bool = True) -> Tensor:
    """Entropy in nats of the mean over tokens of p(code | token).

    Logits (N, bits) of independent bits.

    Exact up to 18 bits. With the bits cut in two halves, p(code | token) is the product of p(first
    half | token) and p(second half | token), (N, 2^(bits/2)) each, and the mean over tokens is one
    matrix product of the two: a table of 2^bits numbers, never one of tokens by codes. More bits
    are cut into groups of at most 18, whose entropies add up to an upper bound, as dependence
    between groups is not seen.
    """
    groups = math.ceil(logits.shape[1] / BITS_PER_GROUP)
    total = logits.new_zeros(())
    for group in logits.tensor_split(groups, dim=1):
        mean = _mean_code(group, over_ranks)
        # The floor is far below 2^-18 / N. Without it a code of probability zero had an infinite
        # gradient.
        total = total - (mean * mean.clamp(min=1e-30).log()).sum()
    return total


def _mean_code(logits: Tensor, over_ranks: bool) -> Tensor:
    """Mean of p(code | token) over the tokens of all ranks: (2^(bits/2), 2^(bits - bits/2)).

    The value is that of all ranks, the gradient that of this rank's tokens, times `ranks()`: a
    data-parallel step averages gradients over ranks, and the whole gradient is their sum.
    """
    half = logits.shape[1] // 2
    joint = _codes_of_bits(logits[:, :half]).t() @ _codes_of_bits(logits[:, half:])
    if not over_ranks or ranks() == 1:
        return joint / len(logits)
    _, count = place_among_ranks(len(logits), logits.device)
    own = joint * (ranks() / count)
    everywhere = all_reduce_sum(joint.detach().clone()) / count
    return own + (everywhere - own).detach()


def _codes_of_bits(logits: Tensor) -> Tensor:
    """Logits of n independent bits (N, n) -> probabilities of all their codes (N, 2^n).

    (N, 1) of ones for n = 0.
    """
    codes = logits.new_ones(len(logits), 1)
    for bit in logits.unbind(1):
        # sigmoid(-t), not 1 - sigmoid(t): the smaller of the two stays exact.
        pair = torch.stack([torch.sigmoid(-bit), torch.sigmoid(bit)], dim=1)
        codes = (pair[:, :, None] * codes[:, None, :]).flatten(1)
    return codes
