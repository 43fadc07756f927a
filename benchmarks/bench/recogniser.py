"""A small recogniser of phones and words: spectra in bands of the mel scale, and two layers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

RATE = 8000
BANDS = 40
HOP = 80
WINDOW = 256
# Energy in a band that is taken to be there at least, as a share of the loudest: 40 dB below it.
FLOOR = 1e-4
# Frames beside a phone that are seen too, and parts of a word.
AROUND = 5
PARTS = 20
BATCH = 256
WIDTH = 512
# Of what a word is altered by: its speed, and the level of noise below its own, in dB.
SPEEDS = (0.85, 1.18)
NOISES = (15.0, 40.0)


class Phone(NamedTuple):
    name: str
    start: float
    end: float


def read_phones(path: Path) -> list[Phone]:
    """Phones of a .lab file of Festival, whose lines have the second at which each ends."""
    found = []
    start = 0.0
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in lines[lines.index("#") + 1 :]:
        end, _, name = line.split()
        found.append(Phone(name, start, float(end)))
        start = float(end)
    return found


def log_mel(samples: np.ndarray) -> np.ndarray:
    """`log_energies`, the mean of each band taken away."""
    logs = log_energies(samples)
    return logs - logs.mean(0)


def log_energies(samples: np.ndarray) -> np.ndarray:
    """int16 (T,) -> log energies in bands (F, BANDS), a frame every 10 ms."""
    sound = samples.astype(np.float64)
    sound = np.append(sound[:1], sound[1:] - 0.95 * sound[:-1])
    padded = np.pad(sound, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    energies = np.abs(np.fft.rfft(frames * np.hanning(WINDOW))) ** 2 @ _bands()
    return np.log(energies + FLOOR * energies.max() + 1e-9)


def _bands() -> np.ndarray:
    """Triangles on the mel scale from 80 to 3800 Hz: (WINDOW / 2 + 1, BANDS)."""
    mels = np.linspace(1127 * np.log(1 + 80 / 700), 1127 * np.log(1 + 3800 / 700), BANDS + 2)
    edges = 700 * (np.exp(mels / 1127) - 1)
    hertz = np.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.minimum(rising, falling).clip(0)


def of_phone(logs: np.ndarray, phone: Phone) -> np.ndarray:
    """What is seen of a phone: the mean spectra of its thirds and of what is around it, and how
    long it is.
    """
    first = round(phone.start * RATE / HOP)
    last = max(first + 1, round(phone.end * RATE / HOP))
    borders = np.rint(np.linspace(first, last, 4)).astype(int)
    parts = [(first - AROUND, first), *zip(borders[:-1], borders[1:], strict=True)]
    parts.append((last, last + AROUND))
    count = len(logs)
    means = []
    for start, end in parts:
        start = min(max(start, 0), count - 1)
        means.append(logs[start : max(start + 1, min(end, count))].mean(0))
    return np.append(np.concatenate(means), np.log(phone.end - phone.start + 1e-3))


def of_word(samples: np.ndarray) -> np.ndarray:
    """What is seen of a word: its spectra from where it begins to where it ends, in PARTS, and how
    long it is.
    """
    logs = log_mel(samples)
    loud = logs.sum(1)
    inside = np.flatnonzero(loud > loud.min() + 0.3 * (loud.max() - loud.min()))
    logs = logs[inside[0] : inside[-1] + 1]
    places = np.linspace(0, len(logs) - 1, PARTS)
    whole = [np.interp(places, np.arange(len(logs)), band) for band in logs.T]
    return np.append(np.concatenate(whole), np.log(len(logs)))


def altered(samples: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A word slower or faster, and its pitch with it, with noise."""
    speed = np.exp(random.uniform(*np.log(SPEEDS)))
    places = np.arange(0, len(samples) - 1, speed)
    sound = np.interp(places, np.arange(len(samples)), samples.astype(np.float64))
    level = np.sqrt(np.square(sound).mean()) * 10 ** (-random.uniform(*NOISES) / 20)
    return np.rint(sound + level * random.standard_normal(len(sound)))


class Recogniser:
    """Two hidden layers and softmax, AdamW, on standardised features."""

    def __init__(self, seen: np.ndarray, names: list[str], seed: int, steps: int) -> None:
        """seen: (N, D) features. names: of what each is."""
        import torch
        from torch import nn
        from torch.nn import functional as F

        self.names = sorted(set(names))
        places = {name: place for place, name in enumerate(self.names)}
        self.mean = seen.mean(0)
        self.deviation = seen.std(0) + 1e-6
        inputs = self._standardised(seen)
        targets = torch.tensor([places[name] for name in names])
        torch.manual_seed(seed)
        self.network = nn.Sequential(
            nn.Dropout(0.1),
            nn.Linear(seen.shape[1], WIDTH),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(WIDTH, len(self.names)),
        )
        optimizer = torch.optim.AdamW(self.network.parameters(), 1e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            chosen = torch.randint(len(inputs), (BATCH,))
            loss = F.cross_entropy(self.network(inputs[chosen]), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.network.eval()

    def is_right(self, seen: np.ndarray, names: list[str]) -> np.ndarray:
        """Whether each is recognised: (N,) bool."""
        import torch

        with torch.no_grad():
            best = self.network(self._standardised(seen)).argmax(1)
        return np.array([self.names[place] for place in best.tolist()]) == np.array(names)

    def _standardised(self, seen: np.ndarray):
        import torch

        return torch.from_numpy((seen - self.mean) / self.deviation).float()
