"""The discrete cosine transform of squares of pixels, in the order in which coefficients matter,
and the filter over the borders of these squares that makes it a lapped one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...model.cosine import cosines

# How much less a coefficient of a difference of colours matters than one of lightness.
COLOUR_WEIGHT = 3.0
# How much the filter over borders stretches the steepest step across them: 1 = an orthogonal
# filter.
STRETCH = 1.3


def cosine_basis(channels: int, side: int, count: int) -> Tensor:
    """The first `count` vectors of an orthonormal basis of squares: (count, channels * side^2).

    Columns are in the order of `pixel_unshuffle`. A vector is the outer product of cosines (DCT-II)
    along channels, rows and columns; of three channels those are lightness, red against blue, and
    green against both. Low frequencies come first, and colours after lightness. Vectors beyond the
    basis are zeros.
    """
    along_channels = cosines(channels)
    along_side = cosines(side)
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


def border_filter(side: int) -> Tensor:
    """The filter of the last half of a square and the first half of the next, before the cosine
    transform: (side, side), for an even side. Its inverse comes behind the inverse transform.

    Both together are a lapped transform (Tran, Liang and Tu 2003, "Lapped transform via time-domain
    pre- and post-filtering", IEEE Transactions on Signal Processing 51(6)): each coefficient stands
    for a wave over two squares a side, which fades out towards its ends, so that rounding leaves no
    steps at the borders.
    """
    half = side // 2
    identity = torch.eye(half, dtype=torch.float64)
    reverse = identity.flip(0)
    butterfly = torch.cat(
        [torch.cat([identity, reverse], 1), torch.cat([reverse, -identity], 1)]
    ) / math.sqrt(2)
    stretch = torch.ones(half, dtype=torch.float64)
    stretch[0] = STRETCH
    between = reverse @ cosines(half).T * stretch @ _shifted_cosines(half) @ reverse
    return butterfly @ torch.block_diag(identity, between) @ butterfly


def _shifted_cosines(size: int) -> Tensor:
    """Orthonormal DCT-IV: (frequencies, places) float64."""
    places = torch.arange(size, dtype=torch.float64) + 0.5
    return torch.cos(math.pi / size * places * places[:, None]) * math.sqrt(2 / size)
