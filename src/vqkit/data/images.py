"""Picture files to uint8 arrays: every Pillow mode, alpha over a background, EXIF rotation, one common size.

Decoding has two halves so that a survey of many files is quick: `probe` reads the header alone, `load_picture` decodes.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageCms, ImageFile

from ..errors import VqkitError

Raw: TypeAlias = "str | Path | bytes | np.ndarray"
"""a path, the bytes of a picture file, or decoded pixels (H, W, C) uint8"""

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_NAMES = {
    "1": "1-bit",
    "P": "a picture with a palette",
    "L": "8-bit grey",
    "LA": "8-bit grey with alpha",
    "RGB": "8-bit RGB",
    "RGBA": "8-bit RGBA",
}
_COMPARABLE = {"1", "P", "L", "LA", "RGB", "RGBA"}
"""modes that RGBA holds every value of"""
_DEPTH_UNKNOWN = {"AVIF", "JPEG2000"}
"""formats that Pillow cuts down to 8 bits without saying so"""
_GREY_MODES = {"1", "L", "LA", "La", "I", "F"}
# These need programs outside Pillow, or hold a file of any format, or Pillow only knows their header.
_UNREADABLE_FORMATS = {"EPS", "WMF", "IPTC", "BUFR", "GRIB", "HDF5", "MPEG"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Target:
    """What every picture is brought to: size (height, width) or None = its own, channels 1-4, and how.

    exact: a picture that would lose anything on the way is refused; for pictures that keep their size.
    """

    size: tuple[int, int] | None
    channels: int
    background: tuple[int, ...] = (255, 255, 255)
    fit: Literal["crop", "resize", "patches"] = "crop"
    exact: bool = False


@dataclass(frozen=True)
class Header:
    """What a picture file says about itself: Pillow mode and (height, width) after EXIF rotation."""

    mode: str
    size: tuple[int, int]


@contextlib.contextmanager
def pillow_warnings() -> Iterator[None]:
    """Decompression bombs become exceptions, other remarks of Pillow are dropped.

    Enter it once, in the main thread, around a pool of threads: the list of warning filters belongs to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@cache
def _formats() -> tuple[str, ...]:
    """Formats that Pillow reads by itself, in the order in which it tries them: a file's name says nothing for sure."""
    Image.init()
    return tuple(kind for kind in Image.ID if kind not in _UNREADABLE_FORMATS)


def picture_suffixes() -> frozenset[str]:
    """Lower-case file suffixes, with the dot, of the formats that Pillow reads by itself."""
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in _formats())


def picture_paths(files: Iterable[str | Path]) -> Iterator[Path]:
    """The files as they are named, and all pictures below those that are folders, sorted."""
    for name in map(Path, files):
        if name.is_dir():
            yield from (path for path in sorted(name.rglob("*")) if path.suffix.lower() in picture_suffixes())
        else:
            yield name


def probe(file: BinaryIO) -> Header:
    """Header of an open picture file; no pixel is decoded. Any exception of Pillow: `reason` words it."""
    with Image.open(file, formats=_formats()) as image:
        height, width = image.height, image.width
        if _orientation(image) >= 5:
            height, width = width, height
        return Header(image.mode, (height, width))


def reason(error: BaseException) -> str:
    """One line that says why a picture cannot be used."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a picture in any format that Pillow reads by itself"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels (a decompression bomb?)"
    return " ".join(str(error).split()) or type(error).__name__


def load_picture(
    file: Raw | BinaryIO, channels: int = 3, background: tuple[int, ...] = (255, 255, 255), *, exact: bool = False
) -> np.ndarray:  # (H, W, C)
    """One picture as uint8 (height, width, channels), at its own size, turned upright, first frame of an animation.

    channels: 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA; without alpha, transparent pixels show `background` (RGB, 0-255).
    16-bit values are divided by 256; floats are read as [0, 1], or as [0, 255] when the picture goes above 1.
    Errors: VqkitError naming the file if it is missing, broken, or its values have no known range; with `exact` also
    if a value is lost in any of these conversions.
    """
    name = str(file) if isinstance(file, str | Path) else "picture"
    try:
        with pillow_warnings():
            return decode(file, Target(None, channels, background, exact=exact))
    except Exception as error:  # Pillow raises a dozen types on broken files, struct.error and KeyError among them
        why = "there is no such file" if isinstance(error, FileNotFoundError) else reason(error)
        raise VqkitError(f"cannot read {name}: {why}") from error


def decode(raw: Raw | BinaryIO, target: Target) -> np.ndarray:  # (H, W, C)
    """uint8 (height, width, channels) brought to `target`. Raises whatever Pillow raises; see `pillow_warnings`."""
    if isinstance(raw, np.ndarray):
        return convert(Image.fromarray(raw[:, :, 0] if raw.shape[2] == 1 else raw), target)
    with Image.open(io.BytesIO(raw) if isinstance(raw, bytes) else raw, formats=_formats()) as image:
        turn = _TURNS.get(_orientation(image))
        if target.size is not None and image.format == "JPEG":
            # Twice the size that is wanted: the last halving is left to the good filter. Square, as it may be turned.
            side = 2 * max(target.size)
            image.draft(image.mode, (side, side))
        if target.exact:
            _check_depth(image, target.channels)  # only a file that is not loaded yet knows it
        image.load()
        upright = image.transpose(turn) if turn is not None else image
        upright.info = image.info
        return convert(upright, target)


def convert(image: Image.Image, target: Target) -> np.ndarray:  # (H, W, C)
    """A picture as uint8 (height, width, channels), brought to `target`. ValueError for one that may not be."""
    if target.exact:
        _check_depth(image, target.channels)
    converted = _to_channels(image, target.channels, target.background)
    if target.exact and not _is_all_there(image, converted):
        more = " with transparency" if image.has_transparency_data and "A" not in image.mode else ""
        raise ValueError(_loss(_NAMES.get(image.mode, f"of mode {image.mode}") + more, target.channels))
    if target.size is not None:
        converted = fit_picture(converted, target.size, target.fit)
    pixels = np.array(converted, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def fit_picture(image: Image.Image, size: tuple[int, int], fit: str = "crop") -> Image.Image:
    """The picture at `size` (height, width): 'crop' scales the short side and cuts the middle, 'resize' squeezes,
    'patches' cuts the middle and only scales what is too small.

    Scaling is antialiased (Lanczos) and weights colours by alpha where the picture has any.
    """
    height, width = size
    if (image.height, image.width) == size:
        return image
    box = (0.0, 0.0, float(image.width), float(image.height))
    if fit != "resize":
        scale = min(image.width / width, image.height / height)
        scale = min(scale, 1.0) if fit == "patches" else scale
        left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        if scale == 1:  # nothing to scale: cut whole pixels, exactly
            return image.crop((int(left), int(top), int(left) + width, int(top) + height))
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def patches(pixels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:  # (H, W, C) -> (N, h, w, C)
    """Non-overlapping patches in reading order and their places 'row,column' in pixels; the rest is dropped."""
    height, width = size
    rows, columns, channels = pixels.shape[0] // height, pixels.shape[1] // width, pixels.shape[2]
    cut = pixels[: rows * height, : columns * width].reshape(rows, height, columns, width, channels)
    places = [f"{row * height},{column * width}" for row in range(rows) for column in range(columns)]
    return np.ascontiguousarray(cut.transpose(0, 2, 1, 3, 4)).reshape(rows * columns, height, width, channels), places


# --------------------------------------------------------------------------------------------------------- modes


def is_grey(mode: str) -> bool:
    """Whether pictures of this Pillow mode have no colour, alpha aside."""
    return mode in _GREY_MODES or mode.startswith("I;16")


def _orientation(image: ImageFile.ImageFile | Image.Image) -> int:
    """EXIF orientation 1-8 that is still to be applied; asked before the pixels are loaded."""
    if image.format == "TIFF":  # Pillow turns TIFF itself while loading, and already reports the turned size
        return 1
    if image.format == "PNG" and "exif" not in image.info:  # getexif would decode the whole PNG to look behind it
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # broken EXIF says nothing about the pixels
        return 1


def _to_channels(image: Image.Image, channels: int, background: tuple[int, ...]) -> Image.Image:
    """One of the modes L, LA, RGB, RGBA."""
    image = _to_eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA") if image.mode not in ("LA", "RGBA") else image
        if channels in (1, 3):
            under = Image.new("RGBA", image.size, (*background, 255))
            image = Image.alpha_composite(under, image.convert("RGBA")).convert("RGB")
    elif image.mode == "LAB":
        to_rgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        image = ImageCms.applyTransform(image, to_rgb) or image
    if image.mode == MODES[channels]:
        return image
    if image.mode not in (
        "L",
        "LA",
        "RGB",
        "RGBA",
    ):  # palette, CMYK, YCbCr, HSV and 1-bit reach the others through these
        image = image.convert("L" if is_grey(image.mode) else "RGB")
    return image.convert(MODES[channels])


def _is_all_there(image: Image.Image, converted: Image.Image) -> bool:
    """Whether a picture looks the same, to the level, after it was converted: an opaque one needs no alpha, say."""
    if image.mode not in _COMPARABLE:
        return False
    before, after = (np.asarray(one.convert("RGBA")) for one in (image, converted))  # transparent colours, too
    return np.array_equal(before, after)


def _check_depth(image: Image.Image, channels: int) -> None:
    """ValueError for more than 8 bits a value, of which Pillow gives the upper ones; loaded images do not tell."""
    if image.format in _DEPTH_UNKNOWN:
        raise ValueError(_loss(f"of format {image.format}, whose depth is not known here", channels))
    for kind, _, _, how in getattr(image, "tile", ()):
        words = how if isinstance(how, tuple) else (how,)
        deep = any(isinstance(word, str) and word[-4:-1] == ";16" for word in words)  # "RGB;16B", but not "BGR;16"
        if deep or kind == "SGI16" or (kind.startswith("ppm") and words[-1] > 255):
            raise ValueError(_loss(f"16-bit {image.mode}" if image.mode in MODES.values() else "16-bit", channels))


def _loss(what: str, channels: int) -> str:
    return (
        f"it is {what}, and a lossless file of this model keeps {_NAMES[MODES[channels]]} only; "
        "convert it first, or compress it without lossless"
    )


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Modes of 16 and 32 bits as L; others unchanged. ValueError if the values have no known range."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode == "I":  # Pillow's mode for 16-bit PGM and others; nothing tells the range of real 32-bit files
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"32-bit values from {wide.min()} to {wide.max()}; convert it to 8 or 16 bits first")
        return Image.fromarray((wide >> 8).astype(np.uint8))
    if image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise ValueError("holds NaN or infinite values")
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 255:
            raise ValueError(f"float values from {low:g} to {high:g}; only [0, 1] and [0, 255] have a meaning")
        return Image.fromarray(np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8))
    return image
