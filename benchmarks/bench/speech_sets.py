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
# Voices whose words are recognised, and where they have them.
WORDS = ("en", "es", "fr", "it", "ru")
KINDS = ("digits", "letters", "phonetic")
# Share of the prompts of the voices that are trained on that is held out, of 256.
HELD_OUT = 26
# The shortest recording that is measured, and the least that its loudest sample has: some prompts
# are seconds of nearly nothing.
MIN_SECONDS = 1.5
MIN_PEAK = 100
RATE = 8000
# Where festvox-ru has a speaker's sentences and the phones in them.
RUSSIAN = "usr/share/festival/voices/russian/msu_ru_nsh_clunits"
CZECH = "usr/share/games/fillets-ng/sound"


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
                    part = "held-out" if is_held_out(name) else "train"
                target = work / part / language / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)


def write_words(work: Path) -> None:
    """Digits, letters and the phonetic alphabet of the five voices of asterisk-core-sounds:
    work/words/LANGUAGE/KIND-NAME.wav, 8 kHz.
    """
    if (work / "words").exists():
        return
    for language in WORDS:
        with unpacked(f"asterisk-core-sounds-{language}-wav") as files:
            (voice,) = (files / SOUNDS).glob(f"{language}_*")
            target = work / "words.part" / language
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted(voice.rglob("*.wav")):
                if path.parent.name in KINDS:
                    shutil.copy(path, target / f"{path.parent.name}-{path.name}")
    (work / "words.part").rename(work / "words")


def write_sentences(work: Path) -> None:
    """Sentences of one speaker of Russian at 16 kHz, festvox-ru: work/sentences/{train,held-out},
    and beside each its phones, NAME.lab.
    """
    if (work / "sentences").exists():
        return
    with unpacked("festvox-ru") as files:
        for path in sorted((files / RUSSIAN / "wav").glob("*.wav")):
            part = "held-out" if is_held_out(path.stem) else "train"
            target = work / "sentences.part" / part / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            labels = path.parents[1] / "lab" / f"{path.stem}.lab"
            shutil.copy(labels, target.with_suffix(".lab"))
    (work / "sentences.part").rename(work / "sentences")


def write_dialogues(work: Path, rate: int, most: int) -> None:
    """Acted Czech dialogues, fillets-ng-data-cs, mono at so many samples a second: at most so many,
    work/dialogues.
    """
    import soxr

    if (work / "dialogues").exists():
        return
    (work / "dialogues.part").mkdir(parents=True, exist_ok=True)
    with unpacked("fillets-ng-data-cs") as files:
        paths = sorted((files / CZECH).glob("*/cs/*.ogg"))
        found = {str(path.relative_to(files / CZECH)): path for path in paths}
        step = max(1, len(found) // (2 * most))
        for name in list(found)[::step]:
            samples, its_rate = soundfile.read(found[name], always_2d=True)
            sound = soxr.resample(samples.mean(1), its_rate, rate)
            whole = np.rint(32767 * sound).clip(-32768, 32767).astype(np.int16)
            target = work / "dialogues.part" / name.replace("/", "-")
            soundfile.write(target.with_suffix(".wav"), whole, rate, "PCM_16")
    (work / "dialogues.part").rename(work / "dialogues")


def is_held_out(name: str) -> bool:
    """Whether a recording belongs to the tenth that is never trained on."""
    return hashlib.sha256(name.encode()).digest()[0] < HELD_OUT


def read_all(
    folder: Path, most: int, least: float = MIN_SECONDS, rate: int = RATE
) -> dict[str, np.ndarray]:
    """int16 samples of recordings of so many seconds and more, by their names: at most so many,
    evenly spaced in the order of names.
    """
    found = {}
    for path in sorted(folder.rglob("*.wav")):
        samples, its_rate = soundfile.read(path, dtype="int16")
        assert its_rate == rate and samples.ndim == 1
        if len(samples) >= least * rate and np.abs(samples).max() >= MIN_PEAK:
            found[str(path.relative_to(folder))] = samples
    return evenly(found, most)


def evenly(found: dict[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """At most so many of all, evenly spaced in their order."""
    step = max(1.0, len(found) / most)
    places = {int(step * number) for number in range(most)}
    return {name: each for place, (name, each) in enumerate(found.items()) if place in places}


def in_minutes(
    names: list[str], recordings: dict[str, np.ndarray], rate: int = RATE
) -> list[list[str]]:
    """Names in lists of a minute of sound each, but for the last, which joins the one before."""
    minutes: list[list[str]] = []
    length = 60 * rate
    for name in names:
        if not minutes or length >= 60 * rate:
            minutes.append([])
            length = 0
        minutes[-1].append(name)
        length += len(recordings[name])
    if len(minutes) > 1 and length < 60 * rate:
        rest = minutes.pop()
        minutes[-1] += rest
    return minutes
