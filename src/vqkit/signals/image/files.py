"""Image files to uint8 arrays: every Pillow mode, alpha, EXIF rotation, one common size.

Decoding has two halves so that a survey of many files is quick: `survey_file` reads the header (and
the values only where they have more than 8 bits), `decode` decodes.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np
from PIL import Image, ImageCms, ImageFile

from ...data.splits import digest
from ...errors import VqkitError
from ...files import open_regular
from .modes import (
    MODE_NAMES,
    MODES,
    check_depth,
    deep_colours,
    from_deep,
    has_deep_colours,
    is_all_there,
    is_deep,
    is_wide,
    loss_in_words,
    to_channels,
)
from .ranges import Extent, ValueRange

# A path, the bytes of an image file, or decoded pixels (H, W, C) uint8.
Encoded: TypeAlias = "str | Path | bytes | np.ndarray"

# What the decoders of Pillow raise for files that are broken, of any format. Most of them check
# little themselves: what they do with the bytes fails in Python or in a library below.
BROKEN_IMAGE = (
    *(Image.DecompressionBombError, Image.DecompressionBombWarning, ImageCms.PyCMSError),
    *(OSError, EOFError, SyntaxError, struct.error, zlib.error),
    *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError),
    *(RuntimeError, MemoryError),
)
# Bytes of an image file at most, but for TIFF, of which only what is needed is read.
MAX_FILE = 1 << 29
_MAX_FRAMES = 1 << 16
# Formats whose files hold images one after another. Others hold layers, sizes of one icon, previews
# or gain maps.
_FRAME_FORMATS = {"AVIF", "DCX", "FLI", "GIF", "PNG", "TIFF", "WEBP"}
# Pixels from which on a JPEG file is told apart by what it decodes to at an eighth of its size,
# which is quicker.
_LARGE = 1 << 18
# These need programs outside Pillow, or hold a file of any format, or Pillow only knows their
# header.
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
    """What every image is brought to.

    size: (height, width), None = its own. channels: 1 to 4.
    exact: an image that would lose anything on the way is refused; for images that keep their size.
    value_range: of values of more than 8 bits; None = the one of their type, see `ranges.to_bytes`.
    """

    size: tuple[int, int] | None
    channels: int
    background: tuple[int, ...] = (255, 255, 255)
    fit: Literal["crop", "resize", "patches"] = "crop"
    interpolation: Literal["smooth", "nearest"] = "smooth"
    exact: bool = False
    value_range: ValueRange | None = None


class Frame(NamedTuple):
    """One of the images in a file that holds several."""

    file: Encoded
    number: int


Raw: TypeAlias = "Encoded | Frame"


@dataclass(frozen=True)
class Header:
    """What an image file says about itself: Pillow mode and (height, width) after EXIF rotation."""

    mode: str
    size: tuple[int, int]


@dataclass(frozen=True)
class FileSurvey:
    """What is known of an image file before it is decoded.

    headers: of the images in it that are used. num_frames: of those that it holds. extent: of their
    values, empty for those of 8 bits. is_cut: its colours have 16 bits, of which only 8 are read.
    """

    headers: list[Header]
    num_frames: int
    format: str
    extent: Extent = field(default_factory=Extent)
    is_cut: bool = False


class Decoded(NamedTuple):
    """An image that was brought to its target, and what it is told apart by.

    content: digest of the pixels at the image's own size, whatever the file's format, metadata and
    the target are.
    look: 64 bits that images have nearly in common which look the same.
    """

    pixels: np.ndarray | None  # (H, W, C) uint8
    content: bytes
    look: int


@contextlib.contextmanager
def pillow_warnings() -> Iterator[None]:
    """Decompression bombs become exceptions, other remarks of Pillow are dropped.

    Enter it once, in the main thread, around a pool of threads: the list of warning filters belongs
    to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@cache
def _formats() -> tuple[str, ...]:
    """Formats that Pillow reads by itself, in the order in which it tries them."""
    # All of them are tried: a file's name says nothing for sure.
    Image.init()
    return tuple(kind for kind in Image.ID if kind not in _UNREADABLE_FORMATS)


def image_suffixes() -> frozenset[str]:
    """Lower-case file suffixes, with the dot, of the formats that Pillow reads by itself."""
    kinds = Image.registered_extensions()
    return frozenset(suffix for suffix in kinds if kinds[suffix] in _formats())


def image_paths(files: Iterable[str | Path]) -> Iterator[Path]:
    """The files as they are named, and all images below those that are folders, sorted."""
    for name in map(Path, files):
        if not name.is_dir():
            yield name
            continue
        for path in sorted(name.rglob("*")):
            if path.suffix.lower() in image_suffixes() and not path.is_dir():
                yield path


@contextlib.contextmanager
def _opened(raw: Raw | BinaryIO) -> Iterator[ImageFile.ImageFile]:
    """The image file at the wanted frame, not decoded yet.

    OSError for paths that are no regular files.
    """
    number = 0
    file: Encoded | BinaryIO
    if isinstance(raw, Frame):
        file, number = raw
    else:
        file = raw
    with contextlib.ExitStack() as stack:
        if isinstance(file, str | Path):
            file = stack.enter_context(open_regular(file))
            _check_length(file)
        source = io.BytesIO(file) if isinstance(file, bytes) else file
        image = stack.enter_context(Image.open(source, formats=_formats()))  # type: ignore[arg-type]
        if number:
            _seek(image, number)
        yield image


def _check_length(file: BinaryIO) -> None:
    """ValueError for a file that no image fills; some decoders read all of it first."""
    is_tiff = file.read(2) in (b"II", b"MM")
    file.seek(0)
    if not is_tiff and os.fstat(file.fileno()).st_size > MAX_FILE:
        raise ValueError(f"it holds more than {MAX_FILE >> 20} MiB")


def _seek(image: ImageFile.ImageFile, index: int) -> None:
    """Go to a frame. Its size is checked here, as Pillow checks that of the first."""
    image.seek(index)
    if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"frame {index}")


def read_header(file: Encoded) -> Header:
    """Mode and size of the first image in a file, without a look at its pixels.

    Call it inside `pillow_warnings`. Any exception of Pillow: `reason` words it.
    """
    with _opened(file) as image:
        return _header(image)


def survey_file(file: Encoded | BinaryIO, every_frame: bool = False) -> FileSurvey:
    """What an image file holds.

    Pixels are decoded only to find the extent of values of more than 8 bits.

    Call it inside `pillow_warnings`. Any exception of Pillow: `reason` words it.
    """
    with _opened(file) as image:
        num_frames = _num_frames(image, every_frame)
        survey = FileSurvey(
            [],
            num_frames,
            image.format or "",
            is_cut=image.mode in MODES.values() and is_deep(image) and not has_deep_colours(image),
        )
        for index in range(num_frames if every_frame else 1):
            if index:
                _seek(image, index)
            survey.headers.append(_header(image))
            if is_wide(image.mode):
                survey.extent.add(np.asarray(image))
            elif has_deep_colours(image):
                survey.extent.add(deep_colours(image)[:, :, :3])
        return survey


def _num_frames(image: ImageFile.ImageFile, must_be_known: bool) -> int:
    """Images in a file, 1 for the formats that hold one.

    A file that breaks off later still has its first.
    """
    if image.format not in _FRAME_FORMATS:
        return 1
    try:
        count = int(getattr(image, "n_frames", 1))
    except BROKEN_IMAGE:
        if must_be_known:
            raise
        return 1
    if count > _MAX_FRAMES:
        raise ValueError(f"it holds {count} images, more than {_MAX_FRAMES}")
    return count


def _header(image: ImageFile.ImageFile) -> Header:
    # From the fifth orientation on, images lie on their side.
    if _orientation(image) >= 5:
        return Header(image.mode, (image.width, image.height))
    return Header(image.mode, (image.height, image.width))


def _orientation(image: ImageFile.ImageFile | Image.Image) -> int:
    """EXIF orientation 1-8 that is still to be applied; asked before the pixels are loaded."""
    # Pillow turns TIFF itself while loading, and already reports the turned size.
    if image.format == "TIFF":
        return 1
    # getexif would decode the whole PNG to look behind it.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(0x0112, 1))
    except BROKEN_IMAGE:
        # Broken EXIF says nothing about the pixels.
        return 1


def reason(error: BaseException) -> str:
    """One line that says why an image cannot be used."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image in any format that Pillow reads by itself"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels (a decompression bomb?)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def load_image(
    file: Raw | BinaryIO,
    channels: int = 3,
    background: tuple[int, ...] = (255, 255, 255),
    value_range: ValueRange | None = None,
    *,
    exact: bool = False,
) -> np.ndarray:  # (H, W, C)
    """One image as uint8 (height, width, channels), at its own size, turned upright, first frame of
    an animation.

    channels: 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA; without alpha, transparent pixels show
    `background` (RGB, 0-255).
    value_range: what becomes 0 and 255 of 16-bit, 32-bit and float values, as a rule that of a
    model's training set; None = 0 and 65535, of floats 0 and 1. The same value becomes the same
    level in every image.
    Errors: VqkitError naming the file if it is missing, broken, no regular file, or if its values
    lie outside the range (see `ValueRange`); with `exact` also if a value is lost in any of these
    conversions.
    """
    name = str(file) if isinstance(file, str | Path) else "image"
    target = Target(None, channels, background, exact=exact, value_range=value_range)
    try:
        with pillow_warnings():
            return decode(file, target)
    except BROKEN_IMAGE as error:
        raise VqkitError(f"cannot read {name}: {reason(error)}") from error


def decode(raw: Raw | BinaryIO, target: Target) -> np.ndarray:  # (H, W, C)
    """uint8 (height, width, channels) brought to `target`.

    Raises whatever Pillow raises; see `pillow_warnings`.
    """
    if isinstance(raw, np.ndarray):
        return convert(_from_pixels(raw), target)
    with _opened(raw) as image:
        may_shrink = target.size is not None and target.interpolation == "smooth"
        if target.size is not None and may_shrink and image.format == "JPEG":
            # Twice the size that is wanted: the last halving is left to the good filter. Square, as
            # it may be turned.
            side = 2 * max(target.size)
            image.draft(image.mode, (side, side))
        if target.exact:
            # Only a file that is not loaded yet knows its depth.
            check_depth(image, target.channels)
        return convert(_upright(image, target), target)


def _from_pixels(pixels: np.ndarray) -> Image.Image:
    if pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return Image.fromarray(pixels)


def _upright(image: ImageFile.ImageFile, target: Target) -> Image.Image:
    """The decoded image, turned as its EXIF data say."""
    turn = _TURNS.get(_orientation(image))
    loaded: Image.Image = image
    if has_deep_colours(image):
        loaded = from_deep(deep_colours(image), target.value_range)
    else:
        image.load()
    upright = loaded
    if turn is not None:
        upright = loaded.transpose(turn)
    # A colour that stands for transparency is told in there.
    upright.info = image.info
    return upright


def decode_with_content(
    raw: Encoded | Frame, target: Target, *, full: bool, looks: bool = False, pixels: bool = True
) -> Decoded:
    """One image as `decode` gives it and what it is told apart by.

    pixels: whether they are wanted; else None in their place.
    full: decode large JPEG files whole for it; needed where files of other formats have the same
    size. Files of JPEG alone that hold the same pixels hold the same coefficients, and so agree at
    an eighth of their size.
    looks: also find what near duplicates have in common; else 0.
    """
    with _opened(raw) as image:
        is_whole = full or image.format != "JPEG" or image.width * image.height <= _LARGE
        if not is_whole:
            image.draft(image.mode, (1, 1))
        upright = _upright(image, target)
        decoded = _identified(upright, target, looks)
        if pixels and is_whole:
            return decoded._replace(pixels=convert(upright, target))
    if pixels:
        return decoded._replace(pixels=decode(raw, target))
    return decoded


def _identified(image: Image.Image, target: Target, looks: bool) -> Decoded:
    rgba = to_channels(image, 4, target.background, target.value_range)
    content = digest(repr(rgba.size).encode(), rgba.tobytes())
    return Decoded(None, content, _look(rgba) if looks else 0)


def look_of(pixels: np.ndarray) -> int:  # (H, W, C) uint8
    """What near duplicates of an image have in common; see `Decoded`."""
    return _look(to_channels(_from_pixels(pixels), 4, (0, 0, 0), None))


def _look(image: Image.Image) -> int:
    """Of 8 x 8 places whether it gets brighter to the right: a difference hash (Krawetz 2013),
    stable under scaling and compression.
    """
    grey = image.convert("RGB").convert("L")
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX)).astype(int)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def convert(image: Image.Image, target: Target) -> np.ndarray:  # (H, W, C)
    """An image as uint8 (height, width, channels), brought to `target`.

    ValueError for one that may not be.
    """
    if target.exact:
        check_depth(image, target.channels)
    converted = to_channels(image, target.channels, target.background, target.value_range)
    if target.exact and not is_all_there(image, converted):
        name = MODE_NAMES.get(image.mode, f"of mode {image.mode}")
        if image.has_transparency_data and "A" not in image.mode:
            name += " with transparency"
        raise ValueError(loss_in_words(name, target.channels))
    if target.size is not None:
        converted = fit_image(converted, target.size, target.fit, target.interpolation)
    pixels = np.array(converted, dtype=np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return pixels


def fit_image(
    image: Image.Image, size: tuple[int, int], fit: str = "crop", interpolation: str = "smooth"
) -> Image.Image:
    """The image at `size` (height, width): 'crop' scales the short side and cuts the middle,
    'resize' squeezes, 'patches' cuts the middle and only scales what is too small.

    'smooth' scaling is antialiased (Lanczos) and weights colours by alpha where the image has any;
    'nearest' takes pixels as they are.
    """
    height, width = size
    resample = Image.Resampling.LANCZOS
    if interpolation == "nearest":
        resample = Image.Resampling.NEAREST
    if (image.height, image.width) == size:
        return image
    if fit == "resize":
        return image.resize((width, height), resample)
    scale = min(image.width / width, image.height / height)
    if fit == "patches":
        scale = min(scale, 1.0)
    left = (image.width - width * scale) / 2
    top = (image.height - height * scale) / 2
    if scale == 1:
        # There is nothing to scale: cut whole pixels, exactly.
        return image.crop((int(left), int(top), int(left) + width, int(top) + height))
    box = (left, top, left + width * scale, top + height * scale)
    return image.resize((width, height), resample, box=box)


def reduced(pixels: np.ndarray, factor: int) -> np.ndarray:  # (H // factor, W // factor, C)
    """An image (H, W, C) uint8 scaled down by a whole number: each pixel is the mean of a square,
    whose colours are weighed by alpha where there is any. What is left at the edges is dropped.
    """
    if factor == 1:
        return pixels
    height = pixels.shape[0] // factor
    width = pixels.shape[1] // factor
    box = (0, 0, width * factor, height * factor)
    small = _from_pixels(pixels).reduce(factor, box)
    return np.asarray(small).reshape(height, width, pixels.shape[2])


def patches(pixels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """Non-overlapping patches of an image: (H, W, C) -> (N, h, w, C), in reading order, and their
    places 'row,column' in pixels. What is left at the edges is dropped.
    """
    height, width = size
    rows = pixels.shape[0] // height
    columns = pixels.shape[1] // width
    channels = pixels.shape[2]
    cut = pixels[: rows * height, : columns * width].reshape(rows, height, columns, width, channels)
    ordered = np.ascontiguousarray(cut.transpose(0, 2, 1, 3, 4))
    places = []
    for row in range(rows):
        places += [f"{row * height},{column * width}" for column in range(columns)]
    return ordered.reshape(rows * columns, height, width, channels), places
