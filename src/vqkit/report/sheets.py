"""Many images on one sheet, sheets as an animation, and the images of a prior's training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import write_bytes
from . import figures
from .images import comparison_sheet, png_bytes, to_image
from .summary import PriorSummary

GAP = 2
MAX_SIDE = 1000
FRAME_MS = 80
LAST_FRAME_MS = 2000
# Pixels of all frames, from which their palette is made: seven times as many took eight times as
# long to gain 0.1 levels.
PALETTE_PIXELS = 500_000


def contact_sheet(images: np.ndarray, columns: int | None = None) -> Image.Image:
    """One RGB image of all images uint8 (N, H, W, C), row after row on grey, alpha over white.

    Pixels are repeated by the largest whole factor up to 8 with which the sheet is at most MAX_SIDE
    wide. Image (row, column) starts at GAP + row * (H * scale + GAP), the same across. ValueError
    without images.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(f"a sheet needs images (N, H, W, C), got {images.shape}")
    count, height, width, _ = images.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    scale = max(1, min(8, (MAX_SIDE - GAP) // columns // (width + GAP)))
    rows = -(-count // columns)
    step_x = width * scale + GAP
    step_y = height * scale + GAP
    size = (GAP + columns * step_x, GAP + rows * step_y)
    sheet = Image.new("RGB", size, (160, 160, 160))
    for index, pixels in enumerate(images):
        tile = to_image(pixels.repeat(scale, axis=0).repeat(scale, axis=1)).convert("RGBA")
        white = Image.new("RGBA", tile.size, "white")
        place = GAP + index % columns * step_x, GAP + index // columns * step_y
        sheet.paste(Image.alpha_composite(white, tile).convert("RGB"), place)
    return sheet


def animation(frames: Sequence[np.ndarray]) -> bytes:
    """A GIF of the sheets of each frame's images uint8 (N, H, W, C).

    It loops and rests on the last frame.

    All frames share one palette. Grey images keep their values; of others, colours are off by about
    3 levels on average. ValueError without frames.
    """
    if not len(frames):
        raise ValueError("an animation needs at least one frame")
    sheets = [contact_sheet(frame) for frame in frames]
    if frames[0].shape[-1] <= 2:
        sheets = [sheet.convert("L") for sheet in sheets]
    else:
        sheets = _in_one_palette(sheets)
    first, *others = sheets
    durations = [FRAME_MS] * len(others) + [LAST_FRAME_MS]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return buffer.getvalue()


def _in_one_palette(sheets: list[Image.Image]) -> list[Image.Image]:
    """RGB sheets of one size in the 256 colours that fit all of them: with a palette for each,
    still parts flicker.

    Of the ways that Pillow has, this one was nearest on sheets of emoji. No dithering: its dots
    would move.
    """
    num_pixels = len(sheets) * sheets[0].width * sheets[0].height
    step = int(np.ceil(np.sqrt(num_pixels / PALETTE_PIXELS)))
    seen = Image.fromarray(np.concatenate([np.asarray(sheet)[::step, ::step] for sheet in sheets]))
    palette = seen.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    return [sheet.quantize(palette=palette, dither=Image.Dither.NONE) for sheet in sheets]


def write_prior_images(summary: PriorSummary, folder: Path) -> None:
    """Images of a trained prior: samples.png, scattered.png (drawn in a few steps), nearest.png
    (each sample above the training image nearest to it), bits.png (bits a code, training against
    validation).
    """
    named = {"bits_per_code": "in order", "bits_per_code_any_order": "in random orders"}
    curves = figures.over_steps(summary.history, named)
    images = {
        "samples.png": png_bytes(contact_sheet(summary.samples)),
        "scattered.png": png_bytes(contact_sheet(summary.scattered)),
        "nearest.png": png_bytes(comparison_sheet(summary.samples, summary.nearest)),
        "bits.png": figures.png({"Bits a code": curves}, width=7.0, height=4.0),
    }
    for name, content in images.items():
        if content:
            write_bytes(folder / name, content)
