"""Codecs of sound: Codec2 in this process, Opus by Debian's opus-tools."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import soundfile

from bench.debian_packages import unpacked
from bench.speech_sets import RATE

LIBRARIES = ("opus-tools", "libopus0", "libogg0", "libflac12", "libopusenc0", "libopusfile0")


def codec2(samples: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    """Decoded samples and the bytes of all frames, which have no header."""
    import pycodec2

    codec = pycodec2.Codec2(bits)
    count = codec.samples_per_frame()
    padded = np.pad(samples, (0, -len(samples) % count))
    parts = []
    size = 0.0
    for start in range(0, len(padded), count):
        data = codec.encode(padded[start : start + count])
        parts.append(codec.decode(data))
        size += codec.bits_per_frame() / 8
    return np.concatenate(parts)[: len(samples)], size


@contextmanager
def opus() -> Iterator[Opus]:
    """Inside, the codec, from packages that are unpacked for the time."""
    with ExitStack() as stack:
        folders = [stack.enter_context(unpacked(package)) for package in LIBRARIES]
        yield Opus(folders)


class Opus:
    """opusenc and opusdec."""

    def __init__(self, folders: list[Path]) -> None:
        self.folder = folders[0] / "usr/bin"
        found = [lib for folder in folders for lib in folder.glob("usr/lib/*/")]
        self.environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, found))}

    def __call__(
        self, samples: np.ndarray, kbps: float, rate: int = RATE, kind: str = "speech"
    ) -> tuple[np.ndarray, float]:
        """int16 (T,) or (T, C) -> decoded samples and the bytes of the file, of which the container
        is a part. kind: what is told the encoder, speech or music.
        """
        with tempfile.TemporaryDirectory() as folder:
            wav, coded, back = (Path(folder) / name for name in ("a.wav", "a.opus", "b.wav"))
            soundfile.write(wav, samples, rate)
            frames = ("--framesize", "60") if kind == "speech" else ()
            self._run("opusenc", "--bitrate", kbps, *frames, f"--{kind}", wav, coded)
            self._run("opusdec", "--rate", rate, coded, back)
            found, _ = soundfile.read(back, dtype="int16")
            size = coded.stat().st_size
        missing = [(0, max(0, len(samples) - len(found)))] + [(0, 0)] * (samples.ndim - 1)
        return np.pad(found, missing)[: len(samples)], size

    def _run(self, program: str, *words: object) -> None:
        command = [str(self.folder / program), "--quiet", *map(str, words)]
        subprocess.run(command, check=True, env=self.environment, capture_output=True)
