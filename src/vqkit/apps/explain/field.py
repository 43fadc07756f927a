"""Which pixels a code depends on: the receptive field of an encoder, measured by gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...model.autoencoder import Autoencoder

# Random directions in the latents of a cell whose gradients are averaged.
NUM_PROBES = 8
# Share of the squared gradient that the effective field holds.
SHARE = 0.95


@dataclass(frozen=True)
class ReceptiveField:
    """What the latents of one cell of the codes' grid see.

    energy: (H, W) float64, share of the squared gradient that each pixel has; sums to 1. cell: rows
    and columns of pixels of one cell. row, column: the cell that was measured. extent: height and
    width of the smallest box that holds every pixel with a gradient. margin: pixels around the cell
    up to which SHARE of the energy lies.
    """

    energy: np.ndarray
    cell: tuple[int, int]
    row: int
    column: int
    extent: tuple[int, int]
    margin: int

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the effective field."""
        return self.cell[0] + 2 * self.margin, self.cell[1] + 2 * self.margin


def receptive_field(model: Autoencoder, x: Tensor, generator: torch.Generator) -> ReceptiveField:
    """Of the cell in the middle, over standardised images x (B, C, H, W).

    Luo et al. 2016 (arXiv 1701.04128): squared gradients of the latents with respect to the pixels,
    here of random combinations of all latents of the cell, whose mean is the sum over channels.
    Where the images are smaller than the field, extent and margin end at their edge.
    """
    rows, columns = model.grid(x.shape[2:])
    row = rows // 2
    column = columns // 2
    energy = _energy(model, x, (rows, columns), (row, column), generator)
    extent = (_span(energy.sum(1)), _span(energy.sum(0)))
    # Pixels of a cell; a tile need not be a whole number of cells.
    high = model.tile[0] / model.tile_grid[0]
    wide = model.tile[1] / model.tile_grid[1]
    cell = (math.ceil(high), math.ceil(wide))
    start = (round(row * high), round(column * wide))
    energy /= energy.sum()
    return ReceptiveField(energy, cell, row, column, extent, _margin(energy, start, cell))


def _energy(
    model: Autoencoder,
    x: Tensor,
    grid: tuple[int, int],
    place: tuple[int, int],
    generator: torch.Generator,
) -> np.ndarray:
    """Squared gradients (H, W) float64 of the latents of the cell at `place`, summed over images
    and channels.
    """
    x = x.detach().clone().requires_grad_(True)
    latents = model.latents(x)
    # Codes of a hierarchy lie on a coarser grid: one of its cells is several latents.
    high = latents.shape[2] // grid[0]
    wide = latents.shape[3] // grid[1]
    top = place[0] * high
    left = place[1] * wide
    inside = latents[:, :, top : top + high, left : left + wide]
    total = torch.zeros(x.shape[2:], dtype=torch.float64)
    for _ in range(NUM_PROBES):
        direction = torch.randn(inside.shape, generator=generator).to(inside.device)
        (gradient,) = torch.autograd.grad(inside, x, direction, retain_graph=True)
        total += gradient.cpu().double().square().sum((0, 1))
    if not bool(total.sum() > 0):
        raise ValueError("the latents do not depend on the images")
    return total.numpy()


def _span(energy: np.ndarray) -> int:
    """From the first to the last of (n,) that is not zero."""
    return int(np.ptp(np.nonzero(energy)[0])) + 1


def _margin(energy: np.ndarray, start: tuple[int, int], cell: tuple[int, int]) -> int:
    """Pixels around the cell within which SHARE of the energy (H, W) lies."""
    for margin in range(max(energy.shape)):
        rows = slice(max(0, start[0] - margin), start[0] + cell[0] + margin)
        columns = slice(max(0, start[1] - margin), start[1] + cell[1] + margin)
        if energy[rows, columns].sum() >= SHARE:
            return margin
    return max(energy.shape)
