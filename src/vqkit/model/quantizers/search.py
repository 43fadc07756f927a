"""Exact nearest-code search and k-means, in chunks: no tensor of all tokens by all codes ever exists."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .base import all_reduce_sum, place_among_ranks

SCORES_PER_CHUNK = 1 << 20
"""float32 scores held at once: 4 MiB, near enough to a core's second-level cache"""
CODES_PER_TILE = 8192
"""codes compared at once: a longer matrix product with a short inner side runs at a third of the speed"""
BLOCK = 64
"""scores whose maximum is taken first: maxima of blocks are vectorised, the position of a maximum is not"""


def chunks(num_tokens: int, num_codes: int) -> Iterator[slice]:
    """Slices of tokens whose scores against all codes fit a chunk."""
    rows = max(16, SCORES_PER_CHUNK // num_codes)
    for start in range(0, num_tokens, rows):
        yield slice(start, min(start + rows, num_tokens))


def nearest(tokens: Tensor, codebook: Tensor, costs: Tensor | float = 0.0) -> Tensor:
    """Index of the code with the smallest squared Euclidean distance to each token, lowest index on ties.

    tokens (N, d), codebook (K, d) -> (N,) int64. costs (K,) are added to the squared distances. Maximises
    x.c - |c|^2 / 2, which orders codes as the distance does.
    """
    if not len(tokens):
        return tokens.new_empty(0, dtype=torch.long)
    # a column of ones and one of offsets: one product gives the scores, nothing is added to them afterwards
    tokens = torch.cat([tokens, tokens.new_ones(len(tokens), 1)], 1)
    offsets = -0.5 * (codebook.square().sum(1) + costs)
    tiles = torch.cat([codebook, offsets[:, None]], 1).split(CODES_PER_TILE)
    parts = []
    for rows in chunks(len(tokens), min(len(codebook), CODES_PER_TILE)):
        score, code = _best(tokens[rows], tiles[0])
        for index, tile in enumerate(tiles[1:], 1):
            other_score, other = _best(tokens[rows], tile)
            code = torch.where(other_score > score, other + index * CODES_PER_TILE, code)
            score = torch.maximum(score, other_score)
        parts.append(code)
    return torch.cat(parts)


def _best(tokens: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Highest score of each token against a tile of codes, and the first code that has it."""
    scores = tokens @ codes.t()
    if len(codes) % BLOCK or len(codes) < 4 * BLOCK:
        best = scores.max(1)
        return best.values, best.indices
    blocks = scores.view(len(tokens), -1, BLOCK)
    score, block = blocks.amax(2).max(1)
    place = torch.arange(len(tokens), device=block.device) * blocks.shape[1] + block
    inside = blocks.view(-1, BLOCK).index_select(0, place).argmax(1)
    return score, block * BLOCK + inside


def code_sums(tokens: Tensor, codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Counts (K,) float32 and sums (K, d) of the tokens that each code won, over all ranks."""
    counts = torch.bincount(codes, minlength=codebook_size).to(tokens.dtype)
    sums = tokens.new_zeros(codebook_size, tokens.shape[1]).index_add_(0, codes, tokens)
    return all_reduce_sum(counts), all_reduce_sum(sums)


def sample_tokens(tokens: Tensor, count: int, generator: torch.Generator | None, distinct: bool = False) -> Tensor:
    """`count` random tokens (count, d) from those of all ranks; fewer or repeated ones where there are not enough.

    With generators of equal state every rank gets the same tokens, and the same as one process with the joined batch.
    """
    start, total = place_among_ranks(len(tokens), tokens.device)
    order = torch.randperm(total, generator=generator, device=tokens.device)
    order = (order if distinct else order.repeat(-(-count // total)))[:count] - start
    mine = (order >= 0) & (order < len(tokens))
    return all_reduce_sum(torch.where(mine[:, None], tokens[order.clamp(0, max(0, len(tokens) - 1))], 0.0))


def kmeans(tokens: Tensor, codebook_size: int, iterations: int, generator: torch.Generator | None) -> Tensor:
    """Codebook (K, d) after Lloyd's iterations from random tokens; cells that run empty restart at random tokens.

    Over several ranks it is the k-means of all their tokens together (sums are all-reduced).
    """
    codebook = sample_tokens(tokens, codebook_size, generator)
    for _ in range(iterations):
        counts, sums = code_sums(tokens, nearest(tokens, codebook), codebook_size)
        fresh = sample_tokens(tokens, codebook_size, generator)
        codebook = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1.0)[:, None], fresh)
    return codebook
