"""The discrete cosine transform, which fixed transforms of several signals are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosines(size: int) -> Tensor:
    """Orthonormal DCT-II: (frequencies, places) float64."""
    places = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi / size * (places + 0.5) * places[:, None]) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows
