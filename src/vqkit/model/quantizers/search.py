"""Exact nearest-code search and k-means, in chunks: no tensor of all tokens by all codes ever
exists.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .base import all_reduce_sum, centre_of, centred, place_among_ranks, ranks

# Scores that are held at once: 4 MiB of float32, about a core's second-level cache.
SCORES_PER_CHUNK = 1 << 20
# Codes that are compared at once. A wider matrix product with so short an inner side runs at a
# third of the speed.
CODES_PER_TILE = 8192
# Scores whose maximum is taken first: maxima of blocks are vectorised, finding the place of a
# maximum is not.
BLOCK = 64


def chunks(num_tokens: int, num_codes: int) -> Iterator[slice]:
    """Slices of tokens whose scores against all codes fit into a chunk."""
    rows = max(16, SCORES_PER_CHUNK // num_codes)
    for start in range(0, num_tokens, rows):
        yield slice(start, min(start + rows, num_tokens))


def nearest(tokens: Tensor, codebook: Tensor, costs: Tensor | float = 0.0) -> Tensor:
    """Index of the code at the smallest squared Euclidean distance from each token.

    Exact up to the rounding of float32 relative to the spread of tokens and codes, however far
    from the origin both lie; the lowest index wins a tie.

    Args:
        tokens: (N, d).
        codebook: (K, d).
        costs: (K,), added to the squared distances.

    Returns:
        (N,) int64.
    """
    if torch.compiler.is_exporting():
        # Chunks are so many rows; a program serves any number of them.
        tokens, codebook = centred(tokens, codebook)
        offsets = -0.5 * (codebook.square().sum(1) + costs)
        return torch.addmm(offsets, tokens, codebook.t()).argmax(1)
    # `len` of a tensor runs Python; in a small call that is as long as a product.
    num_tokens = tokens.shape[0]
    if not num_tokens:
        return tokens.new_empty(0, dtype=torch.long)
    tokens, codebook = centred(tokens, codebook)
    # x.c - (|c|^2 + cost) / 2 is largest where |x - c|^2 + cost is smallest. With a column of ones
    # beside the tokens and one of offsets beside the codes, one product gives all of it.
    tokens = torch.cat([tokens, tokens.new_ones(num_tokens, 1)], 1)
    offsets = -0.5 * (codebook.square().sum(1) + costs)
    tiles = torch.cat([codebook, offsets[:, None]], 1).split(CODES_PER_TILE)
    parts = []
    for rows in chunks(num_tokens, min(codebook.shape[0], CODES_PER_TILE)):
        score, code = _best(tokens[rows], tiles[0])
        for index, tile in enumerate(tiles[1:], 1):
            other_score, other = _best(tokens[rows], tile)
            code = torch.where(other_score > score, other + index * CODES_PER_TILE, code)
            score = torch.maximum(score, other_score)
        parts.append(code)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _best(tokens: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Highest score of each token against a tile of codes, and the first code that reaches it."""
    scores = tokens @ codes.t()
    num_tokens, num_codes = scores.shape
    if num_codes % BLOCK or num_codes < 4 * BLOCK:
        best = scores.max(1)
        return best.values, best.indices
    blocks = scores.view(num_tokens, -1, BLOCK)
    score, block = blocks.amax(2).max(1)
    place = torch.arange(num_tokens, device=block.device) * blocks.shape[1] + block
    inside = blocks.view(-1, BLOCK).index_select(0, place).argmax(1)
    return score, block * BLOCK + inside


def code_sums(tokens: Tensor, codes: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Counts (K,) float32 and sums (K, d) of the tokens that each code won, over all ranks."""
    counts = torch.bincount(codes, minlength=codebook_size).to(tokens.dtype)
    sums = tokens.new_zeros(codebook_size, tokens.shape[1]).index_add_(0, codes, tokens)
    return all_reduce_sum(counts), all_reduce_sum(sums)


def sample_tokens(
    tokens: Tensor, count: int, generator: torch.Generator | None, distinct: bool = False
) -> Tensor:
    """`count` random tokens (count, d) out of those of all ranks.

    Where there are fewer than `count`, some are repeated, or with `distinct` fewer are returned.
    With generators in the same state all ranks get the same tokens, and the same ones as a single
    process with the whole batch.
    """
    start, total = place_among_ranks(len(tokens), tokens.device)
    order = torch.randperm(total, generator=generator, device=tokens.device)
    order = (order if distinct else order.repeat(-(-count // total)))[:count]
    if ranks() == 1:
        return tokens.index_select(0, order)
    order = order - start
    mine = (order >= 0) & (order < len(tokens))
    rows = tokens[order.clamp(0, max(0, len(tokens) - 1))]
    return all_reduce_sum(torch.where(mine[:, None], rows, 0.0))


def kmeans(
    tokens: Tensor, codebook_size: int, iterations: int, generator: torch.Generator | None
) -> Tensor:
    """Codebook (K, d) after Lloyd's iterations from random tokens (N, d).

    A code that wins no token starts again at a random one. Over several ranks this is the k-means
    of all their tokens together.
    """
    codebook = sample_tokens(tokens, codebook_size, generator)
    centre = centre_of(codebook)
    if centre is not None:
        # Far from the origin sums are rounded more coarsely than tokens differ.
        return _lloyd(tokens - centre, codebook - centre, iterations, generator) + centre
    return _lloyd(tokens, codebook, iterations, generator)


def _lloyd(
    tokens: Tensor, codebook: Tensor, iterations: int, generator: torch.Generator | None
) -> Tensor:
    """Codebook (K, d) after Lloyd's iterations from the one given."""
    size = len(codebook)
    for _ in range(iterations):
        counts, sums = code_sums(tokens, nearest(tokens, codebook), size)
        fresh = sample_tokens(tokens, size, generator)
        means = sums / counts.clamp(min=1.0)[:, None]
        codebook = torch.where(counts[:, None] > 0, means, fresh)
    return codebook
