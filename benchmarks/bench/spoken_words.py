"""Words that many voices speak: which, how copies of them differ, and what people say of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.debian_packages import unpacked
from bench.recogniser import BANDS, RATE, log_energies

# Numbers by how files are named, and the names of letters.
NUMBERS = dict(
    zip(
        (*map(str, range(21)), *map(str, range(30, 100, 10))),
        (
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy "
            "eighty ninety"
        ).split(),
        strict=True,
    )
)
LETTERS = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar "
    "papa quebec romeo sierra tango uniform victor whiskey x-ray yankee zulu"
).split()
WORDS = (*NUMBERS.values(), *LETTERS)
# The speaker that figures are of, and the one that settings are chosen by.
TESTED, CHOSEN_BY = "Allison", "Dawson"
# Copies: their speed, and pitch and formants with it; cosines over frequency that colour them;
# seconds of silence before; noise, in dB below the sound; level, in dB below full scale.
SPEEDS = (0.8, 1.22)
COLOURS = (0.5, 0.385, 0.3125, 0.263)
PAUSE = 0.1
NOISES = (15.0, 45.0)
LEVELS = (1.0, 9.0)
# Frames that the network of words sees, its width, and the parts of time that its last layer does.
FRAMES = 96
WIDTH = 96
PARTS = 6
BATCH = 64


def read_people(name: str) -> dict[str, np.ndarray]:
    """What TESTED (all words) or CHOSEN_BY (numbers up to twenty, and tens to fifty) says, as
    `trimmed` has it.
    """
    found = {}
    if name == TESTED:
        with unpacked("asterisk-core-sounds-en-wav") as files:
            voice = files / "usr/share/asterisk/sounds/en_US_f_Allison"
            paths = {word: voice / f"digits/{number}.wav" for number, word in NUMBERS.items()}
            paths |= {word: voice / f"phonetic/{word[0]}_p.wav" for word in LETTERS}
            for word, path in paths.items():
                found[word], rate = soundfile.read(path)
                assert rate == RATE
    else:
        raw = {"format": "RAW", "subtype": "ULAW", "samplerate": RATE, "channels": 1}
        with unpacked("saytime") as files:
            for number, word in NUMBERS.items():
                path = files / f"usr/share/saytime/{number}.au"
                if path.exists():
                    found[word], _ = soundfile.read(path, **raw)
    return {word: at_level(trimmed(sound), 5.0, 0.05) for word, sound in found.items()}


def trimmed(sound: np.ndarray) -> np.ndarray:
    """From just before it rises above 30 dB below its loudest moment to just behind."""
    sound = sound / np.abs(sound).max()
    power = np.convolve(np.square(sound), np.full(160, 1 / 160), "same")
    inside = np.flatnonzero(power > power.max() * 1e-3)
    return sound[max(0, inside[0] - 200) : inside[-1] + 400]


def at_level(sound: np.ndarray, below: float, pause: float) -> np.ndarray:
    """int16, so many dB below full scale, with so many seconds of silence before."""
    sound = np.concatenate([np.zeros(round(pause * RATE)), sound])
    return np.rint(sound / np.abs(sound).max() * 32767 * 10 ** (-below / 20)).astype(np.int16)


def varied(sound: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A copy (int16) as another speaker and microphone might give it."""
    import soxr

    speed = np.exp(random.uniform(*np.log(SPEEDS)))
    sound = soxr.resample(trimmed(sound), RATE * speed, RATE)
    size = 1 << (len(sound) + 256).bit_length()
    places = np.linspace(0, np.pi, size // 2 + 1)
    colour = sum(
        random.normal(0, scale) * np.cos(order * places) for order, scale in enumerate(COLOURS, 1)
    )
    sound = np.fft.irfft(np.fft.rfft(sound, size) * np.exp(colour), size)[: len(sound)]
    level = 10 ** (-random.uniform(*NOISES) / 20) * np.sqrt(np.square(sound).mean())
    pause = np.zeros(round(random.uniform(0, PAUSE) * RATE))
    sound = np.concatenate([pause, sound])
    sound = sound + level * random.standard_normal(len(sound))
    return at_level(sound, random.uniform(*LEVELS), 0.0)


def word_of(path: Path) -> str:
    """The word of a file VOICE/WORD_TAKE[_COPY].wav."""
    return path.stem.partition("_")[0]


def write_copies(takes: Path, folder: Path, most: int, seed: int) -> None:
    """Copies of takes VOICE/WORD_TAKE.wav with the word beside each, at most so many of a take.

    Takes of synthesisers of which there are few come more often, so that all are heard about as
    much; the part of a voice's name before a dot is its synthesiser.
    """
    random = np.random.default_rng(seed)
    paths: dict[str, list[Path]] = {}
    for path in sorted(takes.rglob("*.wav")):
        paths.setdefault(path.parent.name.partition(".")[0], []).append(path)
    # Half as many as those of which there are most.
    wanted = max(map(len, paths.values())) / 2
    for each in paths.values():
        copies = min(most, max(1, round(wanted / len(each))))
        for path in each:
            sound = soundfile.read(path)[0]
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            for copy in range(copies):
                target = folder / path.parent.name / f"{path.stem}_{copy}.wav"
                soundfile.write(target, varied(sound, random), RATE, "PCM_16")
                target.with_suffix(".txt").write_text(word_of(path), encoding="utf-8")


def read_copies(folder: Path) -> tuple[list[np.ndarray], list[str]]:
    """Copies and their words."""
    paths = sorted(folder.rglob("*.wav"))
    sounds = [soundfile.read(path, dtype="int16")[0] for path in paths]
    return sounds, [word_of(path) for path in paths]


class WordNetwork:
    """Convolutions over the spectra of a word, AdamW with one cycle of the learning rate."""

    def __init__(self, sounds: list[np.ndarray], words: list[str], seed: int, steps: int) -> None:
        torch.manual_seed(seed)
        seen = torch.stack([_seen(sound) for sound in sounds])
        targets = torch.tensor([WORDS.index(word) for word in words])
        layers: list[nn.Module] = []
        for before, stride in ((BANDS, 2), (WIDTH, 1), (WIDTH, 2), (WIDTH, 1)):
            layers += [nn.Conv1d(before, WIDTH, 5, stride, 2), nn.BatchNorm1d(WIDTH), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool1d(PARTS), nn.Flatten(), nn.Dropout(0.4)]
        self.network = nn.Sequential(*layers, nn.Linear(PARTS * WIDTH, len(WORDS)))
        optimizer = torch.optim.AdamW(self.network.parameters(), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
        for _ in range(steps):
            chosen = torch.randint(len(seen), (BATCH,))
            found = self.network(seen[chosen].float())
            loss = F.cross_entropy(found, targets[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.network.eval()

    @torch.no_grad()
    def words_of(self, sounds: list[np.ndarray]) -> list[str]:
        seen = torch.stack([_seen(sound) for sound in sounds]).float()
        return [WORDS[place] for place in self.network(seen).argmax(1).tolist()]


def _seen(sound: np.ndarray) -> Tensor:
    """The first FRAMES of a word, (BANDS, FRAMES): about 0 on the whole, 16 bits each."""
    logs = log_energies(sound)[:FRAMES]
    whole = np.full((FRAMES, BANDS), np.log(1e-4), np.float32)
    whole[: len(logs)] = logs - logs.max()
    return torch.from_numpy((whole.T + 5) / 3).half()
