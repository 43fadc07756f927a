"""The contract that every bottleneck obeys, and the pieces that several share.

Shapes: B batch, D latent width, Q codebooks, K codes, N = B * h * w tokens; any number of grid dimensions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Quantized:
    """What a bottleneck returns.

    quantized: (B, D, *grid), what the decoder sees; gradients reach the latents through it.
    codes: (B, Q, *grid) int64.
    loss: scalar, the terms summed with the weights of the paper; for use outside of vqkit's trainer.
    terms: unweighted scalars by name (`commitment`, `codebook`, `kl`), for a sum with weights from a recipe.
    """

    quantized: Tensor
    codes: Tensor
    loss: Tensor
    terms: dict[str, Tensor]


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float], like: Tensor) -> Tensor:
    """Sum of weight * term, the one place where losses are added up; a scalar zero on `like`'s device if empty."""
    total = like.new_zeros((), dtype=torch.float32)
    for name, term in terms.items():
        if weights[name] != 0:
            total = total + weights[name] * term
    return total


class Quantizer(nn.Module, ABC):
    """Latents (B, D, *grid) <-> codes (B, Q, *grid).

    `decode(encode(x))` equals `forward(x).quantized` in eval mode, to the bit. All arithmetic is float32, whatever
    autocast does around it. Only `forward` in training mode changes state.
    """

    latent_dim: int
    """D, the width of the quantized latents"""
    encoder_dim: int
    """channels that the encoder must deliver (more than D where it predicts a distribution)"""
    num_codebooks: int
    """Q"""
    codebook_size: int
    """K, values that one code can take"""
    default_weights: Mapping[str, float] = {}
    """weights of the terms in the paper"""

    @property
    def bits_per_code(self) -> float:
        """log2 K, the size of a code without entropy coding."""
        return math.log2(self.codebook_size)

    @property
    def is_discrete(self) -> bool:
        """Whether usage and perplexity mean anything: codes come from a finite, learned or fixed set."""
        return True

    @abstractmethod
    def forward(self, latents: Tensor, generator: torch.Generator | None = None) -> Quantized:
        """Quantise (B, encoder_dim, *grid); `generator` drives everything random in training mode."""

    @abstractmethod
    def encode(self, latents: Tensor) -> Tensor:
        """Latents (B, encoder_dim, *grid) -> codes (B, Q, *grid) int64; never changes state."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, Q, *grid) int64 -> quantized (B, D, *grid) float32."""


def check_latents(latents: Tensor, width: int) -> Tensor:
    """The latents as float32; ValueError when their channel dimension is not `width`."""
    if latents.dim() < 2 or latents.shape[1] != width:
        raise ValueError(f"latents must be (B, {width}, *grid), got {tuple(latents.shape)}")
    return latents.float()


def to_tokens(latents: Tensor) -> Tensor:
    """(B, D, *grid) -> (N, D); free of copies when the memory is channels-last."""
    return latents.movedim(1, -1).reshape(-1, latents.shape[1])


def from_tokens(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, D) -> (B, D, *grid) with the batch and grid of `like` (B, anything, *grid); channels-last memory."""
    return tokens.reshape(like.shape[0], *like.shape[2:], tokens.shape[-1]).movedim(-1, 1)


def straight_through(latents: Tensor, quantized: Tensor) -> Tensor:
    """`quantized`, to the bit, whose gradient goes to `latents` unchanged (Bengio et al. 2013, arXiv 1308.3432)."""
    return quantized.detach() + (latents - latents.detach())


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over ranks in place; a no-op without ranks."""
    if ranks() > 1:
        dist.all_reduce(tensor)
    return tensor


def ranks() -> int:
    """Number of ranks, asked at every call: a module may be built before the process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process among them, 0 without a process group."""
    return dist.get_rank() if ranks() > 1 else 0
