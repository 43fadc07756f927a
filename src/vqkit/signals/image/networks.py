"""Encoders and decoders of images: the networks of `model.network`, each pair mirrored.

Encoders: standardised images (B, C, H, W) -> latents (B, D, h, w). Decoders: quantized (B, D, h, w)
-> (B, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...model.autoencoder import Backbone, Widths
from ...model.blocks import ConvResidual, DepthwiseResidual, mlp
from ...model.tiling import tile, untile
from ...shapes import Shape
from .config import ConvConfig, MLPConfig, MultiscaleConfig, NetworkConfig, PatchConfig
from .cosine import border_filter, cosine_basis

# Positions of an image that the multi-scale networks compute at once: with fewer, the margins of
# whole squares would be most of the work.
MULTISCALE_POSITIONS = 1 << 20


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
                decoder_reach=config.num_blocks + 3,
            )
        case PatchConfig():
            return Backbone(
                encoder=PatchEncoder(config, shape.channels, widths.encoder),
                decoder=PatchDecoder(config, widths.outputs, widths.latents),
                tile=(config.patch_size,) * 2,
                tile_grid=(1, 1),
                reach=config.encoder_blocks + config.decoder_blocks,
                decoder_reach=config.decoder_blocks,
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
                decoder_reach=0,
            )
        case MultiscaleConfig():
            # The filter over borders reaches half a square; the encoder has it beside its blocks.
            encoder_reach = max(1, _reach(config.encoder_blocks))
            decoder_reach = _reach(config.decoder_blocks, 0.5)
            return Backbone(
                encoder=MultiscaleEncoder(config, shape.channels, widths.encoder),
                decoder=MultiscaleDecoder(config, widths.outputs, widths.latents),
                tile=(config.downsampling_factor,) * 2,
                tile_grid=(1, 1),
                reach=encoder_reach + decoder_reach,
                decoder_reach=decoder_reach,
                part_positions=MULTISCALE_POSITIONS,
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


class MultiscaleEncoder(nn.Module):
    """Blocks at several resolutions, finest first; their output is added to a cosine transform.

    image --space-to-depth--> linear --blocks--> [to_coarser --blocks-->] ... norm, linear -->
    + cosine transform of each square, behind the filter over their borders --> latents

    `to_coarser` is space-to-channel and a linear map, beside a shortcut without parameters that
    averages channels (Chen et al. 2024, arXiv 2410.10733, section 3.1). The last linear starts at
    zero, so that the untrained encoder is the cosine transform alone.
    """

    basis: Tensor
    border: Tensor

    def __init__(self, config: MultiscaleConfig, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.side = config.downsampling_factor
        widths = _level_widths(config.width, len(config.encoder_blocks))
        self.stem_side = config.downsampling_factor // 2 ** (len(widths) - 1)
        self.stem = nn.Linear(channels * self.stem_side**2, widths[0])
        self.blocks = nn.ModuleList()
        self.to_coarser = nn.ModuleList()
        for width, count in zip(widths, config.encoder_blocks, strict=True):
            self.blocks.append(_blocks(width, count, config.expansion))
        for width in widths[:-1]:
            self.to_coarser.append(nn.Linear(4 * width, 2 * width))
        self.norm = nn.LayerNorm(widths[-1])
        self.head = _zero(nn.Linear(widths[-1], latent_dim))
        basis = cosine_basis(channels, self.side, latent_dim)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("border", border_filter(self.side).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        h = self.stem(_to_channels(x, self.stem_side))
        h = self.blocks[0](h)
        for to_coarser, blocks in zip(self.to_coarser, list(self.blocks)[1:], strict=True):
            cells = _to_channels(h.permute(0, 3, 1, 2), 2)  # (B, h / 2, w / 2, 4 C)
            h = blocks(to_coarser(cells) + cells.unflatten(-1, (-1, 2)).mean(-1))
        learned = self.head(self.norm(h))
        with torch.autocast(x.device.type, enabled=False):
            filtered = _over_borders(x.to(self.basis.dtype), self.border)
            fixed = _to_channels(filtered, self.side) @ self.basis.T
            return (learned.to(fixed.dtype) + fixed).permute(0, 3, 1, 2)  # (B, D, h, w)


class MultiscaleDecoder(nn.Module):
    """The way back: blocks at several resolutions, coarsest first, added to the inverse cosine
    transform.

    latents --linear--> DepthwiseResidual x blocks --[to_finer, DepthwiseResidual x blocks]--> ...
    norm, linear --depth-to-space--> + inverse cosine transform --> inverse of the filter over the
    borders of squares --> image

    What the blocks add comes before that filter too, so that it leaves no steps at borders either.
    """

    basis: Tensor
    border: Tensor

    def __init__(self, config: MultiscaleConfig, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.side = config.downsampling_factor
        widths = _level_widths(config.width, len(config.decoder_blocks))[::-1]
        self.head_side = config.downsampling_factor // 2 ** (len(widths) - 1)
        self.stem = nn.Linear(latent_dim, widths[0])
        self.blocks = nn.ModuleList()
        self.to_finer = nn.ModuleList()
        for width, count in zip(widths, reversed(config.decoder_blocks), strict=True):
            self.blocks.append(_blocks(width, count, config.expansion))
        for width in widths[1:]:
            self.to_finer.append(nn.Linear(2 * width, 4 * width))
        self.norm = nn.LayerNorm(widths[-1])
        self.head = _zero(nn.Linear(widths[-1], channels * self.head_side**2))
        basis = cosine_basis(channels, self.side, latent_dim)
        self.register_buffer("basis", basis, persistent=False)
        border = border_filter(self.side).inverse().float()
        self.register_buffer("border", border, persistent=False)

    def forward(self, quantized: Tensor) -> Tensor:
        latents = quantized.permute(0, 2, 3, 1)
        h = self.blocks[0](self.stem(_compressed(latents)))
        for to_finer, blocks in zip(self.to_finer, list(self.blocks)[1:], strict=True):
            cells = to_finer(h) + h.repeat_interleave(2, -1)  # (B, h, w, 4 C)
            h = blocks(F.pixel_shuffle(cells.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1))
        learned = F.pixel_shuffle(self.head(self.norm(h)).permute(0, 3, 1, 2), self.head_side)
        with torch.autocast(quantized.device.type, enabled=False):
            fixed = (latents.to(self.basis.dtype) @ self.basis).permute(0, 3, 1, 2)
            whole = F.pixel_shuffle(fixed, self.side) + learned.to(fixed.dtype)
            return _over_borders(whole, self.border)


def _reach(blocks: Sequence[int], more: float = 0.0) -> int:
    """Positions of the latent grid that blocks of every level, the finest first, look around, and
    what is added to that.
    """
    for depth, count in enumerate(reversed(blocks)):
        more += count / 2**depth
    return math.ceil(more)


def _level_widths(width: int, num_levels: int) -> list[int]:
    """Channels of every level, the finest first."""
    return [width >> depth for depth in reversed(range(num_levels))]


def _blocks(width: int, count: int, expansion: int) -> nn.Sequential:
    return nn.Sequential(*[DepthwiseResidual(width, expansion) for _ in range(count)])


def _to_channels(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, H / side, W / side, C * side^2)."""
    return F.pixel_unshuffle(x, side).permute(0, 2, 3, 1)


def _over_borders(x: Tensor, matrix: Tensor) -> Tensor:
    """x (B, C, H, W) with `matrix` (side, side) applied to the pixels around every border between
    two squares, along rows and along columns.
    """
    side = len(matrix)
    half = side // 2
    num_rows, num_columns = (length // side - 1 for length in x.shape[2:])
    rows = matrix @ x[..., half:-half, :].unflatten(2, (num_rows, side))
    x = torch.cat([x[..., :half, :], rows.flatten(2, 3), x[..., -half:, :]], 2)
    columns = x[..., half:-half].unflatten(3, (num_columns, side)) @ matrix.T
    return torch.cat([x[..., :half], columns.flatten(3), x[..., -half:]], 3)


def _compressed(latents: Tensor) -> Tensor:
    """Latents with large values drawn nearer: the mean of a square is ten times its detail."""
    return latents / (1 + latents.abs()).sqrt()


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
