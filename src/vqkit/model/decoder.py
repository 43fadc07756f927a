"""Decoders: quantized latents (B, D, h, w) -> standardised images (B, C, H, W). Each mirrors an encoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ConvConfig, MLPConfig, PatchConfig
from .blocks import ConvResidual, DepthwiseResidual, mlp, tile, untile


class ConvDecoder(nn.Module):
    """Residual 3x3 blocks, then transposed 4x4 convolutions (arXiv 1711.00937, section 4.1).

    latents --> conv3 --ConvResidual x num_blocks--> relu --(transposed conv4 stride 2) x num_downsamplings--> image
    """

    def __init__(self, config: ConvConfig, channels: int, latent_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(latent_dim, config.width, 3, padding=1)]
        layers += [ConvResidual(config.width, max(1, config.width // 4)) for _ in range(config.num_blocks)]
        for index in range(config.num_downsamplings):
            last = index == config.num_downsamplings - 1
            layers += [nn.ReLU(), nn.ConvTranspose2d(config.width, channels if last else config.width, 4, 2, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, quantized: Tensor) -> Tensor:
        return self.layers(quantized)


class PatchDecoder(nn.Module):
    """All work at the latent grid, channels last; channels become squares of patch_size pixels at the very end.

    latents --> linear --DepthwiseResidual x decoder_blocks--> norm, linear --depth-to-space--> image
    """

    def __init__(self, config: PatchConfig, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.stem = nn.Linear(latent_dim, config.width)
        self.blocks = nn.Sequential(
            *(DepthwiseResidual(config.width, config.expansion) for _ in range(config.decoder_blocks))
        )
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, channels * config.patch_size**2))

    def forward(self, quantized: Tensor) -> Tensor:
        patches = self.head(self.blocks(self.stem(quantized.permute(0, 2, 3, 1))))  # (B, h, w, C * patch_size^2)
        return F.pixel_shuffle(patches.permute(0, 3, 1, 2), self.patch_size)


class MLPDecoder(nn.Module):
    """Fully connected, from a tile of the grid to a tile of the training size.

    latents --tiles of (h, w)--> flatten --Linear, ReLU, ...--> (C, H, W) a tile --> image
    """

    def __init__(self, config: MLPConfig, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__()
        self.image_shape, self.grid = image_shape, config.grid
        channels, height, width = image_shape
        size = config.grid[0] * config.grid[1]
        self.layers = mlp([latent_dim * size, *reversed(config.widths), channels * height * width])

    def forward(self, quantized: Tensor) -> Tensor:
        rows, columns = quantized.shape[2] // self.grid[0], quantized.shape[3] // self.grid[1]
        pixels = self.layers(tile(quantized, *self.grid).flatten(1))
        return untile(pixels.reshape(-1, *self.image_shape), rows, columns)
