"""Music that Debian's packages bring, and how far what a codec makes of it is from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import soundfile

from bench.debian_packages import unpacked
from bench.speech_sets import is_held_out

RATE = 44100
WESNOTH = "usr/share/games/wesnoth/1.16/data/core/music"
LOMIRI = "usr/share/sounds/lomiri"
# Seconds of an excerpt that is measured, and the least.
SECONDS = 10
LEAST = 3
# Of the distance: samples of a window and between two, bands, and the energy that is taken to be in
# a band at least, of full scale 1: 80 dB below it.
WINDOW = 2048
HOP = 512
BANDS = 80
FLOOR = 1e-8


def write_music(work: Path, quick: bool) -> None:
    """work/train and work/held-out, the orchestral tracks of wesnoth-1.16-music, a tenth of them by
    name held out; work/unheard, the ringtones and notifications of lomiri-sounds.

    quick: ten seconds of eight tracks.
    """
    if (work / "unheard").exists():
        return
    with unpacked("wesnoth-1.16-music") as files:
        tracks = sorted((files / WESNOTH).glob("*.ogg"))
        for path in tracks[2::5] if quick else tracks:
            target = work / ("held-out" if is_held_out(path.stem) else "train") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if quick:
                soundfile.write(target.with_suffix(".wav"), _middle(path), RATE)
            else:
                shutil.copy(path, target)
    with unpacked("lomiri-sounds") as files:
        made = work / "unheard.part"
        for path in sorted((files / LOMIRI).rglob("*.ogg")):
            made.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, made)
    made.rename(work / "unheard")


def read_music(folder: Path, most: int) -> dict[str, np.ndarray]:
    """Stereo excerpts int16 (T, 2) by name: the middle of each piece that is long enough and not
    silent, at most so many.
    """
    found: dict[str, np.ndarray] = {}
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        excerpt = _middle(path)
        if len(excerpt) >= LEAST * RATE and np.abs(excerpt).max() > 300 and len(found) < most:
            found[path.name] = excerpt
    return found


def _middle(path: Path) -> np.ndarray:
    import soxr

    samples, rate = soundfile.read(path, always_2d=True)
    start = max(0, len(samples) - SECONDS * rate) // 2
    sound = samples[start : start + SECONDS * rate]
    if sound.shape[1] == 1:
        sound = sound.repeat(2, 1)
    sound = soxr.resample(sound[:, :2], rate, RATE)
    return np.rint(32767 * sound).clip(-32768, 32767).astype(np.int16)


def log_mel_distance(original: np.ndarray, decoded: np.ndarray) -> float:
    """dB by which energies in bands of the mel scale differ, the mean over bands, windows and
    channels: int16 (T, C) twice, at RATE.
    """
    one, two = (10 * np.log10(_energies(each) + FLOOR) for each in (original, decoded))
    return float(np.abs(one - two).mean())


def _energies(samples: np.ndarray) -> np.ndarray:  # (T, C) -> (C, F, BANDS)
    sound = samples.T / 32768
    padded = np.pad(sound, ((0, 0), (WINDOW // 2, WINDOW // 2)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, 1)[:, ::HOP]
    window = np.hanning(WINDOW)
    spectra = np.fft.rfft(frames * window) / (window.sum() / 2)
    mels = np.linspace(0, 1127 * np.log(1 + 20000 / 700), BANDS + 2)
    edges = 700 * (np.exp(mels / 1127) - 1)
    hertz = np.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    triangles = np.minimum(rising, falling).clip(0)
    # Bands between two bins have none.
    triangles = triangles[:, triangles.any(0)]
    return np.abs(spectra) ** 2 @ triangles


def zimtohrli(original: np.ndarray, decoded: np.ndarray) -> float:
    """The distance of Alakuijala et al. 2025 of both channels' mean, 0 for equal sound."""
    import soxr
    from zimtohrli import Pyohrli

    one, two = (soxr.resample(each.mean(1) / 32768, RATE, 48000) for each in (original, decoded))
    return float(Pyohrli().distance(one, two))
