"""The two bottlenecks that do not quantise: none (plain autoencoder) and gaussian (VAE).

Both obey the contract to the letter: their codes are the bits of the float32 latents as integers, 32 bits a code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...config import GaussianConfig, NoneConfig
from .base import Quantized, Quantizer, check_latents, rank, ranks, weighted_sum


def float_bits(values: Tensor) -> Tensor:
    """float32 -> int64 in [0, 2^32) with the same bits."""
    return values.contiguous().view(torch.int32).long() & 0xFFFFFFFF


def bits_float(codes: Tensor) -> Tensor:
    """The inverse of `float_bits`, exact for every value."""
    signed = torch.where(codes >= 1 << 31, codes - (1 << 32), codes)
    return signed.to(torch.int32).view(torch.float32)


class NoQuantizer(Quantizer):
    """Passes latents through: the honest upper bound for every quantizer at equal width."""

    def __init__(self, config: NoneConfig) -> None:
        super().__init__()
        self.latent_dim = self.encoder_dim = self.num_codebooks = config.code_dim
        self.codebook_size = 1 << 32

    @property
    def is_discrete(self) -> bool:
        return False

    def forward(self, latents: Tensor, generator: torch.Generator | None = None) -> Quantized:
        latents = check_latents(latents, self.encoder_dim)
        return Quantized(latents, float_bits(latents.detach()), latents.new_zeros(()), {})

    def encode(self, latents: Tensor) -> Tensor:
        return float_bits(check_latents(latents, self.encoder_dim))

    def decode(self, codes: Tensor) -> Tensor:
        return bits_float(codes)


class GaussianBottleneck(Quantizer):
    """Reparameterised Gaussian latents (Kingma & Welling 2014, arXiv 1312.6114, section 2.4 and appendix B).

    The encoder delivers (B, 2 D, *grid): mean and log-variance. Training samples z = mean + exp(log_var / 2) * eps,
    eval takes the mean. Term `kl`: KL(q(z|x) || N(0, 1)) in nats per image, mean over the batch.
    """

    default_weights = {"kl": 1.0}

    def __init__(self, config: GaussianConfig) -> None:
        super().__init__()
        self.latent_dim = self.num_codebooks = config.code_dim
        self.encoder_dim = 2 * config.code_dim
        self.codebook_size = 1 << 32

    @property
    def is_discrete(self) -> bool:
        return False

    def forward(self, latents: Tensor, generator: torch.Generator | None = None) -> Quantized:
        mean, log_var = check_latents(latents, self.encoder_dim).chunk(2, dim=1)
        log_var = log_var.clamp(-30.0, 20.0)  # exp stays finite; far outside of what a trained encoder gives
        kl = 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var).flatten(1).sum(1).mean()
        sample = mean
        if self.training:
            # every rank draws the noise of the whole batch and takes its part: the same run on any number of ranks
            shape = (ranks() * len(mean), *mean.shape[1:])
            noise = torch.randn(shape, generator=generator, device=mean.device).chunk(ranks())[rank()]
            sample = mean + (0.5 * log_var).exp() * noise
        terms = {"kl": kl}
        return Quantized(sample, float_bits(sample.detach()), weighted_sum(terms, self.default_weights, mean), terms)

    def encode(self, latents: Tensor) -> Tensor:
        return float_bits(check_latents(latents, self.encoder_dim).chunk(2, dim=1)[0])

    def decode(self, codes: Tensor) -> Tensor:
        return bits_float(codes)
