"""Settings that only recordings have: what is read from files, what is changed in training, which
networks there are.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias, Union

from pydantic import Field

from ...config.adversary import AdversarySection
from ...config.base import ActsOnly, Count, NonNegative, Section
from ...config.sections import DataSection, NetworkSection


class AugmentConfig(Section):
    level: Annotated[float, Field(ge=0, le=60)] = 0.0
    """largest random change of a clip's level, in decibels up or down; 0 = off"""
    invert: bool = False
    """turn half of the clips upside down, which nobody hears"""


class NoiseConfig(Section):
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(("source",), "{at}level above 0", lambda noise: noise.level > 0),
    )

    level: NonNegative = 0.0
    """strongest noise on what the encoder hears, as a share of the recording's own level, the
    target being the clean recording; every clip has its own, from 0 on; 0 = none"""
    source: str | None = None
    """a folder of recordings of noise, from which every clip takes a place of its own; null = white
    noise"""


class DataConfig(DataSection):
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        # Sets that are larger than memory are samples in one file, which needs no decoding.
        ActsOnly(("num_workers",), "{at}signal=image", lambda data: False),
    )

    signal: Literal["audio"] = "audio"
    """the kind of signal, which decides what may follow"""
    sample_rate: Annotated[int, Field(ge=1000, le=192_000)] | None = None
    """samples a second that the model hears, others are resampled; null = that of most of the
    sound"""
    channels: Literal[1, 2] | None = None
    """1 mono, 2 stereo; null = what most of the recordings have"""
    seconds: Annotated[float, Field(gt=0, le=600)] = 1.28
    """length of a clip of training; longer recordings are cut into clips, shorter ones are padded
    and the padding is left out of all losses"""
    overlap: Annotated[int, Field(ge=1, le=64)] = 4
    """clips of training begin at every so manieth part of a clip"""
    split_by: Literal["recording", "folder"] = "recording"
    """what stays in one split: all clips of a recording, or all recordings of a folder, such as a
    speaker"""
    max_hours: Annotated[float, Field(gt=0)] = 100.0
    """sound that a file may hold at most"""
    augment: AugmentConfig = AugmentConfig()
    noise: NoiseConfig = NoiseConfig()


class VocoderConfig(NetworkSection):
    """Residual blocks around a fixed model of speech: pitch, voicing and a spectral envelope, from
    which a harmonic and a noisy part are made; what the networks learn is added to it.
    """

    can_be_causal: ClassVar[bool] = True

    kind: Literal["vocoder"] = "vocoder"
    hop: Annotated[int, Field(ge=16, le=4096)] | None = None
    """samples between two frames; null = 10 ms"""
    frames: Annotated[int, Field(ge=1, le=32)] = 4
    """frames that become one latent"""
    bands: Annotated[int, Field(ge=4, le=256)] = 32
    """bands of the mel scale that the envelope has"""
    width: Count = 256
    """channels of the residual blocks"""
    expansion: Annotated[int, Field(ge=1, le=16)] = 2
    """channels inside of a block, as a multiple of width"""
    encoder_blocks: Annotated[int, Field(ge=0, le=64)] = 0
    """residual blocks before the quantizer; 0 = the encoder is the fixed model alone"""
    decoder_blocks: Annotated[int, Field(ge=1, le=64)] = 4
    """residual blocks after the quantizer"""


class LappedConfig(NetworkSection):
    """Residual blocks around a fixed lapped cosine transform over time: what the networks learn is
    added to it, behind a filter that takes noise out, if there is one.
    """

    can_be_causal: ClassVar[bool] = True

    kind: Literal["lapped"] = "lapped"
    hop: Annotated[int, Field(ge=16, le=1024)] = 512
    """samples of a frame, of which the transform makes as many coefficients a channel"""
    power: Annotated[float, Field(ge=0.2, le=1)] = 0.6
    """coefficients are raised to it before they are quantised, so that the error of loud ones is
    larger, as nobody hears it; 1 = it is the same for all"""
    width: Count = 256
    """channels of the residual blocks"""
    expansion: Annotated[int, Field(ge=1, le=16)] = 2
    """channels inside of a block, as a multiple of width"""
    filter_blocks: Annotated[int, Field(ge=0, le=64)] = 0
    """residual blocks of a filter before the transform, which says how much is kept of every
    frequency of every moment, for recordings with noise (data.noise); 0 = there is no filter"""
    encoder_blocks: Annotated[int, Field(ge=0, le=64)] = 0
    """residual blocks before the quantizer; 0 = the encoder is the transform alone"""
    decoder_blocks: Annotated[int, Field(ge=1, le=64)] = 3
    """residual blocks after the quantizer"""


# Seconds of a window of the discriminator.
Window: TypeAlias = Annotated[float, Field(ge=0.008, le=0.512)]


class StftAdversary(AdversarySection):
    """A discriminator for every window looks at patches of short-time Fourier transforms (the
    multi-scale one of EnCodec, arXiv 2210.13438).
    """

    kind: Literal["stft"] = "stft"
    augment: bool = False
    """what the discriminator sees is moved and cut out at random, alike for a recording and its
    reconstruction (DiffAugment, arXiv 2006.10738)"""
    windows: Annotated[tuple[Window, ...], Field(min_length=1, max_length=8)] = (
        0.016,
        0.032,
        0.064,
    )
    """seconds of each window, the nearest power of two in samples"""
    phase: bool = False
    """whether it sees real and imaginary parts, not magnitudes alone; of a decoder that makes
    phases up, as that of vocoder does, it would learn little else"""
    width: Count = 16
    """channels of every layer"""


NetworkConfig: TypeAlias = Union[VocoderConfig, LappedConfig]
