"""The discrete cosine transform of squares of pixels, in the order in which coefficients matter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# How much less a coefficient of a difference of colours matters than one of lightness.
COLOUR_WEIGHT = 3.0


def cosine_basis(channels: int, side: int, count: int) -> Tensor:
    """The first `count` vectors of an orthonormal basis of squares: (count, channels * side^2).

    Columns are in the order of `pixel_unshuffle`. A vector is the outer product of cosines (DCT-II)
    along channels, rows and columns; of three channels those are lightness, red against blue, and
    green against both. Low frequencies come first, and colours after lightness. Vectors beyond the
    basis are zeros.
    """
    along_channels = _cosines(channels)
    along_side = _cosines(side)
    products = torch.einsum("ac,by,dx->abdcyx", along_channels, along_side, along_side)
    vectors = products.reshape(channels * side**2, channels * side**2)
    ranks = []
    for colour in range(channels):
        for row in range(side):
            for column in range(side):
                weight = COLOUR_WEIGHT if colour else 1.0
                ranks.append(weight * (1 + row**2 + column**2))
    order = torch.tensor(ranks, dtype=torch.float64).argsort(stable=True)[:count]
    basis = torch.zeros(count, vectors.shape[1])
    basis[: len(order)] = vectors[order].float()
    return basis


def _cosines(size: int) -> Tensor:
    """Orthonormal DCT-II: (frequencies, places) float64."""
    places = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi / size * (places + 0.5) * places[:, None]) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows
