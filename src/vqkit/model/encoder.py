"""Encoders: standardised images (B, C, H, W) -> latents (B, D, h, w). Each mirrors a decoder of the same name."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ConvConfig, MLPConfig, PatchConfig
from .blocks import ConvResidual, DepthwiseResidual, mlp, tile, untile


class ConvEncoder(nn.Module):
    """Strided 4x4 convolutions, then residual 3x3 blocks (arXiv 1711.00937, section 4.1).

    image --(conv4 stride 2, relu) x num_downsamplings--> conv3 --ConvResidual x num_blocks--> relu, conv1 --> latents
    """

    def __init__(self, config: ConvConfig, channels: int, latent_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(config.num_downsamplings):
            layers += [nn.Conv2d(channels if index == 0 else config.width, config.width, 4, 2, 1), nn.ReLU()]
        layers.append(nn.Conv2d(config.width, config.width, 3, padding=1))
        layers += [ConvResidual(config.width, max(1, config.width // 4)) for _ in range(config.num_blocks)]
        layers += [nn.ReLU(), nn.Conv2d(config.width, latent_dim, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class PatchEncoder(nn.Module):
    """Squares of patch_size pixels become channels; everything after works at the latent grid, channels last.

    image --space-to-depth--> linear --DepthwiseResidual x encoder_blocks--> norm, linear --> latents
    """

    def __init__(self, config: PatchConfig, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.stem = nn.Linear(channels * config.patch_size**2, config.width)
        self.blocks = nn.Sequential(
            *(DepthwiseResidual(config.width, config.expansion) for _ in range(config.encoder_blocks))
        )
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, latent_dim))

    def forward(self, x: Tensor) -> Tensor:
        patches = F.pixel_unshuffle(x.contiguous(), self.patch_size).permute(0, 2, 3, 1)  # (B, h, w, C * patch_size^2)
        return self.head(self.blocks(self.stem(patches))).permute(0, 3, 1, 2)  # (B, D, h, w)


class MLPEncoder(nn.Module):
    """Fully connected: a tile of the training size is flattened, and its output arranged as the grid.

    image --tiles of (H, W)--> flatten --Linear, ReLU, ...--> (D, h, w) a tile --> latents
    """

    def __init__(self, config: MLPConfig, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__()
        channels, self.height, self.width = image_shape
        self.latent_dim, self.grid = latent_dim, config.grid
        size = config.grid[0] * config.grid[1]
        self.layers = mlp([channels * self.height * self.width, *config.widths, latent_dim * size])

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // self.height, x.shape[3] // self.width
        latents = self.layers(tile(x, self.height, self.width).flatten(1))
        return untile(latents.reshape(-1, self.latent_dim, *self.grid), rows, columns)
