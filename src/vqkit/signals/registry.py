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
    "text": ("text.signal", "TEXT"),
}
# Files of a folder that are looked at to know what it holds.
MOST_LOOKED_AT = 5000
# Files of text for each of another signal from which on these are taken to belong to the text.
MIXED = 10


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
    """The name of the signal that most files of a source are of. Images where nothing is known.

    VqkitError where text lies among so many files of another signal that both may be meant.
    """
    counts = files_by_signal(source)
    texts = [name for name in SIGNALS if signal_named(name).may_be_caption]
    found = max(SIGNALS, key=counts.__getitem__)
    for text in texts:
        others = {name: count for name, count in counts.items() if name not in texts and count}
        most = max(others.values(), default=0)
        if counts[text] >= most > counts[text] / MIXED:
            named = [text, *others]
            said = ", ".join(f"{counts[name]} {signal_named(name).item}s" for name in named)
            wanted = " or ".join(f"data.signal={name}" for name in named)
            raise VqkitError(f"{source} holds {said}: say which of them are meant, with {wanted}")
    return found


def files_by_signal(source: str | Path) -> dict[str, int]:
    """How many files of a source are of each signal: a file, or a folder, of which the first
    thousands are looked at.

    A caption beside an item of its name counts as part of that, and text that is less than files of
    no signal beside it, such as a note on tables of images, as no item.
    """
    path = Path(source).expanduser()
    files = islice(path.rglob("*"), MOST_LOOKED_AT) if path.is_dir() else iter([path])
    signals = [signal_named(name) for name in SIGNALS]
    counts = dict.fromkeys(SIGNALS, 0)
    captions: list[tuple[str, Path]] = []
    described: set[Path] = set()
    num_bytes = {"text": 0, "other": 0}
    for file in files:
        found = [signal for signal in signals if signal.has(file)]
        for signal in found:
            if signal.may_be_caption:
                captions.append((signal.name, file))
                num_bytes["text"] += _size(file)
            else:
                counts[signal.name] += 1
                described.add(file.with_suffix(""))
        if not found:
            num_bytes["other"] += _size(file)
    if num_bytes["text"] > num_bytes["other"]:
        for name, file in captions:
            counts[name] += file.with_suffix("") not in described
    return counts


def _size(file: Path) -> int:
    """Bytes of a file; none of what is no file, or hidden."""
    try:
        is_shown = file.is_file() and not file.name.startswith(".")
        return file.stat().st_size if is_shown else 0
    except OSError:
        return 0
