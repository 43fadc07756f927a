"""Images as Pillow images and PNG bytes: single images, comparison sheets, code maps."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

# Pixels between two pairs and around the sheet.
GUTTER = 6
# Pixels between an original and its reconstruction.
SEAM = 2
CHECKER_SIDE = 8
CHECKER_TONES = (255, 208)
DEAD_COLOUR = (213, 94, 0)
CODE_COLOUR = (0, 114, 178)


def to_image(pixels: np.ndarray) -> Image.Image:
    """Pillow image in mode L, LA, RGB or RGBA of uint8 pixels (H, W, C), C = 1..4.

    ValueError for anything else.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise ValueError(f"an image is uint8 (H, W, 1..4), not {pixels.dtype} {pixels.shape}")
    if pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def with_palette(pixels: np.ndarray) -> Image.Image:
    """The image of uint8 pixels (H, W, 3) with a palette, where it has at most 256 colours; else,
    and with other channels, as `to_image` has it.
    """
    if pixels.shape[2] != 3:
        return to_image(pixels)
    height, width, channels = pixels.shape
    colours, places = np.unique(pixels.reshape(-1, channels), axis=0, return_inverse=True)
    if len(colours) > 256:
        return to_image(pixels)
    image = Image.fromarray(places.reshape(height, width).astype(np.uint8), "L").convert("P")
    image.putpalette(colours.tobytes())
    return image


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # Images with a palette become a quarter shorter; others gain nothing, for much more time.
    image.save(buffer, format="PNG", optimize=image.mode == "P")
    return buffer.getvalue()


def data_uri(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode("ascii")


def comparison_sheet(
    originals: np.ndarray,  # uint8 (N, H, W, C)
    reconstructions: np.ndarray,  # uint8 (N, H, W, C)
    columns: int = 8,
    scale: int | None = None,
) -> Image.Image:
    """One RGB image with every original above its reconstruction, row after row, on white.

    Pixels are repeated `scale` times (default: until the longer side has 96); alpha is shown over a
    checkerboard. The pair (row, column) starts at x = GUTTER + column * (W * scale + GUTTER),
    y = GUTTER + row * (2 * H * scale + SEAM + GUTTER). ValueError if shapes differ or there is no
    image.
    """
    if originals.shape != reconstructions.shape or originals.ndim != 4 or not len(originals):
        raise ValueError(
            f"cannot pair originals {originals.shape} with reconstructions {reconstructions.shape}"
        )
    count, height, width, _ = originals.shape
    scale = scale or -(-96 // max(height, width))
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    step_x = width * scale + GUTTER
    step_y = 2 * height * scale + SEAM + GUTTER
    sheet = Image.new("RGB", (GUTTER + columns * step_x, GUTTER + rows * step_y), "white")
    for index, pair in enumerate(zip(originals, reconstructions, strict=True)):
        x = GUTTER + index % columns * step_x
        y = GUTTER + index // columns * step_y
        for half, pixels in enumerate(pair):
            sheet.paste(_upscaled(pixels, scale), (x, y + half * (height * scale + SEAM)))
    return sheet


def _upscaled(pixels: np.ndarray, scale: int) -> Image.Image:
    image = to_image(pixels.repeat(scale, axis=0).repeat(scale, axis=1))
    if image.mode not in ("LA", "RGBA"):
        return image.convert("RGB")
    row, column = np.indices((image.height, image.width)) // CHECKER_SIDE
    tones = np.asarray(CHECKER_TONES, np.uint8)[(row + column) % 2]
    checker = Image.fromarray(tones).convert("RGBA")
    return Image.alpha_composite(checker, image.convert("RGBA")).convert("RGB")


def code_map(counts: np.ndarray) -> Image.Image:
    """RGBA image with one pixel per code in the order of the codebook: denser = used more, orange =
    never used.

    counts: int64 (K,). Unused cells of the last row are transparent, so the image works on light
    and dark pages.
    """
    size = len(counts)
    columns = int(2 ** np.ceil(np.log2(np.sqrt(size * 2)))) if size > 2 else size
    rows = -(-size // columns)
    strength = np.log1p(counts) / max(np.log1p(counts.max(initial=0)), 1e-9)
    cells = np.zeros((rows * columns, 4), np.uint8)
    cells[:size, :3] = np.where(counts[:, None] > 0, CODE_COLOUR, DEAD_COLOUR)
    cells[:size, 3] = np.where(counts > 0, 40 + 215 * strength, 255)
    return Image.fromarray(cells.reshape(rows, columns, 4))
