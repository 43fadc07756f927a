"""Encoders and decoders of images: the networks of `model.network`, each pair mirrored.

Encoders: standardised images (B, C, H, W) -> latents (B, D, h, w). Decoders: quantized (B, D, h, w)
-> (B, C, H, W).
"""

from __future__ import annotations

from typing import assert_never

from torch import Tensor, nn
from torch.nn import functional as F

from ...model.autoencoder import Backbone, Widths
from ...model.blocks import ConvResidual, DepthwiseResidual, mlp
from ...model.tiling import tile, untile
from ...shapes import Shape
from .config import ConvConfig, MLPConfig, NetworkConfig, PatchConfig


def build_backbone(config: NetworkConfig, shape: Shape, widths: Widths) -> Backbone:
    """The encoder and decoder of a config; this `match` is the registry of networks."""
    match config:
        case ConvConfig():
            # A 3x3 convolution and `num_blocks` of them on either side, and what 4x4 strides add.
            return Backbone(
                encoder=ConvEncoder(config, shape.channels, widths.encoder),
                decoder=ConvDecoder(config, widths.outputs, widths.latents),
                tile=(2**config.num_downsamplings,) * 2,
                tile_grid=(1, 1),
                reach=2 * (config.num_blocks + 1) + 4,
            )
        case PatchConfig():
            return Backbone(
                encoder=PatchEncoder(config, shape.channels, widths.encoder),
                decoder=PatchDecoder(config, widths.outputs, widths.latents),
                tile=(config.patch_size,) * 2,
                tile_grid=(1, 1),
                reach=config.encoder_blocks + config.decoder_blocks,
            )
        case MLPConfig():
            # The decoder is built first: the order in which weights are drawn is a part of every
            # recorded loss.
            decoder = MLPDecoder(config, Shape(widths.outputs, shape.extent), widths.latents)
            return Backbone(
                encoder=MLPEncoder(config, shape, widths.encoder),
                decoder=decoder,
                tile=shape.extent,
                tile_grid=config.grid,
                reach=0,
            )
        case _:
            assert_never(config)


def _depthwise_blocks(count: int, config: PatchConfig) -> nn.Sequential:
    blocks = [DepthwiseResidual(config.width, config.expansion) for _ in range(count)]
    return nn.Sequential(*blocks)


class ConvEncoder(nn.Module):
    """Strided 4x4 convolutions, then residual 3x3 blocks (arXiv 1711.00937, section 4.1).

    image --(conv4 stride 2, relu) x num_downsamplings--> conv3 --ConvResidual x num_blocks--> relu,
    conv1 --> latents
    """

    def __init__(self, config: ConvConfig, channels: int, latent_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for _ in range(config.num_downsamplings):
            layers += [nn.Conv2d(inputs, config.width, 4, 2, 1), nn.ReLU()]
            inputs = config.width
        layers.append(nn.Conv2d(config.width, config.width, 3, padding=1))
        for _ in range(config.num_blocks):
            layers.append(ConvResidual(config.width, max(1, config.width // 4)))
        layers += [nn.ReLU(), nn.Conv2d(config.width, latent_dim, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class PatchEncoder(nn.Module):
    """Squares of patch_size pixels become channels.

    Everything after works at the latent grid, channels last.

    image --space-to-depth--> linear --DepthwiseResidual x encoder_blocks--> norm, linear -->
    latents
    """

    def __init__(self, config: PatchConfig, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.stem = nn.Linear(channels * config.patch_size**2, config.width)
        self.blocks = _depthwise_blocks(config.encoder_blocks, config)
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, latent_dim))

    def forward(self, x: Tensor) -> Tensor:
        # (B, h, w, C * patch_size^2)
        patches = F.pixel_unshuffle(x.contiguous(), self.patch_size).permute(0, 2, 3, 1)
        return self.head(self.blocks(self.stem(patches))).permute(0, 3, 1, 2)  # (B, D, h, w)


class MLPEncoder(nn.Module):
    """Fully connected: a tile of the training size is flattened, and its output arranged as the
    grid.

    image --tiles of (H, W)--> flatten --Linear, ReLU, ...--> (D, h, w) a tile --> latents
    """

    def __init__(self, config: MLPConfig, shape: Shape, latent_dim: int) -> None:
        super().__init__()
        self.extent = shape.extent
        self.latent_dim = latent_dim
        self.grid = config.grid
        outputs = latent_dim * config.grid[0] * config.grid[1]
        self.layers = mlp([shape.num_values, *config.widths, outputs])

    def forward(self, x: Tensor) -> Tensor:
        counts = [full // side for full, side in zip(x.shape[2:], self.extent, strict=True)]
        latents = self.layers(tile(x, self.extent).flatten(1))
        return untile(latents.reshape(-1, self.latent_dim, *self.grid), counts)


class ConvDecoder(nn.Module):
    """Residual 3x3 blocks, then transposed 4x4 convolutions (arXiv 1711.00937, section 4.1).

    latents --> conv3 --ConvResidual x num_blocks--> relu --(transposed conv4 stride 2) x
    num_downsamplings--> image
    """

    def __init__(self, config: ConvConfig, channels: int, latent_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(latent_dim, config.width, 3, padding=1)]
        for _ in range(config.num_blocks):
            layers.append(ConvResidual(config.width, max(1, config.width // 4)))
        for index in range(config.num_downsamplings):
            is_last = index == config.num_downsamplings - 1
            outputs = channels if is_last else config.width
            layers += [nn.ReLU(), nn.ConvTranspose2d(config.width, outputs, 4, 2, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, quantized: Tensor) -> Tensor:
        return self.layers(quantized)


class PatchDecoder(nn.Module):
    """All work at the latent grid, channels last.

    Channels become squares of patch_size pixels at the very end.

    latents --> linear --DepthwiseResidual x decoder_blocks--> norm, linear --depth-to-space-->
    image
    """

    def __init__(self, config: PatchConfig, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.stem = nn.Linear(latent_dim, config.width)
        self.blocks = _depthwise_blocks(config.decoder_blocks, config)
        outputs = channels * config.patch_size**2
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, outputs))

    def forward(self, quantized: Tensor) -> Tensor:
        # (B, h, w, C * patch_size^2)
        patches = self.head(self.blocks(self.stem(quantized.permute(0, 2, 3, 1))))
        return F.pixel_shuffle(patches.permute(0, 3, 1, 2), self.patch_size)


class MLPDecoder(nn.Module):
    """Fully connected, from a tile of the grid to a tile of the training size.

    latents --tiles of (h, w)--> flatten --Linear, ReLU, ...--> (C, H, W) a tile --> image
    """

    def __init__(self, config: MLPConfig, shape: Shape, latent_dim: int) -> None:
        super().__init__()
        self.shape = shape
        self.grid = config.grid
        inputs = latent_dim * config.grid[0] * config.grid[1]
        self.layers = mlp([inputs, *reversed(config.widths), shape.num_values])

    def forward(self, quantized: Tensor) -> Tensor:
        counts = [full // side for full, side in zip(quantized.shape[2:], self.grid, strict=True)]
        pixels = self.layers(tile(quantized, self.grid).flatten(1))
        return untile(pixels.reshape(-1, self.shape.channels, *self.shape.extent), counts)
