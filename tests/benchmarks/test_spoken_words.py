"""Copies of spoken words, and the network that tells them apart."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from . import benchmark

words = benchmark("bench.spoken_words")


def tone(hertz: float, seconds: float = 0.4) -> np.ndarray:
    """A tone that rises and falls, with a quarter of a second of silence around it."""
    times = np.arange(round(seconds * words.RATE)) / words.RATE
    sound = np.sin(2 * np.pi * hertz * times) * np.hanning(len(times))
    return np.pad(0.3 * sound, words.RATE // 4)


def loudest(sound: np.ndarray) -> float:
    """The frequency with most energy."""
    return float(np.abs(np.fft.rfft(sound)).argmax() * words.RATE / len(sound))


def test_what_is_around_a_word_is_cut_off():
    sound = tone(500)
    cut = words.trimmed(sound)
    assert np.abs(cut).max() == pytest.approx(1)
    # Where its power is 30 dB lower, and 25 ms before and 50 behind, of 200 + 3,200 + 200 frames.
    assert 2500 < len(cut) < 3800
    assert len(words.trimmed(cut)) <= len(cut)


def test_copies_are_faster_or_slower_and_as_loud_as_they_are_said_to_be():
    random = np.random.default_rng(0)
    copies = [words.varied(tone(1000), random) for _ in range(40)]
    pitches = [loudest(copy) for copy in copies]
    # Speed moves the pitch as much.
    assert min(pitches) > 1000 * words.SPEEDS[0] - 15
    assert max(pitches) < 1000 * words.SPEEDS[1] + 15
    assert min(pitches) < 900 and max(pitches) > 1100
    levels = [20 * np.log10(np.abs(copy.astype(float)).max() / 32767) for copy in copies]
    assert all(-9.01 < level < -0.99 for level in levels)


def test_takes_of_which_there_are_few_come_more_often(tmp_path):
    takes = tmp_path / "takes"
    for voice, count in (("many.a", 8), ("many.b", 8), ("few.c", 2)):
        (takes / voice).mkdir(parents=True)
        for number in range(count):
            soundfile.write(takes / voice / f"x-ray_{number}.wav", tone(700), words.RATE)
    words.write_copies(takes, tmp_path / "copies", 3, seed=0)
    counts = {path.name: len(list(path.glob("*.wav"))) for path in (tmp_path / "copies").iterdir()}
    # Half of 16 would be four of each take, and three are allowed.
    assert counts == {"many.a": 8, "many.b": 8, "few.c": 6}
    texts = {path.read_text(encoding="utf-8") for path in (tmp_path / "copies").rglob("*.txt")}
    assert texts == {"x-ray"}
    assert set(words.read_copies(tmp_path / "copies")[1]) == {"x-ray"}


def test_the_network_of_words_learns_tones():
    torch.set_num_threads(1)
    random = np.random.default_rng(1)
    pitches = {"one": 400.0, "two": 900.0, "three": 1700.0}
    sounds, names = [], []
    for name, pitch in pitches.items():
        for _ in range(20):
            sounds.append(words.varied(tone(pitch), random))
            names.append(name)
    network = words.WordNetwork(sounds, names, 0, 40)
    tested = [words.varied(tone(pitch), random) for pitch in pitches.values()]
    assert network.words_of(tested) == list(pitches)
