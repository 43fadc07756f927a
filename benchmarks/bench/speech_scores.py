"""Codecs of speech measured: kilobits a second, STOI and PESQ over recordings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.speech_sets import RATE, in_minutes

# Seconds by which a codec may be late, and between two that are tried.
MAX_DELAY = 0.1
DELAY_STEP = 0.0025
# Settings of a training that only shows that everything goes through.
FEW = ["train.steps=20", "train.max_minutes=null"]


def run_folder(work: Path, seed: int, settings: Sequence[str]) -> Path:
    """Where a training lies: every seed and every choice of settings has a folder of its own."""
    return work / "-".join(["run", str(seed), *settings]).replace("/", "_")


def trained(source: Path, out: Path, minutes: float | None, words: Sequence[str]) -> Path:
    """The folder of `vqkit train SOURCE --out OUT --minutes N WORDS`, as it is where there is one.

    minutes: None for a few steps, however long they take.
    """
    if not out.exists():
        command = [sys.executable, "-m", "vqkit", "train", str(source), "--out", str(out), *words]
        command += FEW if minutes is None else ["--minutes", str(minutes)]
        subprocess.run(command, check=True)
    return out


def scores(original: np.ndarray, decoded: np.ndarray, rate: int = RATE) -> tuple[float, float]:
    """STOI (Taal et al. 2011) and PESQ: narrowband (ITU-T P.862) at 8 kHz, else wideband
    (P.862.2).
    """
    from pesq import pesq
    from pystoi import stoi

    one = original.astype(np.float64) / 32768
    two = decoded.astype(np.float64) / 32768
    return float(stoi(one, two, rate)), float(pesq(rate, one, two, "nb" if rate == RATE else "wb"))


def delay_of(original: np.ndarray, decoded: np.ndarray, rate: int = RATE) -> int:
    """Samples by which a codec is late: those at which STOI is highest."""
    from pystoi import stoi

    one = original.astype(np.float64) / 32768
    two = decoded.astype(np.float64) / 32768

    def heard(late: int) -> float:
        return float(stoi(one[: len(one) - late], two[late:], rate))

    step = round(DELAY_STEP * rate)
    return max(range(0, round(MAX_DELAY * rate) + 1, step), key=heard)


# What a codec makes of samples, and the bytes of its file.
Coded = Callable[[np.ndarray], tuple[np.ndarray, float]]


class Decoded(NamedTuple):
    """What a codec makes of recordings, its kilobits a second, and samples by which it is late."""

    recordings: dict[str, np.ndarray]
    kbps: float
    late: int


def decoded(
    recordings: dict[str, np.ndarray], coded: Coded, may_be_late: bool = False, rate: int = RATE
) -> Decoded:
    """Recordings in files of a minute, each cut out of what is decoded.

    may_be_late: the codec is asked on the first minute by how much, and heard so much later.
    """
    found = {}
    size = 0.0
    seconds = 0.0
    late: int | None = None if may_be_late else 0
    for names in in_minutes(list(recordings), recordings, rate):
        whole = np.concatenate([recordings[name] for name in names])
        heard, num_bytes = coded(whole)
        if late is None:
            late = delay_of(whole, heard, rate)
        heard = np.pad(heard[late:], (0, late))
        size += num_bytes
        seconds += len(whole) / rate
        start = 0
        for name in names:
            end = start + len(recordings[name])
            found[name] = heard[start:end]
            start = end
    return Decoded(found, 8e-3 * size / seconds, late or 0)


def measured(
    recordings: dict[str, np.ndarray], coded: Coded, may_be_late: bool = False, rate: int = RATE
) -> dict[str, float]:
    """Kilobits a second, STOI and PESQ of a codec over all recordings."""
    found = decoded(recordings, coded, may_be_late, rate)
    pairs = ((recordings[name], heard) for name, heard in found.recordings.items())
    stoi, pesq = np.mean([scores(one, heard, rate) for one, heard in pairs], 0)
    figures = {"kbps": found.kbps, "stoi": float(stoi), "pesq": float(pesq)}
    return {**figures, "late": found.late} if may_be_late else figures


def ours(run: Path, rate: int = RATE) -> Callable[[float], Coded]:
    """Our codec at so many kilobits a second at most."""
    import vqkit

    model = vqkit.load(run, device="cpu")

    def at_most(kbps: float) -> Coded:
        def coded(samples: np.ndarray) -> tuple[np.ndarray, float]:
            data = model.compress(samples, rate=1000 * kbps / rate)
            return model.decompress(data)[0], len(data)

        return coded

    return at_most


def curve(
    run: Path, recordings: dict[str, np.ndarray], rates: tuple[float, ...], rate: int = RATE
) -> list[dict]:
    """Our codec at several rates."""
    codec = ours(run, rate)
    return [{"asked": kbps, **measured(recordings, codec(kbps), rate=rate)} for kbps in rates]


def at(points: list[dict], kbps: float) -> dict:
    """The point that was asked for so many kilobits."""
    return next(point for point in points if point["asked"] == kbps)


def bytes_against_opus(
    points: list[dict], opus_point: dict[str, float], figure: str = "stoi"
) -> float:
    """Our kilobits at Opus's STOI or another figure, between points in lines, over its own;
    infinite beyond them.
    """
    ours = [point[figure] for point in points]
    if max(ours) < opus_point[figure]:
        return float("inf")
    kbps = np.interp(opus_point[figure], ours, [point["kbps"] for point in points])
    return float(kbps) / opus_point["kbps"]
