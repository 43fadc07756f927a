"""From settings to signals.

This `match` is the registry, and each signal is imported when it is first needed.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import VqkitError
from .base import Signal

if TYPE_CHECKING:
    from ..settings import DataConfig

NAMES = ("image", "audio")
# Files of a folder that are looked at to know what it holds.
MOST_LOOKED_AT = 5000


def signal_of(settings: DataConfig) -> Signal:
    """The signal that data settings are of."""
    return signal_named(settings.signal)


def signal_named(name: str) -> Signal:
    """The signal of a name, as `data.signal` has it. VqkitError for none."""
    match name:
        case "image":
            from .image.signal import IMAGE

            return IMAGE
        case "audio":
            from .audio.signal import AUDIO

            return AUDIO
    raise VqkitError(f"data.signal={name} is no kind of signal: there are {', '.join(NAMES)}")


def recognised(source: str | Path) -> str:
    """The name of the signal that most files of a source are of, by their suffixes: a file, or a
    folder, of which the first thousands are looked at. Images where nothing is known.
    """
    path = Path(source).expanduser()
    files = islice(path.rglob("*"), MOST_LOOKED_AT) if path.is_dir() else iter([path])
    signals = [signal_named(name) for name in NAMES]
    counts = dict.fromkeys(NAMES, 0)
    for file in files:
        for signal in signals:
            counts[signal.name] += signal.has(file)
    return max(NAMES, key=counts.__getitem__)
