"""Modes of Pillow's images: which hold what, and the way from each to L, LA, RGB and RGBA."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms, ImageFile

from .ranges import ValueRange, to_bytes

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
MODE_NAMES = {
    "1": "1-bit",
    "P": "an image with a palette",
    "L": "8-bit grey",
    "LA": "8-bit grey with alpha",
    "RGB": "8-bit RGB",
    "RGBA": "8-bit RGBA",
}
# Modes that RGBA holds every value of.
_COMPARABLE = {"1", "P", "L", "LA", "RGB", "RGBA"}
# Formats that Pillow cuts down to 8 bits without saying so.
_DEPTH_UNKNOWN = {"AVIF", "JPEG2000"}
# How Pillow unpacks colours of 16 bits in PNG files, and how it would with their bytes in the other
# order.
_LOWER_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
_GREY_MODES = {"1", "L", "LA", "La", "I", "F"}


def is_wide(mode: str) -> bool:
    """Whether pixels of this Pillow mode have more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;16")


def is_grey(mode: str) -> bool:
    """Whether images of this Pillow mode have no colour, alpha aside."""
    return mode in _GREY_MODES or mode.startswith("I;16")


def has_deep_colours(image: ImageFile.ImageFile) -> bool:
    """Whether a file that is not loaded yet is a PNG of RGB or RGBA values of 16 bits, all of which
    can be read: it has one frame, and no colour that stands for transparency.
    """
    return (
        image.format == "PNG"
        and "transparency" not in image.info
        and not getattr(image, "is_animated", False)
        and bool(image.tile)
        and all(tile.args in _LOWER_BYTES for tile in image.tile)
    )


def deep_colours(image: ImageFile.ImageFile) -> np.ndarray:  # (H, W, 3 or 4) uint16
    """Values of an image with deep colours.

    Pillow gives the upper byte of each; it gives the lower one where it takes the bytes to be in
    the other order.
    """
    source = image.fp
    upper = np.asarray(image).astype(np.uint16)
    assert source is not None
    source.seek(0)
    with Image.open(source, formats=("PNG",)) as again:
        again.tile = [tile._replace(args=_LOWER_BYTES[str(tile.args)]) for tile in again.tile]
        return upper << 8 | np.asarray(again)


def from_deep(values: np.ndarray, value_range: ValueRange | None) -> Image.Image:
    """Values of 16 bits (H, W, 3 or 4) as 8-bit RGB or RGBA; alpha always goes from 0 to 65535."""
    levels = to_bytes(values[:, :, :3], value_range)
    if values.shape[2] == 4:
        levels = np.concatenate([levels, to_bytes(values[:, :, 3:], None)], 2)
    return Image.fromarray(levels)


def to_channels(
    image: Image.Image, channels: int, background: tuple[int, ...], value_range: ValueRange | None
) -> Image.Image:
    """One of the modes L, LA, RGB, RGBA."""
    if is_wide(image.mode):
        image = Image.fromarray(to_bytes(np.asarray(image), value_range))
    if image.has_transparency_data:
        if image.mode not in ("LA", "RGBA"):
            image = image.convert("RGBA")
        if channels in (1, 3):
            under = Image.new("RGBA", image.size, (*background, 255))
            image = Image.alpha_composite(under, image.convert("RGBA")).convert("RGB")
    elif image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        srgb = ImageCms.createProfile("sRGB")
        to_rgb = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        image = ImageCms.applyTransform(image, to_rgb) or image
    if image.mode == MODES[channels]:
        return image
    # Palette, CMYK, YCbCr, HSV and 1-bit reach the others through grey or RGB.
    if image.mode not in MODES.values():
        image = image.convert("L" if is_grey(image.mode) else "RGB")
    return image.convert(MODES[channels])


def is_all_there(image: Image.Image, converted: Image.Image) -> bool:
    """Whether an image looks the same, to the level, after it was converted: an opaque one needs no
    alpha, say.
    """
    if image.mode not in _COMPARABLE:
        return False
    # The colours of transparent pixels count, too.
    before = np.asarray(image.convert("RGBA"))
    after = np.asarray(converted.convert("RGBA"))
    return np.array_equal(before, after)


def check_depth(image: Image.Image, channels: int) -> None:
    """ValueError for more than 8 bits a value, of which Pillow gives the upper ones.

    Loaded images do not tell.
    """
    if image.format in _DEPTH_UNKNOWN:
        what = f"of format {image.format}, whose depth is not known here"
        raise ValueError(loss_in_words(what, channels))
    if is_deep(image):
        what = f"16-bit {image.mode}" if image.mode in MODES.values() else "16-bit"
        raise ValueError(loss_in_words(what, channels))


def is_deep(image: Image.Image) -> bool:
    """Whether the values in an image file that is not loaded yet have 16 bits."""
    for kind, _, _, how in getattr(image, "tile", ()):
        words = how if isinstance(how, tuple) else (how,)
        # "RGB;16B", but not "BGR;16"
        names_depth = any(isinstance(word, str) and word[-4:-1] == ";16" for word in words)
        if names_depth or kind == "SGI16":
            return True
        if kind.startswith("ppm") and words[-1] > 255:
            return True
    return False


def loss_in_words(what: str, channels: int) -> str:
    return (
        f"it is {what}, and a lossless file of this model keeps {MODE_NAMES[MODES[channels]]} "
        "only; convert it first, or compress it without lossless"
    )
