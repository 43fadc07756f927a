"""Image codecs of Pillow and imagecodecs, and how curves of bytes over PSNR are compared."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image


def codecs(chroma: str = "4:4:4") -> dict[str, tuple[Callable[[np.ndarray, int], bytes], range]]:
    """name -> (image, quality) -> bytes, and the qualities of its curve.

    chroma: resolution of AVIF's colours: drawings lose more by coarse ones than they cost.
    """

    def pillow(kind: str, **how: object) -> Callable[[np.ndarray, int], bytes]:
        def encode(image: np.ndarray, quality: int) -> bytes:
            buffer = io.BytesIO()
            named = (
                {"quality_mode": "dB", "quality_layers": [quality]}
                if kind == "JPEG2000"
                else {"quality": quality}
            )
            if kind == "AVIF" and image.ndim == 3:
                named["subsampling"] = chroma
            Image.fromarray(image).save(buffer, kind, **named, **how)
            return buffer.getvalue()

        return encode

    found = {
        "jpeg": (pillow("JPEG", optimize=True), range(1, 70, 6)),
        "webp": (pillow("WEBP", method=6), range(0, 90, 8)),
        "avif": (pillow("AVIF", speed=2), range(5, 80, 6)),
        "jpeg2000": (pillow("JPEG2000", irreversible=True), range(20, 34, 2)),
    }
    try:
        import imagecodecs
    except ImportError:
        return found

    def jpeg_xl(image: np.ndarray, quality: int) -> bytes:
        return imagecodecs.jpegxl_encode(image, distance=quality / 10, effort=9)

    return found | {"jpeg_xl": (jpeg_xl, range(10, 240, 23))}


def decoded(data: bytes, grey: bool) -> np.ndarray:
    """A file of Pillow or imagecodecs as uint8 values, grey (H, W) where `grey`, else (H, W, 3)."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("L" if grey else "RGB"))
    except OSError:
        import imagecodecs

        return np.asarray(imagecodecs.jpegxl_decode(data))


def errors(shown: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean squared error of each image, uint8 (N, H, W[, 3]) both."""
    return np.square(shown.astype(np.float64) - images).reshape(len(images), -1).mean(1)


def psnr(mse: np.ndarray) -> np.ndarray:
    return 10 * np.log10(255**2 / np.maximum(mse, 1e-9))


def bd_rate(
    ours: tuple[np.ndarray, np.ndarray],
    theirs: tuple[np.ndarray, np.ndarray],
    where: tuple[float, float],
) -> float:
    """Mean difference of log bytes between two PSNR where both curves are, in %: (bytes, PSNR)
    each; NaN for nowhere.

    Bjontegaard 2001 (VCEG-M33) with Akima's interpolation of log bytes over PSNR.
    """
    from scipy.interpolate import Akima1DInterpolator

    curves = []
    for size, decibels in (ours, theirs):
        order = np.argsort(decibels)
        unique = np.append(True, np.diff(decibels[order]) > 1e-3)
        curves.append((decibels[order][unique], np.log(size[order][unique])))
    low = max(where[0], *(x[0] for x, _ in curves))
    high = min(where[1], *(x[-1] for x, _ in curves))
    if low >= high or min(len(x) for x, _ in curves) < 3:
        return np.nan
    grid = np.linspace(low, high, 200)
    one, other = (Akima1DInterpolator(x, y)(grid) for x, y in curves)
    return float(100 * (np.exp(np.mean(one - other)) - 1))


def mixtures(size: np.ndarray, decibels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve through points with what mixing images between two of them gives: bytes linear in
    PSNR, not less.
    """
    order = np.argsort(decibels)
    levels = np.linspace(decibels.min(), decibels.max(), 300)
    return np.interp(levels, decibels[order], size[order]), levels


def with_rate(model, num_stages: int, weight: float = 0.0, gain: int = 128):
    """The model with one more point between few bits and good images, named `here`."""
    from vqkit.artifact.model import Model
    from vqkit.artifact.operating_points import Rate

    coders = model.artifact.coders
    rates = {**coders.rates, "here": Rate(num_stages, weight, 0.0, 0.0, gain)}
    return Model(replace(model.artifact, coders=replace(coders, rates=rates)), model.device)
