"""What a command does one after the other, how long each part may take, and one bar over all
of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..training.progress import Display, Silent

OPENING = "open the data"
# Seconds that importing, plotting and writing a report take, whatever is in it.
REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class Part:
    """One part of a command. share: of the time and of the bar. seconds: what it needs beside its
    share.
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
            self.end = (time.monotonic() if started is None else started) + 60 * minutes

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
        lines = []
        left = None if self.end is None else max(0.0, self.end - time.monotonic())
        for number, part in enumerate(self.parts, 1):
            limit = part.limit
            if left is not None:
                limit = f"{self._seconds(part, left) / 60:.1f} min" + (
                    f", {limit}" if limit else ""
                )
            lines.append(f"  {number}. {part.name}" + (f": {limit}" if limit else ""))
        return "\n".join(["plan:", *lines])

    def deadline(self, name: str) -> float | None:
        """When a part must end, by time.monotonic(), so that those behind it have theirs; None
        without a limit.
        """
        if self.end is None:
            return None
        left = self.end - time.monotonic()
        index = self._index(name)
        behind = self.parts[index + 1 :]
        fixed = sum(part.seconds for part in self.parts[index:])
        shares = sum(part.share for part in self.parts[index:])
        room = max(0.0, left - fixed)
        later = sum(part.seconds + room * part.share / shares for part in behind)
        return self.end - later

    def stage(self, name: str) -> Display:
        """A display for one part, whose progress is a part of the bar."""
        index = self._index(name)
        total = sum(part.share for part in self.parts)
        first = sum(part.share for part in self.parts[:index]) / total
        return _Stage(self.display, first, first + self.parts[index].share / total)

    def told(self, name: str) -> Callable[[float], None]:
        """What long work calls with the share of one part that is done."""
        stage = self.stage(name)
        return lambda share: stage.update(share, {})

    def _index(self, name: str) -> int:
        return next(index for index, part in enumerate(self.parts) if part.name == name)

    def _seconds(self, part: Part, left: float) -> float:
        room = max(0.0, left - sum(one.seconds for one in self.parts))
        return part.seconds + room * part.share / sum(one.share for one in self.parts)


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
