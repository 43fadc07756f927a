"""Wires encoder, quantizer and decoder, and owns every size that follows from the settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import ConvConfig, MLPConfig, ModelConfig, NetworkConfig, PatchConfig
from .blocks import pad_to_multiple
from .decoder import ConvDecoder, MLPDecoder, PatchDecoder
from .encoder import ConvEncoder, MLPEncoder, PatchEncoder
from .likelihood import Distortion, Likelihood
from .quantizers import build_quantizer


def build_networks(
    config: NetworkConfig, image_shape: tuple[int, int, int], encoder_dim: int, latent_dim: int
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of a config; this `match` is the registry."""
    channels = image_shape[0]
    match config:
        case ConvConfig():
            return ConvEncoder(config, channels, encoder_dim), ConvDecoder(config, channels, latent_dim)
        case PatchConfig():
            return PatchEncoder(config, channels, encoder_dim), PatchDecoder(config, channels, latent_dim)
        case MLPConfig():
            return MLPEncoder(config, image_shape, encoder_dim), MLPDecoder(config, image_shape, latent_dim)


class Output(NamedTuple):
    """Result of a forward pass.

    reconstruction: (B, C, H, W) standardised; codes: (B, Q, *grid) int64; terms: unweighted scalar losses by name,
    each per value of the image.
    """

    reconstruction: Tensor
    codes: Tensor
    terms: dict[str, Tensor]


class Autoencoder(nn.Module):
    """image (B, C, H, W) -> encoder -> latents -> quantizer -> quantized -> decoder -> image.

    Images are standardised float32. Any height and width will do: images are padded to whole tiles by repeating their
    edge, and cropped back. `image_shape` (C, H, W) is the size of training, which only `mlp` depends on.
    """

    def __init__(
        self, config: ModelConfig, image_shape: tuple[int, int, int], distortion: Distortion, std: Sequence[float]
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.quantizer = build_quantizer(config.quantizer)
        self.encoder, self.decoder = build_networks(
            config.network, image_shape, self.quantizer.latent_dim, self.quantizer.latent_dim
        )
        self.likelihood = Likelihood(distortion, std)
        multiple = self.quantizer.grid_multiple
        tile, self.tile_grid = _tile_sizes(config.network, image_shape)
        self.tile = (tile[0] * multiple, tile[1] * multiple)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Output:
        result = self.quantizer(self.latents(x), generator)
        reconstruction = self._pixels(result.quantized, (x.shape[2], x.shape[3]))
        terms = {"reconstruction": self.likelihood(reconstruction, x), **result.terms}
        if (
            "kl" in terms
        ):  # nats per image; reconstruction is a mean over values, and so must be what it is weighed with
            terms["kl"] = terms["kl"] / x[0].numel()
        return Output(reconstruction, result.codes, terms)

    def latents(self, x: Tensor) -> Tensor:
        """Standardised images (B, C, H, W) -> encoder output (B, encoder_dim, *grid)."""
        return self.encoder(pad_to_multiple(x, self.tile))

    def encode(self, x: Tensor) -> Tensor:
        """Standardised images (B, C, H, W) -> codes (B, Q, *grid) int64."""
        return self.quantizer.encode(self.latents(x))

    def decode(self, codes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Codes (B, Q, *grid) -> standardised images (B, C, *size), whole tiles when size is None."""
        return self._pixels(self.quantizer.decode(codes), size)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the codes of an image of `size` (height, width)."""
        rows, columns = (-(-side // step) for side, step in zip(size, self.tile, strict=True))
        return rows * self.tile_grid[0], columns * self.tile_grid[1]

    def bits_per_image(self, size: tuple[int, int]) -> float:
        """Bits of all codes of an image without entropy coding."""
        return self.quantizer.bits_per_position * math.prod(self.grid(size))

    def _pixels(self, quantized: Tensor, size: tuple[int, int] | None) -> Tensor:
        pixels = self.decoder(quantized).float()
        return pixels if size is None else pixels[:, :, : size[0], : size[1]]


def _tile_sizes(config: NetworkConfig, image_shape: tuple[int, int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Smallest image that a network takes (height, width), and its grid."""
    match config:
        case ConvConfig():
            return (2**config.num_downsamplings,) * 2, (1, 1)
        case PatchConfig():
            return (config.patch_size,) * 2, (1, 1)
        case MLPConfig():
            return image_shape[1:], config.grid
