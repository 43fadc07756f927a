"""Encoders and decoders of recordings: the networks of `model.network`.

Encoders: sound (B, C, T) in units of full scale -> latents (B, D, t). Decoders: quantized
(B, D, t), and behind it the clock where there is one -> (B, C, T).
"""

from __future__ import annotations

from typing import assert_never

from ...errors import VqkitError
from ...model.autoencoder import Backbone, Clock, Widths
from ...shapes import Shape
from .config import LappedConfig, NetworkConfig, VocoderConfig
from .lapped import LappedDecoder, LappedEncoder
from .vocoder import CYCLE, NOISE, SpeechModel, VocoderDecoder, VocoderEncoder

# Positions of a recording that are computed at once: half a minute of speech.
PART_POSITIONS = 1 << 18
# Fewest latents of a clip of training, below which networks learn what edges sound like.
MIN_LATENTS = 8


def build_backbone(
    config: NetworkConfig, rate: int | None, shape: Shape, widths: Widths
) -> Backbone:
    """The encoder and decoder of a config; this `match` is the registry of networks.

    rate: samples a second. VqkitError for what a network cannot take.
    """
    if rate is None:
        raise VqkitError("a network for recordings needs data.sample_rate, such as 16000")
    match config:
        case VocoderConfig():
            return _vocoder(config, rate, shape, widths)
        case LappedConfig():
            return _lapped(config, rate, shape, widths)
        case _:
            assert_never(config)


def _vocoder(config: VocoderConfig, rate: int, shape: Shape, widths: Widths) -> Backbone:
    hop = config.hop or round(rate / 100)
    tile = hop * config.frames
    if shape.channels != 1:
        raise VqkitError("model.network.kind=vocoder models one voice: set data.channels=1")
    _check_clip(shape, tile, rate)
    speech = SpeechModel(config, rate, hop)
    _check_widths("vocoder", widths, speech.num_channels, 1)
    decoder = VocoderDecoder(config, speech)
    # The pitch of a frame rests on frames to either side, and those on the sound around.
    around = -(-(speech.tracker.reach + speech.fourier.window) // tile)
    decoder_reach = config.decoder_blocks + 2
    return Backbone(
        encoder=VocoderEncoder(config, speech),
        decoder=decoder,
        tile=(tile,),
        tile_grid=(1,),
        reach=config.encoder_blocks + around + decoder_reach,
        decoder_reach=decoder_reach,
        part_positions=PART_POSITIONS,
        clock=Clock(decoder.passing, (CYCLE, NOISE)),
        encodes_exactly=True,
    )


def _lapped(config: LappedConfig, rate: int, shape: Shape, widths: Widths) -> Backbone:
    _check_clip(shape, config.hop, rate)
    _check_widths("lapped", widths, config.hop * shape.channels, shape.channels)
    decoder_reach = config.decoder_blocks + 1
    encoder = LappedEncoder(config, shape.channels, rate)
    reach = config.encoder_blocks + 1 + decoder_reach
    if encoder.filter is not None:
        reach += encoder.filter.reach
    return Backbone(
        encoder=encoder,
        decoder=LappedDecoder(config, shape.channels),
        tile=(config.hop,),
        tile_grid=(1,),
        reach=reach,
        decoder_reach=decoder_reach,
        part_positions=PART_POSITIONS,
        encodes_exactly=True,
    )


def _check_clip(shape: Shape, tile: int, rate: int) -> None:
    if shape.extent[0] < MIN_LATENTS * tile:
        raise VqkitError(
            f"a clip of {shape.extent[0]} samples has fewer than {MIN_LATENTS} latents of {tile} "
            f"samples; set data.seconds={32 * tile / rate:g}"
        )


def _check_widths(kind: str, widths: Widths, channels: int, outputs: int) -> None:
    for width in (widths.encoder, widths.latents):
        if width != channels:
            raise VqkitError(
                f"model.network.kind={kind} has {channels} channels of latents, not {width}: set "
                f"as many in model.quantizer, such as code_dim={channels} or channels={channels}"
            )
    if widths.outputs != outputs:
        raise VqkitError(f"model.network.kind={kind} gives sound, no distribution over samples")
