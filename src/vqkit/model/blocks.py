"""Building blocks of encoders and decoders.

Shapes: B batch, C channels, *grid any of one to three dimensions. Blocks keep the shape they are
given.
"""

from __future__ import annotations

import itertools
import math
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

# Values of a block that are computed at once in float64.
ROW_VALUES = 1 << 17


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
    starts as the identity. A position sees its neighbours; in a causal block, which has one
    dimension, it sees itself and the two before it. Beyond the edges there are zeros.
    """

    def __init__(
        self, width: int, expansion: int, dims: int = 2, *, is_causal: bool = False
    ) -> None:
        super().__init__()
        if is_causal and dims != 1:
            raise ValueError(f"causal blocks have one dimension, not {dims}")
        self.is_causal = is_causal
        padding = 0 if is_causal else 1
        self.spatial = CONVOLUTIONS[dims](width, width, 3, padding=padding, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        nn.init.zeros_(self.contract.weight)
        nn.init.zeros_(self.contract.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, *grid, C)
        is_exact = x.dtype == torch.float64 and not torch.is_grad_enabled()
        # Rows are so many; an exported program serves any number of them.
        if is_exact and not torch.compiler.is_exporting():
            return self._by_rows(x)
        seen = F.pad(x, (0, 0, 2, 0)) if self.is_causal else x
        # Both moves are views: (B, C, *grid) in channels-last memory.
        mixed = self.spatial(seen.movedim(-1, 1)).movedim(1, -1)
        return x + self.contract(F.gelu(self.expand(self.norm(mixed))))

    def _by_rows(self, x: Tensor) -> Tensor:
        """As `forward`, for a model that is decoded in float64: a few rows of the grid after the
        other, whose values stay in a processor's cache.
        """
        # F.pad takes the amounts before and behind, from the last dimension to the first.
        around = (2, 0) if self.is_causal else (1, 1) * (x.dim() - 2)
        padded = F.pad(x, (0, 0, *around))
        step = max(1, ROW_VALUES // x[:, :1].numel())
        out = torch.empty_like(x)
        for start in range(0, x.shape[1], step):
            rows = slice(start, start + step)
            mixed = _depthwise(padded[:, start : start + step + 2], self.spatial)
            hidden = gelu(self.expand(self.norm(mixed)))
            out[:, rows] = self.contract(hidden).add_(x[:, rows])
        return out


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution function of x (Hendrycks & Gimpel 2016, arXiv 1606.08415), in
    a third of the time that PyTorch's takes on a CPU in float64; without a gradient.
    """
    share = torch.mul(x, math.sqrt(0.5)).erf_().add_(1)
    return share.mul_(x).mul_(0.5)


def _depthwise(padded: Tensor, layer: Convolution) -> Tensor:
    """A convolution of width 3 of each channel by itself: processors have no fast one in float64.

    padded: (B, *grid, C) with two positions more along each dimension than the result.
    """
    grid = [side - 2 for side in padded.shape[1:-1]]
    weight = layer.weight[:, 0]  # (C, 3, 3, ...)
    assert layer.bias is not None
    found = layer.bias.repeat(len(padded), *grid, 1)
    for offset in itertools.product(range(3), repeat=len(grid)):
        inside = [slice(start, start + side) for start, side in zip(offset, grid, strict=True)]
        window: tuple[slice, ...] = (slice(None), *inside)
        tap: tuple[slice | int, ...] = (slice(None), *offset)
        found.addcmul_(padded[window], weight[tap])
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
