"""Wires encoder, transform, quantizer and decoder, and owns every size that follows from the settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import ConvConfig, LossConfig, MLPConfig, ModelConfig, NetworkConfig, PatchConfig
from . import gaussian
from .blocks import pad_to_multiple
from .decoder import ConvDecoder, MLPDecoder, PatchDecoder
from .encoder import ConvEncoder, MLPEncoder, PatchEncoder
from .likelihood import Likelihood
from .normality import build_normality
from .quantizers import build_quantizer
from .transform import build_transform


def build_networks(
    config: NetworkConfig, image_shape: tuple[int, int, int], encoder_dim: int, latent_dim: int, outputs: int
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of a config, the decoder with that many output channels; this `match` is the registry."""
    channels, height, width = image_shape
    match config:
        case ConvConfig():
            return ConvEncoder(config, channels, encoder_dim), ConvDecoder(config, outputs, latent_dim)
        case PatchConfig():
            return PatchEncoder(config, channels, encoder_dim), PatchDecoder(config, outputs, latent_dim)
        case MLPConfig():
            decoder = MLPDecoder(config, (outputs, height, width), latent_dim)
            return MLPEncoder(config, image_shape, encoder_dim), decoder


class Output(NamedTuple):
    """Result of a forward pass.

    reconstruction: (B, C, H, W) standardised; codes: (B, Q, *grid) int64; terms: unweighted scalar losses by name,
    each per value of the image.
    """

    reconstruction: Tensor
    codes: Tensor
    terms: dict[str, Tensor]


class Autoencoder(nn.Module):
    """image (B, C, H, W) -> encoder -> z -> transform -> quantizer -> transform's inverse -> decoder -> image.

    With `config.variational` the encoder gives a mean and a variance, and training draws z from them; eval takes the
    mean. Where `losses.kl` is 0 nothing asks for a variance, so there is none: z is the encoder's output, to the bit.
    Images are standardised float32. Any height and width will do: images are padded to whole tiles by repeating their
    edge, and cropped back. `image_shape` (C, H, W) is the size of training, which only `mlp` depends on; `std` and
    `mean` (C,) are what standardised the pixels; only `losses.distortion: logistic_mixture` needs the mean. ValueError
    for settings that contradict one another.
    """

    def __init__(
        self,
        config: ModelConfig,
        image_shape: tuple[int, int, int],
        losses: LossConfig,
        std: Sequence[float],
        mean: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.is_sampled = config.variational and losses.kl.peak > 0
        self.quantizer = build_quantizer(config.quantizer)
        self.transform = build_transform(config.transform, self.quantizer.latent_dim)
        encoder_dim = self.transform.latent_dim * (2 if self.is_sampled else 1)
        self.likelihood = Likelihood(losses.distortion, std, mean, losses.num_mixtures)
        outputs = image_shape[0] * self.likelihood.outputs_per_channel
        self.encoder, self.decoder = build_networks(
            config.network, image_shape, encoder_dim, self.quantizer.latent_dim, outputs
        )
        self.normality = build_normality(losses, self.quantizer.latent_dim)
        multiple = self.quantizer.grid_multiple
        tile, self.tile_grid = _tile_sizes(config.network, image_shape)
        self.tile = (tile[0] * multiple, tile[1] * multiple)
        self.reach = _reach(config)
        """tiles to either side that a tile of the output may depend on, an upper bound"""

    def forward(self, x: Tensor, generator: torch.Generator | None = None, target: Tensor | None = None) -> Output:
        """Images, and what shall become of them (default: the same), both (B, C, H, W)."""
        mean, log_var = self.posterior(x)
        z = gaussian.sample(mean, log_var, generator) if log_var is not None and self.training else mean
        latents = self.transform(z)
        result = self.quantizer(latents, generator)
        decoded = self._decoded(result.quantized, (x.shape[2], x.shape[3]))
        terms = {"reconstruction": self.likelihood(decoded, x if target is None else target), **result.terms}
        if log_var is not None:  # nats per image; reconstruction is a mean over values, and so must be its counterpart
            terms["kl"] = gaussian.kl(mean, log_var) / x[0].numel()
        if self.normality is not None:
            terms["transform"] = self.normality(latents, generator)
        return Output(self.likelihood.mean(decoded), result.codes, terms)

    def latents(self, x: Tensor) -> Tensor:
        """Standardised images (B, C, H, W) -> what the quantizer gets in eval mode (B, D, *grid): no noise."""
        return self.transform(self.posterior(x)[0])

    def encode(self, x: Tensor) -> Tensor:
        """Standardised images (B, C, H, W) -> codes (B, Q, *grid) int64."""
        return self.quantizer.encode(self.latents(x))

    def decode(self, codes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Codes (B, Q, *grid) -> standardised images (B, C, *size), whole tiles when size is None."""
        return self.likelihood.mean(self._decoded(self._quantized(codes), size))

    def decode_latents(self, latents: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """As `decode`, of latents (B, D, h, w) that no quantizer has touched."""
        return self.likelihood.mean(self._decoded(latents, size))

    def nats(self, x: Tensor, codes: Tensor) -> Tensor:
        """-log p(x | codes) of standardised images (B, C, H, W) given codes (B, Q, *grid): (B,) float64, in nats.

        ValueError where `losses.distortion` is not a likelihood.
        """
        return self.likelihood.nats(self._decoded(self._quantized(codes), (x.shape[2], x.shape[3])), x)

    def _quantized(self, codes: Tensor) -> Tensor:
        """Codes -> quantized in the precision of the decoder: a model may be decoded in float64."""
        return self.quantizer.decode(codes).to(next(self.decoder.parameters()).dtype)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the codes of an image of `size` (height, width)."""
        rows, columns = (-(-side // step) for side, step in zip(size, self.tile, strict=True))
        return rows * self.tile_grid[0], columns * self.tile_grid[1]

    def bits_per_image(self, size: tuple[int, int]) -> float:
        """Bits of all codes of an image without entropy coding."""
        return self.quantizer.bits_per_position * math.prod(self.grid(size))

    def sample_codes(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Codes (count, Q, *grid) of images of `size` (height, width) as the prior has them, drawn on the CPU.

        Finite codes are uniform and independent; without a quantizer z ~ N(0, 1). Decoded, these are images as far as
        training made codes or z follow that prior.
        """
        device, grid = next(self.parameters()).device, self.grid(size)
        if self.quantizer.is_discrete:
            draws = [torch.randint(k, (count, *grid), generator=generator) for k in self.quantizer.codebook_sizes]
            return torch.stack(draws, dim=1).to(device)
        latents = torch.randn((count, self.transform.latent_dim, *grid), generator=generator)
        return self.quantizer.encode(self.transform(latents.to(device)))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean of z given x (B, latent_dim, *grid), and its log-variance where z is sampled."""
        output = self.encoder(pad_to_multiple(x, self.tile))
        return gaussian.mean_and_log_variance(output) if self.is_sampled else (output, None)

    def _decoded(self, quantized: Tensor, size: tuple[int, int] | None) -> Tensor:
        """What the decoder gives (B, C * outputs_per_channel, *size), of which `likelihood` makes pixels or nats."""
        output = self.decoder(self.transform.inverse(quantized)).float()
        return output if size is None else output[:, :, : size[0], : size[1]]


def _tile_sizes(config: NetworkConfig, image_shape: tuple[int, int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Smallest image that a network takes (height, width), and its grid."""
    match config:
        case ConvConfig():
            return (2**config.num_downsamplings,) * 2, (1, 1)
        case PatchConfig():
            return (config.patch_size,) * 2, (1, 1)
        case MLPConfig():
            return image_shape[1:], config.grid


def _reach(config: ModelConfig) -> int:
    """Positions of the grid by which encoder, transform and decoder together look around; 2 more for a quantizer that
    looks around itself, in its own, coarser positions."""
    around = 2 + 2 * config.transform.num_blocks if config.transform.kind == "conv" else 2
    match config.network:
        case ConvConfig(num_blocks=blocks):  # a 3x3 and `blocks` of them on either side, and what 4x4 strides add
            return around + 2 * (blocks + 1) + 4
        case PatchConfig(encoder_blocks=before, decoder_blocks=after):
            return around + before + after
        case MLPConfig():  # every tile by itself
            return around
