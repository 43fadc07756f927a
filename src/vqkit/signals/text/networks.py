"""Encoder and decoder of bytes.

Encoders: standardised bytes (B, 1, T) -> latents (B, D, T / p), p bytes a patch. Decoders:
quantized (B, D, n) -> (B, 256, n * p), a logit for each of the values that a byte may have.
"""

from __future__ import annotations

from torch import Tensor, nn

from ...model.autoencoder import Backbone, Widths
from ...model.blocks import DepthwiseResidual
from .config import BytesConfig

LEVELS = 256
# What standardises bytes: -1 to 1, whatever the files hold, so that a network knows them again.
MIDDLE = 127.5


def build_backbone(config: BytesConfig, widths: Widths) -> Backbone:
    return Backbone(
        encoder=BytesEncoder(config, widths.encoder),
        decoder=BytesDecoder(config, widths.latents, widths.outputs),
        tile=(config.patch_size,),
        tile_grid=(1,),
        reach=config.encoder_blocks + config.decoder_blocks,
        decoder_reach=config.decoder_blocks,
        # A byte that another code stands for is another letter, whatever comes beside it.
        encodes_exactly=True,
    )


def _blocks(count: int, config: BytesConfig) -> nn.Sequential:
    return nn.Sequential(
        *(DepthwiseResidual(config.width, config.expansion, dims=1) for _ in range(count))
    )


class BytesEncoder(nn.Module):
    """bytes --embedding--> patches --linear--> DepthwiseResidual x encoder_blocks --norm, linear-->
    latents; positions are patches.
    """

    def __init__(self, config: BytesConfig, latent_dim: int) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.embedding = nn.Embedding(LEVELS, config.embedding)
        self.stem = nn.Linear(config.patch_size * config.embedding, config.width)
        self.blocks = _blocks(config.encoder_blocks, config)
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, latent_dim))

    def forward(self, x: Tensor) -> Tensor:
        given = (x[:, 0] * MIDDLE + MIDDLE).round().long().clamp(0, LEVELS - 1)
        patches = self.embedding(given).unflatten(1, (-1, self.patch_size)).flatten(2)
        return self.head(self.blocks(self.stem(patches))).movedim(-1, 1)


class BytesDecoder(nn.Module):
    """latents --linear--> DepthwiseResidual x decoder_blocks --norm, linear--> logits of all bytes
    of a patch at once.
    """

    def __init__(self, config: BytesConfig, latent_dim: int, outputs: int) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.stem = nn.Linear(latent_dim, config.width)
        self.blocks = _blocks(config.decoder_blocks, config)
        self.head = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, config.patch_size * outputs)
        )

    def forward(self, latents: Tensor) -> Tensor:
        found = self.head(self.blocks(self.stem(latents.movedim(1, -1))))  # (B, n, p * outputs)
        return found.unflatten(2, (self.patch_size, -1)).flatten(1, 2).movedim(-1, 1)
