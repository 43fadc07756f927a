"""Exact nearest-code search and k-means, in chunks: no tensor of all tokens by all codes ever exists."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import all_reduce_sum, rank, ranks

SCORES_PER_CHUNK = 1 << 20
"""float32 scores held at once: 4 MiB, near enough to a core's second-level cache"""


def nearest(tokens: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code with the smallest squared Euclidean distance to each token, lowest index on ties.

    tokens (N, D), codebook (K, D) -> (N,) int64. Maximises x.c - |c|^2 / 2, which orders codes as the distance does.
    """
    offset = -0.5 * codebook.square().sum(1)
    rows = max(16, SCORES_PER_CHUNK // len(codebook))
    parts = [torch.addmm(offset, chunk, codebook.t()).argmax(1) for chunk in tokens.split(rows)]
    return torch.cat(parts) if parts else tokens.new_empty(0, dtype=torch.long)


def code_sums(tokens: Tensor, codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Counts (K,) float32 and sums (K, D) of the tokens that each code won, over all ranks."""
    counts = torch.bincount(codes, minlength=codebook_size).to(tokens.dtype)
    sums = tokens.new_zeros(codebook_size, tokens.shape[1]).index_add_(0, codes, tokens)
    return all_reduce_sum(counts), all_reduce_sum(sums)


def sample_tokens(tokens: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` random tokens (count, D), distinct while there are enough, from those of all ranks.

    With generators of equal state every rank gets the same tokens, and the same as one process with the joined batch.
    """
    local, total = len(tokens), len(tokens) * ranks()
    order = torch.randperm(total, generator=generator, device=tokens.device)
    order = order.repeat(-(-count // total))[:count] - rank() * local
    mine = (order >= 0) & (order < local)
    return all_reduce_sum(torch.where(mine[:, None], tokens[order.clamp(0, local - 1)], 0.0))


def kmeans(tokens: Tensor, codebook_size: int, iterations: int, generator: torch.Generator | None) -> Tensor:
    """Codebook (K, D) after Lloyd's iterations from random tokens; cells that run empty restart at random tokens.

    Over several ranks it is the k-means of all their tokens together (sums are all-reduced).
    """
    codebook = sample_tokens(tokens, codebook_size, generator)
    for _ in range(iterations):
        counts, sums = code_sums(tokens, nearest(tokens, codebook), codebook_size)
        fresh = sample_tokens(tokens, codebook_size, generator)
        codebook = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1.0)[:, None], fresh)
    return codebook
