"""From settings to signals; each is imported when it is first needed."""

from __future__ import annotations

from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import VqkitError
from .base import Signal

if TYPE_CHECKING:
    from ..settings import DataConfig

# The constant of each, by the name that `data.signal` has, and the module that it is in.
SIGNALS = {
    "image": ("image.signal", "IMAGE"),
    "audio": ("audio.signal", "AUDIO"),
    "series": ("array.signal", "SERIES"),
    "volume": ("array.signal", "VOLUME"),
}
# Files of a folder that are looked at to know what it holds.
MOST_LOOKED_AT = 5000


def signal_of(settings: DataConfig) -> Signal:
    """The signal that data settings are of."""
    return signal_named(settings.signal)


def signal_named(name: str) -> Signal:
    """The signal of a name, as `data.signal` has it. VqkitError for none."""
    if name not in SIGNALS:
        raise VqkitError(f"data.signal={name} is no kind of signal: there are {', '.join(SIGNALS)}")
    module, constant = SIGNALS[name]
    return cast(Signal, getattr(import_module(f".{module}", __package__), constant))


def recognised(source: str | Path) -> str:
    """The name of the signal that most files of a source are of, by their suffixes. Images where
    nothing is known.
    """
    counts = files_by_signal(source)
    return max(SIGNALS, key=counts.__getitem__)


def files_by_signal(source: str | Path) -> dict[str, int]:
    """How many files of a source are of each signal, by their suffixes: a file, or a folder, of
    which the first thousands are looked at.
    """
    path = Path(source).expanduser()
    files = islice(path.rglob("*"), MOST_LOOKED_AT) if path.is_dir() else iter([path])
    signals = [signal_named(name) for name in SIGNALS]
    counts = dict.fromkeys(SIGNALS, 0)
    for file in files:
        for signal in signals:
            counts[signal.name] += signal.has(file)
    return counts
