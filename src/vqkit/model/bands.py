"""Laplacian bands of items of one to three dimensions: how far two differ in edges and texture, and
how much fine detail one has.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of the extent, below which an item is not made smaller: texture of fewer positions says nothing.
SMALLEST = 4
MAX_BANDS = 4
# Positions along each dimension over which the strength of a band is averaged.
WINDOW = 4
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def halved(x: Tensor) -> Tensor:
    """x (B, C, *extent) at half its extent, rounded up: means of what falls together."""
    return F.interpolate(x, [-(-side // 2) for side in x.shape[2:]], mode="area")


def laplacian_bands(x: Tensor, count: int) -> list[Tensor]:
    """What halving loses (B, C, *extent), then of the half, and so on: up to `count` bands, from
    fine to coarse (Burt and Adelson 1983).

    Their number ends where a side would fall below SMALLEST. What is left over is not among them.
    """
    bands: list[Tensor] = []
    while len(bands) < count and min(x.shape[2:]) >= 2 * SMALLEST:
        smaller = halved(x)
        mode = _LINEAR[x.dim() - 2]
        bands.append(x - F.interpolate(smaller, x.shape[2:], mode=mode, align_corners=False))
        x = smaller
    return bands


class BandDistance(nn.Module):
    """A distance of standardised items (B, C, *extent) that needs no trained network.

    A mean over scales of three L1 distances: of gradients along each dimension, of Laplacian bands,
    and of the local strength of the bands, which is a root mean square over WINDOW positions. The
    last one sees texture wherever its grains lie.
    """

    name = "bands"

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        total = first.new_zeros(())
        pairs = zip(
            laplacian_bands(first, MAX_BANDS), laplacian_bands(second, MAX_BANDS), strict=True
        )
        count = 0
        for one, other in pairs:
            total = total + _gradient_distance(first, second) + F.l1_loss(one, other)
            total = total + F.l1_loss(_strength(one), _strength(other))
            first = halved(first)
            second = halved(second)
            count += 1
        if not count:
            return _gradient_distance(first, second)
        return total / count


def _gradient_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean over the dimensions of the L1 distance of the differences of neighbours."""
    dims = [dim for dim in range(2, first.dim()) if first.shape[dim] > 1]
    difference = first - second
    parts = [difference.diff(dim=dim).abs().mean() for dim in dims]
    return torch.stack(parts).mean() if parts else difference.abs().mean()


def _strength(band: Tensor) -> Tensor:
    """Root mean square of a band over windows of WINDOW positions along each dimension."""
    extent = [-(-side // WINDOW) for side in band.shape[2:]]
    # The root of nothing has no gradient.
    return (F.interpolate(band.square(), extent, mode="area") + 1e-6).sqrt()


def detail(values: Tensor, original: Tensor) -> Tensor:
    """Energy of the finest Laplacian band beside that of the original, in dB: (B, C, *extent) twice
    -> (B,).

    0 = as much as the original, below = blurred, above = more than there was. 0 where items are too
    small to have a band.
    """
    energies = []
    for x in (values.float(), original.float()):
        bands = laplacian_bands(x, 1)
        if not bands:
            return torch.zeros(len(values), device=values.device)
        energies.append(bands[0].square().flatten(1).mean(1))
    # An item without any detail has about as much as rounding to whole values makes.
    floor = 1 / 12
    return 10 * torch.log10((energies[0] + floor) / (energies[1] + floor))
