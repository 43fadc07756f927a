"""The live bar of a run in a notebook: one output that is replaced, which needs no widgets."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Mapping
from typing import Any

from .progress import figures

# Seconds between two changes of the output.
SECONDS = 0.5
# Messages that stay in sight.
MESSAGES = 6


def in_notebook() -> bool:
    """Whether this process is a kernel, whose outputs can be replaced. Imports nothing."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


class Cell:
    """A bar with the time that is left, the latest figures, and the latest messages under it."""

    def __init__(self) -> None:
        from IPython.display import display

        self.handle = display({"text/plain": ""}, raw=True, display_id=True)
        self.started = time.monotonic()
        self.shown = 0.0
        self.share = 0.0
        self.figures = ""
        self.messages: list[str] = []

    def start(self, title: str) -> None:
        self.started = time.monotonic()
        if title:
            self.message(title)

    def update(self, progress: float, row: Mapping[str, Any]) -> None:
        self.share = progress
        self.figures = figures(row) or self.figures
        if time.monotonic() - self.shown > SECONDS:
            self._show()

    def message(self, text: str) -> None:
        self.messages.append(text)
        self._show()

    def stop(self) -> None:
        self._show()

    def _show(self) -> None:
        self.shown = time.monotonic()
        seconds = self.shown - self.started
        state = f"{self.share:.0%}, {seconds:.0f} s"
        if 0.01 < self.share < 1:
            state += f", about {seconds / self.share - seconds:.0f} s left"
        lines = "<br>".join(html.escape(text) for text in self.messages[-MESSAGES:])
        page = (
            f"<progress value='{self.share:.3f}' max='1' style='width:20em'></progress> {state}"
            f"<br><b>{html.escape(self.figures)}</b><br><small>{lines}</small>"
        )
        plain = f"{state}  {self.figures}"
        self.handle.update({"text/html": page, "text/plain": plain}, raw=True)
