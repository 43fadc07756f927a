"""What a person sees of a run: a live bar on a terminal or in a notebook, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

# Seconds between two plain lines.
PLAIN_SECONDS = 10.0


class Display(Protocol):
    """Receives the state of a run; implementations only show it."""

    def start(self, title: str) -> None: ...

    def update(self, progress: float, row: Mapping[str, Any]) -> None: ...

    def message(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Silent:
    """Shows nothing: ranks other than the first, and calls from Python that ask for quiet."""

    def start(self, title: str) -> None:
        pass

    def update(self, progress: float, row: Mapping[str, Any]) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def stop(self) -> None:
        pass


class Lines:
    """One line every few seconds, for logs and pipes."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.last = -PLAIN_SECONDS

    def start(self, title: str) -> None:
        self.started = time.monotonic()
        self.last = -PLAIN_SECONDS
        if title:
            self.message(title)

    def update(self, progress: float, row: Mapping[str, Any]) -> None:
        seconds = time.monotonic() - self.started
        if seconds - self.last < PLAIN_SECONDS and progress < 1:
            return
        if not row and seconds < PLAIN_SECONDS and progress < 1:
            # Without figures there is nothing to see yet.
            return
        self.last = seconds
        left = seconds / progress - seconds if progress > 0 else 0.0
        step = f"step {row['step']}  " if "step" in row else ""
        self.message(
            f"{progress:4.0%}  {step}{figures(row)}  {seconds:.0f} s, about {max(left, 0):.0f} s "
            "left"
        )

    def message(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        pass


def live() -> Display:
    """What shows a run as it goes: a bar in a notebook or on a terminal, else a line every ten
    seconds. For `display` of `vqkit.train` and the rest, which are silent without.
    """
    from .notebook import Cell, in_notebook

    if in_notebook():
        return Cell()
    if sys.stderr.isatty() and find_spec("rich") is not None:
        from .bar import Bar

        return Bar()
    return Lines()


def figures(row: Mapping[str, Any]) -> str:
    """The figures of a row in one short line."""
    parts = []
    for name, value in row.items():
        if name.startswith("loss/"):
            parts.append(f"{name.removeprefix('loss/')} {value:.4g}")
    for name, words in (("psnr", "PSNR"), ("spectral_snr", "spectral SNR")):
        if name in row:
            parts.insert(0, f"{words} {row[name]:.2f} dB")
    if "byte_accuracy" in row:
        parts.insert(0, f"{row['byte_accuracy']:.2f} % of bytes right")
    if "bits_per_code" in row:
        parts.insert(0, f"{row['bits_per_code']:.3f} bits a code")
    if "bits_per_value" in row:
        parts.insert(0, f"{row['bits_per_value']:.3f} bits a value")
    if "usage" in row:
        parts.append(f"usage {row['usage']:.0%}")
    if "items_per_second" in row:
        parts.append(f"{row['items_per_second']:.0f} items/s")
    return "  ".join(parts)
