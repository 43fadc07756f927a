"""Encoder and decoder of arrays of any number of dimensions."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ...model.autoencoder import Backbone, Widths
from ...model.blocks import DepthwiseResidual
from ...shapes import Shape
from .config import ArrayConfig

# Positions of an item that are computed at once.
PART_POSITIONS = 1 << 18


def build_backbone(config: ArrayConfig, shape: Shape, widths: Widths) -> Backbone:
    """The networks of items of that shape."""
    dims = len(shape.extent)
    return Backbone(
        encoder=ArrayEncoder(config, shape.channels, widths.encoder, dims),
        decoder=ArrayDecoder(config, widths.outputs, widths.latents, dims),
        tile=(config.patch,) * dims,
        tile_grid=(1,) * dims,
        reach=config.encoder_blocks + config.decoder_blocks,
        decoder_reach=config.decoder_blocks,
        part_positions=PART_POSITIONS,
        encodes_exactly=True,
    )


class ArrayEncoder(nn.Module):
    """array (B, C, *extent) --cubes to channels--> linear --DepthwiseResidual x encoder_blocks-->
    norm, linear, + linear of the cubes --> latents (B, D, *grid)

    The last linear of the blocks starts at zero: at first the encoder is a linear map of each cube,
    as principal components are.
    """

    def __init__(self, config: ArrayConfig, channels: int, latents: int, dims: int) -> None:
        super().__init__()
        self.patch = config.patch
        values = channels * config.patch**dims
        self.linear = nn.Linear(values, latents)
        self.stem = nn.Linear(values, config.width)
        self.blocks = _blocks(config, config.encoder_blocks, dims)
        self.head = nn.Sequential(nn.LayerNorm(config.width), _zero(config.width, latents))
        nn.init.orthogonal_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        cubes = to_channels(x, self.patch).movedim(1, -1)
        found = self.linear(cubes) + self.head(self.blocks(self.stem(cubes)))
        return found.movedim(-1, 1)


class ArrayDecoder(nn.Module):
    """The way back: latents --> linear, + linear of what the blocks make of them --> cubes."""

    def __init__(self, config: ArrayConfig, channels: int, latents: int, dims: int) -> None:
        super().__init__()
        self.patch = config.patch
        values = channels * config.patch**dims
        self.linear = nn.Linear(latents, values)
        self.stem = nn.Linear(latents, config.width)
        self.blocks = _blocks(config, config.decoder_blocks, dims)
        self.head = nn.Sequential(nn.LayerNorm(config.width), _zero(config.width, values))
        nn.init.orthogonal_(self.linear.weight)

    def forward(self, quantized: Tensor) -> Tensor:
        latents = quantized.movedim(1, -1)
        cubes = self.linear(latents) + self.head(self.blocks(self.stem(latents)))
        return from_channels(cubes.movedim(-1, 1), self.patch)


def to_channels(x: Tensor, side: int) -> Tensor:
    """(B, C, *extent) -> (B, C * side^dims, *grid): cubes of so many positions along each axis."""
    dims = x.dim() - 2
    for axis in range(dims):
        x = x.unflatten(2 + 2 * axis, (-1, side))
    inner = [3 + 2 * axis for axis in range(dims)]
    outer = [2 + 2 * axis for axis in range(dims)]
    return x.permute(0, 1, *inner, *outer).flatten(1, 1 + dims)


def from_channels(x: Tensor, side: int) -> Tensor:
    """The inverse of `to_channels`."""
    dims = x.dim() - 2
    channels = x.shape[1] // side**dims
    x = x.unflatten(1, (channels, *(side,) * dims))
    order = [0, 1]
    for axis in range(dims):
        order += [2 + dims + axis, 2 + axis]
    x = x.permute(*order)
    extent = [x.shape[2 + 2 * axis] * side for axis in range(dims)]
    assert math.prod(extent) * channels == x[0].numel()
    return x.reshape(len(x), channels, *extent)


def _blocks(config: ArrayConfig, count: int, dims: int) -> nn.Sequential:
    blocks = [DepthwiseResidual(config.width, config.expansion, dims) for _ in range(count)]
    return nn.Sequential(*blocks)


def _zero(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
