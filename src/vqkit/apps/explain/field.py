"""Which values a code depends on: the receptive field of an encoder, measured by gradients."""

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
    """What the latents of one cell of the codes' grid see; a number for each dimension of an item.

    energy: (*extent) float64, share of the squared gradient that each position has; sums to 1.
    cell: positions of one cell. place: the cell that was measured. extent: sides of the smallest
    box that holds every position with a gradient. margin: positions around the cell up to which
    SHARE of the energy lies.
    """

    energy: np.ndarray
    cell: tuple[int, ...]
    place: tuple[int, ...]
    extent: tuple[int, ...]
    margin: int

    @property
    def side(self) -> tuple[int, ...]:
        """Sides of the effective field."""
        return tuple(length + 2 * self.margin for length in self.cell)


def receptive_field(
    model: Autoencoder, x: Tensor, generator: torch.Generator, *, has_symbols: bool = False
) -> ReceptiveField:
    """Of the cell in the middle, over standardised items x (B, C, *extent).

    Luo et al. 2016 (arXiv 1701.04128): squared gradients of the latents with respect to the values,
    here of random combinations of all latents of the cell, whose mean is the sum over channels.
    Where the items are smaller than the field, extent and margin end at their edge. has_symbols:
    values have no gradients, so that each position in turn takes a value of another item, and the
    squared changes of the latents are counted.
    """
    grid = model.grid(x.shape[2:])
    place = tuple(side // 2 for side in grid)
    if has_symbols:
        energy = _changes(model, x, grid, place)
    else:
        energy = _energy(model, x, grid, place, generator)
    extent = []
    cell = []
    start = []
    for axis, (tile, cells) in enumerate(zip(model.tile, model.tile_grid, strict=True)):
        others = tuple(other for other in range(energy.ndim) if other != axis)
        extent.append(_span(energy.sum(others)))
        # Positions of a cell; a tile need not be a whole number of cells.
        cell.append(math.ceil(tile / cells))
        start.append(round(place[axis] * tile / cells))
    energy /= energy.sum()
    margin = _margin(energy, start, cell)
    return ReceptiveField(energy, tuple(cell), place, tuple(extent), margin)


def _energy(
    model: Autoencoder,
    x: Tensor,
    grid: tuple[int, ...],
    place: tuple[int, ...],
    generator: torch.Generator,
) -> np.ndarray:
    """Squared gradients (*extent) float64 of the latents of the cell at `place`, summed over items
    and channels.
    """
    x = x.detach().clone().requires_grad_(True)
    inside = _inside(model.latents(x), grid, place)
    total = torch.zeros(x.shape[2:], dtype=torch.float64)
    for _ in range(NUM_PROBES):
        direction = torch.randn(inside.shape, generator=generator).to(inside.device)
        (gradient,) = torch.autograd.grad(inside, x, direction, retain_graph=True)
        total += gradient.cpu().double().square().sum((0, 1))
    if not bool(total.sum() > 0):
        raise ValueError("the latents do not depend on the items")
    return total.numpy()


@torch.no_grad()
def _changes(
    model: Autoencoder, x: Tensor, grid: tuple[int, ...], place: tuple[int, ...]
) -> np.ndarray:
    """As `_energy`, of items along one dimension whose values are symbols."""
    # Items may be alike place by place, but hardly forwards and backwards.
    others = x.roll(1, 0).flip(2)
    before = _inside(model.latents(x), grid, place)
    total = np.zeros(x.shape[2])
    around = model.encoder_reach
    tile = place[0] // model.tile_grid[0]
    first = max(0, (tile - around.back) * model.tile[0])
    end = min(x.shape[2], (tile + around.ahead + 1) * model.tile[0])
    for position in range(first, end):
        changed = x.clone()
        changed[:, :, position] = others[:, :, position]
        moved = _inside(model.latents(changed), grid, place) - before
        total[position] = float(moved.double().square().sum())
    if not total.sum() > 0:
        raise ValueError("the latents do not depend on the items")
    return total


def _inside(latents: Tensor, grid: tuple[int, ...], place: tuple[int, ...]) -> Tensor:
    """Latents (B, D, *grid) of one cell of the codes' grid."""
    for axis, (side, number) in enumerate(zip(grid, place, strict=True), 2):
        # Codes of a hierarchy lie on a coarser grid: one of its cells is several latents.
        several = latents.shape[axis] // side
        latents = latents.narrow(axis, number * several, several)
    return latents


def _span(energy: np.ndarray) -> int:
    """From the first to the last of (n,) that is not zero."""
    return int(np.ptp(np.nonzero(energy)[0])) + 1


def _margin(energy: np.ndarray, start: list[int], cell: list[int]) -> int:
    """Positions around the cell within which SHARE of the energy (*extent) lies."""
    for margin in range(max(energy.shape)):
        box = []
        for first, length in zip(start, cell, strict=True):
            box.append(slice(max(0, first - margin), first + length + margin))
        if energy[tuple(box)].sum() >= SHARE:
            return margin
    return max(energy.shape)
