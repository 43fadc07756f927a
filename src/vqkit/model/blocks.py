"""Building blocks of encoders and decoders.

Shapes: B batch, C channels, H W pixels, h w the grid. Blocks keep the shape they are given.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvResidual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), the block of the VQ-VAE paper (arXiv 1711.00937, section 4.1)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, hidden, 3, padding=1)
        self.pointwise = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.relu(self.spatial(F.relu(x))))


class DepthwiseResidual(nn.Module):
    """x + linear(gelu(linear(norm(depthwise3x3(x))))) on (B, h, w, C), after ConvNeXt (Liu et al. 2022, 2201.03545).

    Nearly all arithmetic is two matrix products over B * h * w rows, which run at a processor's peak where 3x3
    convolutions do not. The last linear starts at zero, so that the block starts as the identity.
    """

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        nn.init.zeros_(self.contract.weight)
        nn.init.zeros_(self.contract.bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, h, w, C)
        if x.dtype == torch.float64:
            mixed = _depthwise(x, self.spatial)
        else:
            # views: (B, C, h, w) in channels-last memory
            mixed = self.spatial(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.contract(gelu(self.expand(self.norm(mixed))))


def gelu(x: Tensor) -> Tensor:
    """x times the normal distribution function of x (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    if x.dtype == torch.float64:
        return x * torch.special.ndtr(x)  # a fifth of the time that PyTorch's takes on a CPU in this type
    return F.gelu(x)


def _depthwise(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """A 3x3 convolution of each channel by itself, (B, h, w, C): processors have no fast one in float64."""
    height, width = x.shape[1:3]
    padded, weight = F.pad(x, (0, 0, 1, 1, 1, 1)), layer.weight[:, 0]  # (C, 3, 3)
    assert layer.bias is not None
    found = layer.bias.expand(x.shape).clone()
    for row in range(3):
        for column in range(3):
            found = found.addcmul(padded[:, row : row + height, column : column + width], weight[:, row, column])
    return found


def tile(x: Tensor, height: int, width: int) -> Tensor:
    """(B, C, n * height, m * width) -> (B * n * m, C, height, width), row by row."""
    batch, channels, full_height, full_width = x.shape
    rows, columns = full_height // height, full_width // width
    x = x.reshape(batch, channels, rows, height, columns, width)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch * rows * columns, channels, height, width)


def untile(tiles: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `tile`: (B * rows * columns, C, height, width) -> (B, C, rows * height, columns * width)."""
    _, channels, height, width = tiles.shape
    x = tiles.reshape(-1, rows, columns, channels, height, width)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, rows * height, columns * width)


def pad_to_multiple(x: Tensor, multiple: tuple[int, int]) -> Tensor:
    """Repeat the last row and column until height and width are multiples; crop to undo."""
    bottom, right = -x.shape[2] % multiple[0], -x.shape[3] % multiple[1]
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers of the given widths with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def num_parameters(module: nn.Module) -> int:
    """Number of learnable values."""
    return sum(parameter.numel() for parameter in module.parameters())
