"""Use of the codebook; one definition of each figure for training, evaluation and benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Codebooks that have figures of their own.
SHOWN = 8


def code_counts(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs: (B, Q, *grid) -> (Q, K) int64.

    -1 is padding and is not counted.
    """
    # Padding gets a bin of its own, the first: that is faster than to pick it out.
    per_codebook = codes.movedim(1, 0).flatten(1) + 1
    counts = [torch.bincount(row, minlength=codebook_size + 1)[1:] for row in per_codebook]
    return torch.stack(counts)


def usage(counts: Tensor) -> float:
    """Share of codes hit at least once, mean over codebooks.

    `counts` (Q, K) over a whole split, never a batch.
    """
    return float((counts > 0).float().mean())


def perplexity(counts: Tensor) -> float:
    """2^H of the code histogram, mean over codebooks: 1 when one code does everything, K when all
    are equal.
    """
    shares = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    entropy = -torch.special.xlogy(shares, shares).sum(1)
    return float(entropy.exp().mean())


def code_entropy(counts: Tensor) -> float:
    """Entropy of a code as a share of log K, mean over codebooks: 0 for a single code, 1 when all
    are used alike.
    """
    return entropy_bits(counts) / math.log2(counts.shape[1])


def entropy_bits(counts: Tensor) -> float:
    """Entropy of a code, bits, mean over codebooks; at most log2 K."""
    shares = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    return float(-torch.special.xlogy(shares, shares).sum(1).mean() / math.log(2))


def code_figures(counts: Sequence[Tensor]) -> dict[str, float]:
    """Figures of the counts (K,) of each codebook.

    usage, perplexity and code_entropy (normalised, in [0, 1]) are means over codebooks, dead_codes
    a sum. With several codebooks there are usage/0, perplexity/0, code_entropy/0 and so on too, for
    the first eight.
    """
    each = [_figures(row[None]) for row in counts]
    figures = {}
    for name in each[0]:
        figures[name] = sum(one[name] for one in each) / len(each)
    figures["dead_codes"] = sum(int((row == 0).sum()) for row in counts)
    if len(each) > 1:
        for index, one in enumerate(each[:SHOWN]):
            for name, value in one.items():
                figures[f"{name}/{index}"] = value
    return figures


def _figures(row: Tensor) -> dict[str, float]:
    bits = entropy_bits(row)
    entropy = bits / math.log2(row.shape[1])
    return {
        "usage": usage(row),
        "perplexity": perplexity(row),
        "code_entropy": entropy,
        "entropy_bits": bits,
    }
