"""What recordings are like, as far as a short look tells."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .files import BadSound, Samples, Target, stream

# Files whose beginning is heard, and seconds of it.
HEARD = 24
SECONDS = 15.0
# Frames of a second, over whose mean level a frame is judged.
FRAMES = 50
# Of the loudest frame, below which a file has not begun yet, or is over.
SILENCE = 1e-3


class Look(NamedTuple):
    """rate and channels: of most of the sound. quiet: median over files of the share of frames of
    20 ms that have less than half of the mean level of the second around them, which is large for
    speech, with its pauses between syllables, and small for music (Scheirer & Slaney 1997); None
    where nothing could be heard.
    """

    rate: int
    channels: int
    quiet: float | None


def quiet_share(paths: Iterable[Path]) -> float | None:
    """Of the beginnings of files; those that cannot be read are left out."""
    found = []
    for path in paths:
        try:
            share = _quiet(*_beginning(path))
        except BadSound:
            continue
        if share is not None:
            found.append(share)
    return float(np.median(found)) if found else None


def spread_out(paths: list[Path]) -> list[Path]:
    """HEARD of the files at most, evenly over the list."""
    step = max(1.0, len(paths) / HEARD)
    return [paths[math.floor(step * number)] for number in range(min(HEARD, len(paths)))]


def _beginning(path: Path) -> tuple[Samples, int]:
    blocks = []
    seconds = 0.0
    rate = 1
    for block, rate in stream(path, Target(None, 1)):
        blocks.append(block)
        seconds += block.shape[1] / rate
        if seconds >= SECONDS:
            break
    if not blocks:
        raise BadSound("it holds nothing")
    return np.concatenate(blocks, 1)[:, : int(SECONDS * rate)], rate


def _quiet(samples: Samples, rate: int) -> float | None:
    """Samples (1, T) -> the share of their frames; None for less than a second."""
    size = max(1, rate // FRAMES)
    count = samples.shape[1] // size
    frames = samples[0, : count * size].reshape(count, size).astype(np.float64)
    levels: NDArray[np.float64] = np.sqrt(np.square(frames).mean(1))
    heard = np.flatnonzero(levels > SILENCE * levels.max(initial=0.0))
    if not len(heard) or heard[-1] - heard[0] < FRAMES:
        return None
    levels = levels[heard[0] : heard[-1] + 1]
    windows = np.lib.stride_tricks.sliding_window_view(levels, FRAMES)[:: FRAMES // 2]
    return float((windows < 0.5 * windows.mean(1, keepdims=True)).mean())
