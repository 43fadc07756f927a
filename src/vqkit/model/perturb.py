"""Random changes of what a discriminator sees, through which gradients pass (DiffAugment, Zhao et
al. 2020, arXiv 2006.10738), in any number of dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Perturbation = Callable[[Tensor], Tensor]

# Of every side: how far items are moved at most, and how much of it is cut out.
SHIFT = 0.125
HOLE = 0.5


def translation(count: int, extent: Sequence[int], generator: torch.Generator) -> Perturbation:
    """Items (B, C, *extent) moved by up to an eighth of each side, with zeros moved in."""
    device = generator.device
    sources = []
    for side in extent:
        reach = int(side * SHIFT + 0.5)
        drawn = torch.randint(-reach, reach + 1, (count, 1), generator=generator, device=device)
        # Where each position of the result comes from: (B, side).
        sources.append(torch.arange(side, device=device) + drawn)

    def moved(x: Tensor) -> Tensor:
        for dim, source in enumerate(sources, start=2):
            side = x.shape[dim]
            inside = (source >= 0) & (source < side)
            index = _along(source.clamp(0, side - 1), dim, x.dim())
            x = x.gather(dim, index.expand_as(x)) * _along(inside, dim, x.dim())
        return x

    return moved


def cutout(count: int, extent: Sequence[int], generator: torch.Generator) -> Perturbation:
    """Items (B, C, *extent) with zeros in a box of half of each side, somewhere, also over the
    edge.
    """
    device = generator.device
    insides = []
    for side in extent:
        hole = max(1, int(side * HOLE + 0.5))
        centre = torch.randint(0, side + 1, (count, 1), generator=generator, device=device)
        distance = torch.arange(side, device=device) - (centre - hole // 2)
        insides.append((distance >= 0) & (distance < hole))

    def holed(x: Tensor) -> Tensor:
        hole = torch.ones((), dtype=torch.bool, device=x.device)
        for dim, inside in enumerate(insides, start=2):
            hole = hole & _along(inside, dim, x.dim())
        return x * ~hole

    return holed


def joined(perturbations: Sequence[Perturbation]) -> Perturbation:
    """One after the other."""

    def all_of_them(x: Tensor) -> Tensor:
        for perturbation in perturbations:
            x = perturbation(x)
        return x

    return all_of_them


def _along(values: Tensor, dim: int, dims: int) -> Tensor:
    """(B, side) as (B, 1, ..., side, ..., 1) with its side at `dim` of `dims`."""
    shape = [1] * dims
    shape[0] = values.shape[0]
    shape[dim] = values.shape[1]
    return values.view(shape)
