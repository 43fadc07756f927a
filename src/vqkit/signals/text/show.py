"""Text to be read beside what it was: passages that differ, and lines of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import unified_diff

import numpy as np
from torch import Tensor

Passages = list[tuple[str, bool]]

# Lines of a comparison that are shown.
MAX_LINES = 20


def passages(values: Tensor, others: Tensor) -> list[tuple[Passages, Passages]]:
    """Items uint8 (B, 1, T) twice -> the text of each in parts that are equal or differ, by turns.

    Characters that are cut at the end of a part are shown as such.
    """
    found = []
    for mine, other in zip(values[:, 0], others[:, 0], strict=True):
        first = mine.cpu().numpy().astype(np.uint8)
        second = other.cpu().numpy().astype(np.uint8)
        first, second = _without_padding(first, second)
        found.append((list(_parts(first, first != second)), list(_parts(second, first != second))))
    return found


def _without_padding(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both without the zeros that both end with."""
    real = np.flatnonzero((first != 0) | (second != 0))
    length = int(real[-1]) + 1 if len(real) else 0
    return first[:length], second[:length]


def _parts(content: np.ndarray, differs: np.ndarray) -> Iterator[tuple[str, bool]]:
    """A text in parts that differ, or do not; a character of several bytes is in one part."""
    # Of a character, all bytes differ if one does.
    begins = (content & 0xC0) != 0x80
    owner = np.cumsum(begins)
    wrong = np.zeros(int(owner.max(initial=0)) + 1, bool)
    wrong[owner[differs]] = True
    marked = wrong[owner]
    edges = np.flatnonzero(np.diff(marked)) + 1
    for part, is_wrong in zip(np.split(content, edges), np.split(marked, edges), strict=True):
        if len(part):
            yield part.tobytes().decode("utf-8", "replace"), bool(is_wrong[0])


def differences(values: Tensor, original: Tensor) -> list[str]:
    """Lines of uint8 (1, T) that differ from the original: before with -, now with +."""
    texts = []
    for one in (original, values):
        content = one[0].cpu().numpy().astype(np.uint8).tobytes()
        texts.append(content.decode("utf-8", "replace").splitlines())
    before, now = texts
    compared = unified_diff(before, now, n=0, lineterm="")
    lines = [line for line in compared if not line.startswith(("---", "+++"))]
    if len(lines) > MAX_LINES:
        return [*lines[:MAX_LINES], f"... and {len(lines) - MAX_LINES} lines more"]
    return lines
