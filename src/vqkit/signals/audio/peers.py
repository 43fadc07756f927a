"""Other codecs of sound, to be measured beside: Opus, and Codec2 where it is installed."""

from __future__ import annotations

import io
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from ..base import ByPeer, Peer
from .files import libraries

# Samples a second that Opus takes as they are; all others become the last.
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
# Kilobits a second of a channel that are tried, and the least and the most that libsndfile gives.
OPUS_KBPS = (6, 12, 24, 64)
OPUS_RANGE = (6, 256)
# Bits a second of Codec2, which knows mono sound of 8 kHz alone.
CODEC2_BITS = (700, 1200, 2400)
CODEC2_RATE = 8000


def peers(rate: int, channels: int) -> list[Peer]:
    """What is there for sound of so many samples a second and channels."""
    found = []
    if _has_codec2(rate, channels):
        found += [Peer(f"Codec2 {bits}", partial(_codec2, bits)) for bits in CODEC2_BITS]
    for kbps in OPUS_KBPS:
        found.append(Peer(f"Opus {kbps * channels}k", partial(_opus, kbps, rate)))
    return found


def of_size(values: Tensor, num_bytes: int, rate: int) -> list[ByPeer]:
    """int16 (C, T) by each codec, in the most bits a second of which the file is no larger; in the
    fewest where all are larger.
    """
    found = [_opus_of_size(values, num_bytes, rate)]
    if _has_codec2(rate, len(values)):
        rates = [(f"Codec2 {bits}", *_codec2(bits, values)) for bits in CODEC2_BITS]
        fitting = [one for one in rates if one[1] <= num_bytes]
        found.append(ByPeer(*(fitting[-1] if fitting else rates[0])))
    return found


def _opus_of_size(values: Tensor, num_bytes: int, rate: int) -> ByPeer:
    low, high = OPUS_RANGE
    best = _opus(low, rate, values)
    kbps = low
    while low < high:
        middle = (low + high + 1) // 2
        found = _opus(middle, rate, values)
        if found[0] <= num_bytes:
            low, best, kbps = middle, found, middle
        else:
            high = middle - 1
    return ByPeer(f"Opus {kbps * len(values)}k", *best)


def _has_codec2(rate: int, channels: int) -> bool:
    return rate == CODEC2_RATE and channels == 1 and find_spec("pycodec2") is not None


def _opus(kbps: int, rate: int, values: Tensor) -> tuple[int, Tensor]:
    """int16 (C, T) -> the bytes of an Ogg file, and what it gives back."""
    soundfile, soxr = libraries()
    inner = rate if rate in OPUS_RATES else OPUS_RATES[-1]
    sound = values.numpy().T
    if inner != rate:
        sound = soxr.resample(sound, rate, inner)
    least, most = OPUS_RANGE
    level = 1 - (kbps - least) / (most - least)
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", inner, sound.shape[1], "OPUS", format="OGG", compression_level=level
    ) as file:
        file.write(sound)
    size = buffer.tell()
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="int16", always_2d=True)
    if inner != rate:
        decoded = soxr.resample(decoded, inner, rate)
    return size, _of_length(decoded.T, values.shape[1])


def _codec2(bits: int, values: Tensor) -> tuple[int, Tensor]:
    """int16 (1, T) -> the bytes of all frames, which have no header, and what they give back."""
    import pycodec2

    codec = pycodec2.Codec2(bits)
    count = codec.samples_per_frame()
    sound = np.pad(values[0].numpy(), (0, -values.shape[1] % count))
    frames = [codec.encode(part) for part in sound.reshape(-1, count)]
    decoded = np.concatenate([codec.decode(frame) for frame in frames])
    size = -(-len(frames) * codec.bits_per_frame() // 8)
    return size, _of_length(decoded[None], values.shape[1])


def _of_length(samples: np.ndarray, length: int) -> Tensor:
    missing = max(0, length - samples.shape[1])
    return torch.from_numpy(np.pad(samples, ((0, 0), (0, missing)))[:, :length])
