"""Reading and writing files of sound, by soundfile and soxr (the extra [audio])."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import VqkitError
from ...files import open_regular

Samples = NDArray[np.int16]
# What stands for full scale: 1 for libraries that count in floats.
FULL = 32768
SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}
)
# Samples of each channel that are decoded at once.
BLOCK = 1 << 16
# Samples of each channel of a piece, at least, where a file is used in pieces.
PIECE = 1 << 17
# Bytes of samples from which on a file is written as RF64, which counts in 64 bits.
MAX_WAV = (1 << 32) - (1 << 12)
# The shortest recording that is used.
MIN_SECONDS = 0.02
# Subtypes of libsndfile whose samples are whole numbers of at most 16 bits.
_SHORT = frozenset({"PCM_16", "PCM_S8", "PCM_U8", "ALAW", "ULAW", "ALAC_16"})


class BadSound(Exception):
    """A file that cannot be used, and why, in a clause."""


class Target(NamedTuple):
    """What sound is brought to.

    rate: samples a second; None = the file's own. channels: likewise. exact: refuse what would lose
    anything.
    """

    rate: int | None
    channels: int | None
    max_seconds: float = math.inf
    exact: bool = False


class Header(NamedTuple):
    """What a file says of itself: samples a second, channels, samples of each, and the subtype of
    libsndfile.
    """

    rate: int
    channels: int
    frames: int
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def libraries() -> tuple[Any, Any]:
    """soundfile and soxr. VqkitError where they are not installed."""
    try:
        import soundfile
        import soxr
    except (ImportError, OSError) as error:
        raise VqkitError(
            "sound is read and written with soundfile and soxr: pip install 'vqkit[audio]'"
        ) from error
    return soundfile, soxr


def is_sound(path: Path) -> bool:
    """Whether a file is one of sound, by its suffix."""
    return path.suffix.lower() in SUFFIXES


def read_header(source: Path | bytes) -> Header:
    """Of a file, or of the content of one. BadSound for what is no sound."""
    soundfile, _ = libraries()
    try:
        with _opened(source) as file, soundfile.SoundFile(file) as sound:
            return Header(sound.samplerate, sound.channels, sound.frames, sound.subtype)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise BadSound(_reason(error)) from error


def load(source: Path | bytes, target: Target) -> tuple[Samples, int]:
    """Samples (C, T) of a file, or of the content of one, and how many a second. BadSound."""
    found = list(pieces(source, target))
    return np.concatenate([samples for samples, _ in found], 1), found[0][1]


def pieces(source: Path | bytes, target: Target) -> Iterator[tuple[Samples, int]]:
    """The samples of a file in pieces (C, n) of at least PIECE, but for the last one, and how many
    a second. BadSound as `stream`, and for what is too short.
    """
    waiting: list[Samples] = []
    total = 0
    rate = 0
    for block, found in stream(source, target):
        waiting.append(block)
        total += block.shape[1]
        rate = found
        if sum(one.shape[1] for one in waiting) >= PIECE:
            yield np.concatenate(waiting, 1), rate
            waiting = []
    if total < MIN_SECONDS * rate or not total:
        raise BadSound(f"shorter than {1000 * MIN_SECONDS:.0f} ms")
    if waiting:
        yield np.concatenate(waiting, 1), rate


def stream(source: Path | bytes, target: Target) -> Iterator[tuple[Samples, int]]:
    """The samples of a file in blocks (C, T), and how many a second, in memory that does not grow.

    BadSound for a file that breaks off inside of a block, holds what is no number, or is longer
    than `max_seconds`, when it gets there.
    """
    soundfile, soxr = libraries()
    try:
        with _opened(source) as file, soundfile.SoundFile(file) as sound:
            _check_exact(sound, target)
            rate = target.rate or sound.samplerate
            channels = target.channels or min(2, sound.channels)
            resampler = None
            if rate != sound.samplerate:
                resampler = soxr.ResampleStream(
                    sound.samplerate, rate, channels, dtype="float32", quality="HQ"
                )
            is_short = sound.subtype in _SHORT
            seconds = 0.0
            while True:
                block = sound.read(BLOCK, "int16" if is_short else "float32", always_2d=True)
                seconds += len(block) / sound.samplerate
                if seconds > target.max_seconds:
                    raise BadSound(f"longer than {target.max_seconds / 3600:g} hours")
                is_last = len(block) < BLOCK
                mixed = mixed_to(block, channels)
                if resampler is not None:
                    mixed = resampler.resample_chunk(_as_floats(mixed), is_last)
                if len(mixed):
                    yield np.ascontiguousarray(_as_short(mixed).T), rate
                if is_last:
                    return
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise BadSound(_reason(error)) from error


def _opened(source: Path | bytes) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    return open_regular(source)


def mixed_to(block: NDArray[Any], channels: int) -> NDArray[Any]:
    """Samples (T, any) as (T, channels): the mean of all for mono, one for both of stereo."""
    if block.shape[1] == channels:
        return block
    if channels == 1:
        mean = block.mean(1, keepdims=True, dtype=np.float32)
        return mean / FULL if block.dtype == np.int16 else mean
    return np.repeat(block[:, :1], channels, 1) if block.shape[1] == 1 else block[:, :channels]


def encode(samples: Samples, rate: int, format: str = "WAV") -> bytes:
    """Samples (C, T) as the bytes of a file of 16 bits."""
    soundfile, _ = libraries()
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, rate, "PCM_16", format=format)
    return buffer.getvalue()


def write(path: Path, blocks: Iterable[Samples], shape: Sequence[int], rate: int) -> None:
    """Samples in blocks (C, n), of `shape` (C, T) together, as a WAV file of 16 bits."""
    soundfile, _ = libraries()
    channels, length = shape
    kind = "RF64" if 2 * channels * length > MAX_WAV else "WAV"
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16", format=kind) as sound:
        for block in blocks:
            sound.write(block.T)


def _as_floats(block: NDArray[Any]) -> NDArray[np.float32]:
    if block.dtype == np.int16:
        return block.astype(np.float32) / np.float32(FULL)
    if not np.isfinite(block).all():
        raise BadSound("a sample is no number")
    return block.astype(np.float32)


def _as_short(block: NDArray[Any]) -> Samples:
    if block.dtype == np.int16:
        return block
    scaled = np.rint(_as_floats(block) * FULL)
    return scaled.clip(-FULL, FULL - 1).astype(np.int16)


def _check_exact(sound: Any, target: Target) -> None:
    """BadSound where `exact` is asked for and samples would change."""
    if not target.exact:
        return
    if target.rate is not None and sound.samplerate != target.rate:
        raise BadSound(f"{sound.samplerate} samples a second, the model has {target.rate}")
    if target.channels is not None and sound.channels != target.channels:
        raise BadSound(f"{sound.channels} channels, the model has {target.channels}")
    if sound.subtype not in _SHORT:
        raise BadSound("its samples have more than 16 bits")


def _reason(error: Exception) -> str:
    if isinstance(error, BadSound):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "not recognised" in str(error):
        return "it is empty, or no sound in any format that is read here"
    text = str(error).strip().rstrip(".")
    # libsndfile's messages begin with the file, which everybody names already.
    return text.split(": ", 1)[-1] or type(error).__name__
