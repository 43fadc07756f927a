"""Many pictures on one sheet, sheets as an animation, and the pictures that a prior's training leaves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import write_bytes
from . import figures
from .pictures import comparison_sheet, png_bytes, to_image

GAP = 2
MAX_SIDE = 1000
LAST_FRAME_MS, FRAME_MS = 2000, 80


def contact_sheet(images: np.ndarray, columns: int | None = None) -> Image.Image:
    """One RGB picture of all images uint8 (N, H, W, C), row after row on grey, alpha over white.

    Pixels are repeated by the largest whole factor up to 8 with which the sheet is at most MAX_SIDE wide. Image
    (row, column) starts at GAP + row * (H * scale + GAP), the same across. ValueError without images.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(f"a sheet needs images (N, H, W, C), got {images.shape}")
    count, height, width, _ = images.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    scale = max(1, min(8, (MAX_SIDE - GAP) // columns // (width + GAP)))
    step_x, step_y = width * scale + GAP, height * scale + GAP
    sheet = Image.new("RGB", (GAP + columns * step_x, GAP + -(-count // columns) * step_y), (160, 160, 160))
    for index, pixels in enumerate(images):
        tile = to_image(pixels.repeat(scale, axis=0).repeat(scale, axis=1)).convert("RGBA")
        white = Image.new("RGBA", tile.size, "white")
        place = GAP + index % columns * step_x, GAP + index // columns * step_y
        sheet.paste(Image.alpha_composite(white, tile).convert("RGB"), place)
    return sheet


def animation(frames: Sequence[np.ndarray]) -> bytes:
    """A GIF of the sheets of each frame's images uint8 (N, H, W, C); it loops and rests on the last frame."""
    sheets = [contact_sheet(frame) for frame in frames]
    buffer = io.BytesIO()
    durations = [FRAME_MS] * (len(sheets) - 1) + [LAST_FRAME_MS]
    sheets[0].save(buffer, "GIF", save_all=True, append_images=sheets[1:], duration=durations, loop=0)
    return buffer.getvalue()


def write_prior_pictures(
    folder: Path,
    history: Sequence[Mapping[str, Any]],
    samples: np.ndarray,
    scattered: np.ndarray,
    nearest: np.ndarray,
) -> None:
    """Pictures of a trained prior: samples.png, scattered.png (drawn in a few steps), nearest.png (each sample above
    the training image nearest to it), bits.png (bits a code, training against validation)."""
    curves = figures.over_steps(history, {"bits_per_code": "in order", "bits_per_code_any_order": "in random orders"})
    found = {
        "samples.png": png_bytes(contact_sheet(samples)),
        "scattered.png": png_bytes(contact_sheet(scattered)),
        "nearest.png": png_bytes(comparison_sheet(samples, nearest)),
        "bits.png": figures.png({"Bits a code": curves}, width=7.0, height=4.0),
    }
    for name, content in found.items():
        if content:
            write_bytes(folder / name, content)
