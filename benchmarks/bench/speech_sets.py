"""Recordings that Debian's packages bring, split as the benchmarks of speech need them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import soundfile

from bench.debian_packages import unpacked

SOUNDS = "usr/share/asterisk/sounds"
TRAINED = ("en", "es")
UNHEARD = "fr"
# Share of the prompts of the voices that are trained on that is held out, of 256.
HELD_OUT = 26
# The shortest recording that is measured.
MIN_SECONDS = 1.5
RATE = 8000


def write_prompts(work: Path) -> None:
    """The prompts of a telephone exchange, 8 kHz: work/train/{en,es}, work/held-out/{en,es}, a
    tenth by the names of the prompts, and work/unheard/fr, a voice and a language that are never
    trained on.
    """
    if (work / "unheard").exists():
        return
    for language in (*TRAINED, UNHEARD):
        with unpacked(f"asterisk-core-sounds-{language}-wav") as files:
            (voice,) = (files / SOUNDS).glob(f"{language}_*")
            for path in sorted(voice.rglob("*.wav")):
                name = str(path.relative_to(voice))
                if language == UNHEARD:
                    part = "unheard"
                else:
                    part = "held-out" if _is_held_out(name) else "train"
                target = work / part / language / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)


def _is_held_out(name: str) -> bool:
    return hashlib.sha256(name.encode()).digest()[0] < HELD_OUT


def read_all(folder: Path, most: int, least: float = MIN_SECONDS) -> dict[str, np.ndarray]:
    """int16 samples of recordings of so many seconds and more, by their names: at most so many,
    evenly spaced in the order of names.
    """
    found = {}
    for path in sorted(folder.rglob("*.wav")):
        samples, rate = soundfile.read(path, dtype="int16")
        assert rate == RATE and samples.ndim == 1
        if len(samples) >= least * rate and samples.any():
            found[str(path.relative_to(folder))] = samples
    step = max(1.0, len(found) / most)
    places = {int(step * number) for number in range(most)}
    return {name: each for place, (name, each) in enumerate(found.items()) if place in places}


def in_minutes(names: list[str], recordings: dict[str, np.ndarray]) -> list[list[str]]:
    """Names in lists of a minute of sound each, but for the last, which joins the one before."""
    minutes: list[list[str]] = []
    length = 60 * RATE
    for name in names:
        if not minutes or length >= 60 * RATE:
            minutes.append([])
            length = 0
        minutes[-1].append(name)
        length += len(recordings[name])
    if len(minutes) > 1 and length < 60 * RATE:
        minutes[-2] += minutes.pop()
    return minutes
