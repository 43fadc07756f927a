"""The parts of a command in order, how long each may take, and one bar over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.sections import TrainConfig
from ..training.loop import Finished
from ..training.progress import Display, Silent

OPENING = "open the data"
# Seconds that importing, plotting and writing a report take, whatever is in it.
REPORT_SECONDS = 10.0


def ending_minutes(
    minutes: float | None, finished: Finished, settings: TrainConfig
) -> float | None:
    """The minutes of a command if it is these that ended its training, not the settings' own."""
    if minutes is None or finished.figures["stopped_by"] != "max_minutes":
        return None
    limit = settings.max_minutes
    # What a budget leaves for the last validation pass is not trained in.
    if limit is not None and finished.figures["training_seconds"] >= 0.9 * 60 * limit:
        return None
    return minutes


@dataclass(frozen=True)
class Part:
    """One part of a command.

    share: of the time and of the bar. limit: in words, what else ends it. seconds: what it needs
    beside its share.
    """

    name: str
    share: float
    limit: str = ""
    seconds: float = 0.0


class Plan:
    """Parts in order. Each starts when the one before is over, and ends in time for those behind
    it.

    minutes: of the whole command, from `started` (of time.monotonic()); None = no limit.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        display: Display | None,
        minutes: float | None = None,
        started: float | None = None,
    ) -> None:
        self.parts = list(parts)
        self.display = display or Silent()
        self.end = None
        if minutes is not None:
            if started is None:
                started = time.monotonic()
            self.end = started + 60 * minutes

    def __enter__(self) -> Plan:
        """Start the bar. What will be done is said by `announce`, once nothing stands against
        it.
        """
        self.display.start("")
        return self

    def announce(self) -> None:
        """Say what will be done."""
        self.display.message(self.describe())

    def __exit__(self, *exception: object) -> None:
        self.display.stop()

    def describe(self) -> str:
        """One line a part: what, and how long at most."""
        lines = ["plan:"]
        left = 0.0
        if self.end is not None:
            left = max(0.0, self.end - time.monotonic())
        for number, part in enumerate(self.parts, 1):
            limits = []
            if self.end is not None:
                limits.append(f"{self._seconds(part, left) / 60:.1f} min")
            if part.limit:
                limits.append(part.limit)
            line = f"  {number}. {part.name}"
            if limits:
                line += f": {', '.join(limits)}"
            lines.append(line)
        return "\n".join(lines)

    def deadline(self, name: str) -> float | None:
        """When a part must end, by time.monotonic(), so that those behind it have theirs.

        None without a limit.
        """
        if self.end is None:
            return None
        left = self.end - time.monotonic()
        remaining = self.parts[self._index(name) :]
        # What no part needs for certain is given out by shares.
        room = max(0.0, left - _seconds(remaining))
        behind = remaining[1:]
        later = _seconds(behind) + room * _shares(behind) / _shares(remaining)
        return self.end - later

    def stage(self, name: str) -> Display:
        """A display for one part, whose progress is a part of the bar."""
        index = self._index(name)
        total = _shares(self.parts)
        first = _shares(self.parts[:index]) / total
        return _Stage(self.display, first, first + self.parts[index].share / total)

    def told(self, name: str) -> Callable[[float], None]:
        """What long work calls with the share of one part that is done."""
        stage = self.stage(name)
        return lambda share: stage.update(share, {})

    def _index(self, name: str) -> int:
        return [part.name for part in self.parts].index(name)

    def _seconds(self, part: Part, left: float) -> float:
        room = max(0.0, left - _seconds(self.parts))
        return part.seconds + room * part.share / _shares(self.parts)


def _seconds(parts: Sequence[Part]) -> float:
    return sum(part.seconds for part in parts)


def _shares(parts: Sequence[Part]) -> float:
    return sum(part.share for part in parts)


class _Stage:
    """Shows a part of a command as a part of its bar."""

    def __init__(self, display: Display, first: float, last: float) -> None:
        self._display = display
        self._first = first
        self._last = last

    def start(self, title: str) -> None:
        self._display.message(title)

    def update(self, progress: float, row: Mapping[str, Any]) -> None:
        self._display.update(self._first + (self._last - self._first) * progress, row)

    def message(self, text: str) -> None:
        self._display.message(text)

    def stop(self) -> None:
        pass
