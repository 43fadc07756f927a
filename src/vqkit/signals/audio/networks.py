"""Encoders and decoders of recordings: the networks of `model.network`.

Encoders: sound (B, C, T) in units of full scale -> latents (B, D, t). Decoders: quantized
(B, D, t), and behind it the clock where there is one -> (B, C, T).
"""

from __future__ import annotations

from typing import assert_never

from ...errors import VqkitError
from ...model.autoencoder import Ahead, Backbone, Clock, Widths
from ...shapes import Shape
from .config import LappedConfig, NetworkConfig, VocoderConfig
from .lapped import LappedDecoder, LappedEncoder
from .vocoder import CYCLE, NOISE, SpeechModel, VocoderDecoder, VocoderEncoder

# Positions of a recording that are computed at once: half a minute of speech.
PART_POSITIONS = 1 << 18
# Fewest latents of a clip of training, below which networks learn what edges sound like.
MIN_LATENTS = 8


def build_backbone(
    config: NetworkConfig, rate: int | None, shape: Shape, widths: Widths, is_causal: bool
) -> Backbone:
    """The encoder and decoder of a config; this `match` is the registry of networks.

    rate: samples a second. is_causal: blocks look back alone. VqkitError for what a network cannot
    take.
    """
    if rate is None:
        raise VqkitError("a network for recordings needs data.sample_rate, such as 16000")
    match config:
        case VocoderConfig():
            return _vocoder(config, rate, shape, widths, is_causal)
        case LappedConfig():
            return _lapped(config, rate, shape, widths, is_causal)
        case _:
            assert_never(config)


def _vocoder(
    config: VocoderConfig, rate: int, shape: Shape, widths: Widths, is_causal: bool
) -> Backbone:
    hop = config.hop or round(rate / 100)
    if shape.channels != 1:
        raise VqkitError("model.network.kind=vocoder models one voice: set data.channels=1")
    _check_clip(shape, hop * config.frames, rate)
    speech = SpeechModel(config, rate, hop, is_causal=is_causal)
    _check_widths("vocoder", widths, speech.num_channels, 1)
    # The decoder is built first: the order in which weights are drawn is a part of every recorded
    # loss.
    decoder = VocoderDecoder(config, speech)
    encoder = VocoderEncoder(config, speech)
    return Backbone(
        encoder=encoder,
        decoder=decoder,
        tile=(speech.tile,),
        tile_grid=(1,),
        reach=encoder.back + decoder.back,
        decoder_reach=decoder.back,
        ahead=Ahead(encoder.ahead, decoder.ahead),
        part_positions=PART_POSITIONS,
        clock=Clock(decoder.passing, (CYCLE, NOISE)),
        encodes_exactly=True,
    )


def _lapped(
    config: LappedConfig, rate: int, shape: Shape, widths: Widths, is_causal: bool
) -> Backbone:
    _check_clip(shape, config.hop, rate)
    _check_widths("lapped", widths, config.hop * shape.channels, shape.channels)
    if is_causal and config.filter_blocks:
        raise VqkitError(
            "the filter of model.network.filter_blocks looks ahead: set it to 0, or "
            "model.causal=false"
        )
    encoder = LappedEncoder(config, shape.channels, rate, is_causal=is_causal)
    decoder = LappedDecoder(config, shape.channels, is_causal=is_causal)
    return Backbone(
        encoder=encoder,
        decoder=decoder,
        tile=(config.hop,),
        tile_grid=(1,),
        reach=encoder.back + decoder.back,
        decoder_reach=decoder.back,
        ahead=Ahead(encoder.ahead, decoder.ahead),
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
