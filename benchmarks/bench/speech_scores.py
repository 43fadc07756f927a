"""Codecs of speech measured: kilobits a second, STOI and PESQ over recordings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench.speech_sets import RATE, in_minutes

# Seconds by which a codec may be late, and between two that are tried.
MAX_DELAY = 0.1
DELAY_STEP = 0.0025


def trained(source: Path, out: Path, minutes: float, words: Sequence[str]) -> Path:
    """The folder of `vqkit train SOURCE --out OUT --minutes N WORDS`, as it is where there is
    one.
    """
    if not out.exists():
        command = [sys.executable, "-m", "vqkit", "train", str(source), "--out", str(out)]
        subprocess.run([*command, "--minutes", str(minutes), *words], check=True)
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


def measured(
    recordings: dict[str, np.ndarray],
    coded: Callable[[np.ndarray], tuple[np.ndarray, float]],
    may_be_late: bool = False,
    rate: int = RATE,
) -> dict[str, float]:
    """Kilobits a second, STOI and PESQ of a codec over all recordings.

    may_be_late: it is asked on the first minute by how much, and heard so much later.
    """
    found = []
    size = 0.0
    seconds = 0.0
    late: int | None = None if may_be_late else 0
    for names in in_minutes(list(recordings), recordings, rate):
        whole = np.concatenate([recordings[name] for name in names])
        decoded, num_bytes = coded(whole)
        if late is None:
            late = delay_of(whole, decoded, rate)
        decoded = np.pad(decoded[late:], (0, late))
        size += num_bytes
        seconds += len(whole) / rate
        start = 0
        for name in names:
            end = start + len(recordings[name])
            found.append(scores(recordings[name], decoded[start:end], rate))
            start = end
    stoi, pesq = np.mean(found, 0)
    figures = {"kbps": 8e-3 * size / seconds, "stoi": float(stoi), "pesq": float(pesq)}
    return {**figures, "late": late} if may_be_late else figures


def curve(
    run: Path, recordings: dict[str, np.ndarray], rates: tuple[float, ...], rate: int = RATE
) -> list[dict]:
    """Our codec at several rates."""
    import vqkit

    model = vqkit.load(run, device="cpu")

    def coded(kbps: float) -> Callable[[np.ndarray], tuple[np.ndarray, float]]:
        def one(samples: np.ndarray) -> tuple[np.ndarray, float]:
            data = model.compress(samples, rate=1000 * kbps / rate)
            return model.decompress(data)[0], len(data)

        return one

    return [{"asked": kbps, **measured(recordings, coded(kbps), rate=rate)} for kbps in rates]


def at(points: list[dict], kbps: float) -> dict:
    """The point that was asked for so many kilobits."""
    return next(point for point in points if point["asked"] == kbps)


def bytes_against_opus(points: list[dict], opus_point: dict[str, float]) -> float:
    """Our kilobits at Opus's STOI, between points in lines, over its own; infinite beyond them."""
    stoi = [point["stoi"] for point in points]
    if max(stoi) < opus_point["stoi"]:
        return float("inf")
    kbps = np.interp(opus_point["stoi"], stoi, [point["kbps"] for point in points])
    return float(kbps) / opus_point["kbps"]
