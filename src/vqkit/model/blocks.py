"""Building blocks of encoders and decoders.

Shapes: B batch, C channels, *grid any of one to three dimensions. Blocks keep the shape they are
given.
"""

from __future__ import annotations

import itertools
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
# By the number of dimensions that they move along.
CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}


class ConvResidual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), the block of the VQ-VAE paper (arXiv 1711.00937, section
    4.1).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, hidden, 3, padding=1)
        self.pointwise = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.relu(self.spatial(F.relu(x))))


class DepthwiseResidual(nn.Module):
    """x + linear(gelu(linear(norm(depthwise(x))))) on (B, *grid, C), after ConvNeXt (Liu et al.
    2022, 2201.03545).

    Nearly all arithmetic is two matrix products over all positions, which run at a processor's peak
    where convolutions over all channels do not. The last linear starts at zero, so that the block
    starts as the identity.
    """

    def __init__(self, width: int, expansion: int, dims: int = 2) -> None:
        super().__init__()
        self.spatial = CONVOLUTIONS[dims](width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        nn.init.zeros_(self.contract.weight)
        nn.init.zeros_(self.contract.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, *grid, C)
        if x.dtype == torch.float64:
            mixed = _depthwise(x, self.spatial)
        else:
            # Both moves are views: (B, C, *grid) in channels-last memory.
            mixed = self.spatial(x.movedim(-1, 1)).movedim(1, -1)
        return x + self.contract(gelu(self.expand(self.norm(mixed))))


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution function of x (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    if x.dtype == torch.float64:
        # A fifth of the time that PyTorch's takes on a CPU in this type.
        return x * torch.special.ndtr(x)
    return F.gelu(x)


def _depthwise(x: Tensor, layer: Convolution) -> Tensor:
    """A convolution of width 3 of each channel by itself, (B, *grid, C): processors have no fast
    one in float64.
    """
    grid = x.shape[1:-1]
    padded = F.pad(x, (0, 0, *(1, 1) * len(grid)))
    weight = layer.weight[:, 0]  # (C, 3, 3, ...)
    assert layer.bias is not None
    found = layer.bias.expand(x.shape).clone()
    for offset in itertools.product(range(3), repeat=len(grid)):
        inside = [slice(start, start + side) for start, side in zip(offset, grid, strict=True)]
        window: tuple[slice, ...] = (slice(None), *inside)
        tap: tuple[slice | int, ...] = (slice(None), *offset)
        found = found.addcmul(padded[window], weight[tap])
    return found


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers of the given widths with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def num_parameters(module: nn.Module) -> int:
    """Number of learnable values."""
    return sum(parameter.numel() for parameter in module.parameters())
