"""Text as images to look at: all bytes in one line, a cell for each."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

# Pixels of the cell of a byte, and the row that letters stand on.
WIDTH = 7
HEIGHT = 14
BASE = 11
# Points of letters, at 96 of them an inch.
POINTS = 8
# What stands for bytes that are no letters.
SIGNS = {"\n": "¶", "\t": "→", "\r": "←"}
OTHER = "·"


def lines(values: Tensor) -> np.ndarray:
    """Bytes (B, 1, T) -> uint8 (B, HEIGHT, WIDTH * T, 3): dark letters on white."""
    found = []
    for row in values[:, 0].cpu().numpy().astype(np.uint8):
        cells = [_glyph(letter) for letter in letters(row.tobytes())]
        found.append(255 - np.concatenate(cells, 1))
    return np.repeat(np.stack(found)[..., None], 3, 3)


def letters(content: bytes) -> list[str]:
    """A sign for each byte: of a character of several bytes the first has it, the others none."""
    found = []
    place = 0
    while place < len(content):
        length = _length(content, place)
        text = content[place : place + length].decode("utf-8", "replace")
        sign = SIGNS.get(text, text)
        if not sign.isprintable() or sign == "\N{REPLACEMENT CHARACTER}":
            sign = OTHER
        found += [sign] + [""] * (length - 1)
        place += length
    return found


def _length(content: bytes, place: int) -> int:
    """Bytes of the character at a place; 1 for what is no UTF-8."""
    for length in (1, 2, 3, 4):
        try:
            content[place : place + length].decode()
        except UnicodeDecodeError:
            continue
        return min(length, len(content) - place)
    return 1


@lru_cache(maxsize=4096)
def _glyph(letter: str) -> np.ndarray:  # (HEIGHT, WIDTH) uint8
    cell = np.zeros((HEIGHT, WIDTH), np.uint8)
    font = _font()
    if letter.strip():
        if not font.get_char_index(ord(letter)):
            letter = OTHER
        glyph = font.load_char(ord(letter))
        # Outlines are in 64ths of a pixel. Wide signs of other scripts are cut off.
        large = np.zeros((3 * HEIGHT, 4 * WIDTH), np.uint8)
        top = HEIGHT + BASE - glyph.horiBearingY // 64
        font.draw_glyph_to_bitmap(large, 0, max(0, top), glyph, antialiased=True)
        cell[:] = large[HEIGHT : 2 * HEIGHT, :WIDTH]
    return cell


@lru_cache(maxsize=1)
def _font() -> Any:
    """DejaVu Sans Mono, which comes with matplotlib."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    font = FT2Font(f"{get_data_path()}/fonts/ttf/DejaVuSansMono.ttf")
    font.set_size(POINTS, 96)
    return font
