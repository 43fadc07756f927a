"""Quantizers of vector-quantize-pytorch behind vqkit's contract, so that network, trainer and
metrics are the same.
"""

from __future__ import annotations

import math

import torch
import vector_quantize_pytorch as peer
from torch import Tensor, nn

from vqkit.model.quantizers import Quantizer, TokensQuantized

# k-means start and replacement of dead codes, which its README advises against collapse.
ALIVE = {"kmeans_init": True, "kmeans_iters": 10, "threshold_ema_dead_code": 2}


class Peer(Quantizer):
    """One of its modules: (1, N, d) -> values, indices, loss.

    Its loss has its own weights inside: term `codebook`.
    """

    default_weights = {"codebook": 1.0}

    def __init__(self, module: nn.Module, width: int, sizes: list[int]) -> None:
        super().__init__(width, sizes)
        self.module = module

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        values, codes, *loss = self.module(tokens[None])
        terms = (
            {"codebook": torch.stack([part.float().mean() for part in loss]).sum()} if loss else {}
        )
        return TokensQuantized(values[0], codes.reshape(len(tokens), -1).long(), terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return self.quantize(tokens).codes

    def lookup(self, codes: Tensor) -> Tensor:
        # For the report's images, which the benchmark does not look at.
        return torch.zeros(len(codes), self.code_dim)


def build_peer(name: str, bits: int) -> Peer:
    """A contender at `bits` a position; residual and product use three quantizers of a third of the
    bits.
    """
    size = 1 << bits
    third = 1 << (bits // 3)
    levels = {
        8: [8, 6, 5],
        9: [8, 8, 8],
        10: [8, 5, 5, 5],
        12: [7, 5, 5, 5, 5],
        14: [8, 8, 8, 6, 5],
        16: [8, 8, 8, 5, 5, 5],
    }
    match name:
        case "vq":
            return Peer(peer.VectorQuantize(dim=16, codebook_size=size, **ALIVE), 16, [size])
        case "vq-cosine":
            return Peer(
                peer.VectorQuantize(dim=16, codebook_size=size, use_cosine_sim=True, **ALIVE),
                16,
                [size],
            )
        case "simvq":
            return Peer(peer.SimVQ(dim=16, codebook_size=size), 16, [size])
        case "fsq":
            return Peer(peer.FSQ(levels=levels[bits]), len(levels[bits]), [math.prod(levels[bits])])
        case "lfq":
            return Peer(peer.LFQ(dim=bits, codebook_size=size), bits, [size])
        case "bsq":
            return Peer(peer.LFQ(dim=bits, codebook_size=size, spherical=True), bits, [size])
        case "residual":
            module = peer.ResidualVQ(dim=16, num_quantizers=3, codebook_size=third, **ALIVE)
            return Peer(module, 16, [third] * 3)
        case "product":
            module = peer.GroupedResidualVQ(
                dim=18, groups=3, num_quantizers=1, codebook_size=third, **ALIVE
            )
            return Peer(_GroupsLast(module), 18, [third] * 3)
    raise ValueError(name)


class _GroupsLast(nn.Module):
    """Its grouped quantizer gives indices (groups, 1, N, stages) and losses of each group."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        values, codes, loss = self.module(x)
        return values, codes.movedim(0, -1), loss
