"""Claim split_leaks: pairs of files with identical pixels that lie in two splits of a set.

    python benchmarks/splits.py [--quick] [--seed 0] [--json FILE]

Writes images, crops of the built-in emoji scaled up, twice each: under another name, with other
metadata, in another format or compression, with another orientation tag, as grey stored in three
channels or in 16 bits, with an opaque alpha channel. 40 pairs of each kind (--quick: 10), half of
them below, half above the size from which on JPEG files are told apart at an eighth of their size.
The folder is opened in memory, streamed and in patches, with a quarter of the images for validation
and a quarter for test: two images that nothing keeps together lie apart in 62 % of cases.
split_leaks counts over all of these; split_leaks_arrays over the same pixels twice in one .npy.
split_open_share: seconds that opening the streamed folder takes, over those of decoding all of it
once for training.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench.claims import Claim, machine, options, report
from bench.image_sets import arrays
from PIL import Image, PngImagePlugin

from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import ImageData, open_images

PARSER = options(__doc__)

SIDES = 96, 640
SHARES = {"validation": 0.25, "test": 0.25}


def png(image: Image.Image, **how: object) -> bytes:
    return encoded(image, "png", compress_level=1, **how)


def encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def with_text(image: Image.Image) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "another")
    return png(image, pnginfo=text)


def with_segment(jpeg: bytes) -> bytes:
    """The same JPEG with a comment, so that its compressed pixels stay."""
    comment = b"another"
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    return png(image.transpose(Image.Transpose.ROTATE_180), exif=exif)


def wide(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def decoded(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image


def jpeg(image: Image.Image) -> bytes:
    return encoded(image, "jpeg", quality=90)


# Kind -> the two files of a pair and their suffixes.
PAIRS: dict[str, Callable[[Image.Image], tuple[tuple[bytes, str], tuple[bytes, str]]]] = {
    "name": lambda image: ((png(image), "png"), (png(image), "png")),
    "suffix": lambda image: ((png(image), "png"), (png(image), "jpg")),
    "png text": lambda image: ((png(image), "png"), (with_text(image), "png")),
    "png level": lambda image: (
        (png(image), "png"),
        (encoded(image, "png", compress_level=9), "png"),
    ),
    "jpeg comment": lambda image: ((jpeg(image), "jpg"), (with_segment(jpeg(image)), "jpg")),
    "jpeg as png": lambda image: ((jpeg(image), "jpg"), (png(decoded(jpeg(image))), "png")),
    "jpeg grey": lambda image: (
        (jpeg(image.convert("L")), "jpg"),
        (png(decoded(jpeg(image.convert("L"))).convert("RGB")), "png"),
    ),
    "bmp": lambda image: ((png(image), "png"), (encoded(image, "bmp"), "bmp")),
    "tiff": lambda image: (
        (png(image), "png"),
        (encoded(image, "tiff", compression="tiff_lzw"), "tif"),
    ),
    "webp": lambda image: (
        (png(image), "png"),
        (encoded(image, "webp", lossless=True, method=0), "webp"),
    ),
    "orientation": lambda image: ((png(image), "png"), (turned(image), "png")),
    "palette": lambda image: (
        (png(image.quantize(200).convert("RGB")), "png"),
        (png(image.quantize(200)), "png"),
    ),
    "grey in colour": lambda image: (
        (png(image.convert("L")), "png"),
        (png(image.convert("L").convert("RGB")), "png"),
    ),
    "opaque alpha": lambda image: ((png(image), "png"), (png(image.convert("RGBA")), "png")),
    "16 bits": lambda image: ((png(image.convert("L")), "png"), (png(wide(image)), "png")),
}


def drawn(emoji: ImageData, side: int, random: np.random.Generator) -> Image.Image:
    """A crop of an emoji, with noise in its levels, so that no two are equal; white and black
    occur.
    """
    pixels = arrays(emoji, [int(random.integers(len(emoji)))])[0]
    left, top = random.uniform(0, 8, 2)
    box = (left, top, left + 24, top + 24)
    scaled = np.asarray(
        Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC, box=box)
    )
    noisy = np.clip(scaled.astype(int) + random.integers(-3, 4, scaled.shape), 0, 255)
    noisy[0, 0] = 0
    noisy[0, 1] = 255
    return Image.fromarray(noisy.astype(np.uint8))


def write_pairs(
    folder: Path, count: int, emoji: ImageData, random: np.random.Generator
) -> dict[str, str]:
    """Files of all pairs in an order of their own; name of the first of each -> name of the
    second.
    """
    pairs = {}
    for kind, make in PAIRS.items():
        for number in range(count):
            (first, suffix), (second, other) = make(drawn(emoji, SIDES[number % 2], random))
            names = [f"{random.integers(1 << 60):015x}.{each}" for each in (suffix, other)]
            for name, content in zip(names, (first, second), strict=True):
                (folder / name).write_bytes(content)
            pairs[f"{kind}/{names[0]}"] = names[1]
    return pairs


def leaks(data: ImageData, pairs: dict[str, str]) -> dict[str, int]:
    """Pairs in two splits, by kind. In patches a file is where all its patches are."""
    home: dict[str, set[str]] = {}
    for split, indices in data.splits.items():
        for index in indices.tolist():
            home.setdefault(data.names[index].split(":")[0], set()).add(split)
    apart: dict[str, int] = {}
    for key, second in pairs.items():
        kind, first = key.split("/")
        assert first in home and second in home, (kind, data.bad)
        if home[first] != home[second] or len(home[first]) > 1:
            apart[kind] = apart.get(kind, 0) + 1
    return apart


def array_leaks(folder: Path, emoji: ImageData, seed: int) -> int:
    """Pairs of equal images in an array that lie in two splits."""
    images = np.unique(arrays(emoji, range(400)), axis=0)
    np.save(folder / "twice.npy", np.concatenate([images, images[::-1]]))
    data = open_images(folder / "twice.npy", DataConfig(**SHARES), seed)
    home = {index: split for split, indices in data.splits.items() for index in indices.tolist()}
    return sum(home[index] != home[len(home) - 1 - index] for index in range(len(images)))


def main() -> None:
    arguments = PARSER.parse_args()
    random = np.random.default_rng(arguments.seed)
    emoji = open_images("emoji", DataConfig(), arguments.seed)
    ways = {
        "in memory": DataConfig(image_size=(32, 32), channels=3, **SHARES),
        "streamed": DataConfig(image_size=(64, 64), channels=3, max_memory_mb=1, **SHARES),
        "patches": DataConfig(image_size=(48, 48), channels=3, fit="patches", **SHARES),
    }
    found: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pairs"
        folder.mkdir()
        pairs = write_pairs(folder, 10 if arguments.quick else 40, emoji, random)
        for way, config in ways.items():
            start = time.perf_counter()
            data = open_images(folder, config, arguments.seed)
            opened = time.perf_counter() - start
            found[way] = leaks(data, pairs)
            if way == "streamed":
                assert not data.in_memory
                start = time.perf_counter()
                for index in range(0, len(data), 64):
                    data.read(range(index, min(len(data), index + 64)))
                share = opened / (time.perf_counter() - start)
        in_arrays = array_leaks(Path(name), emoji, arguments.seed)
    settings = {"pairs": len(pairs), "leaks": found, "seed": arguments.seed, **machine()}
    claims = [
        Claim(
            "split_leaks",
            sum(sum(kinds.values()) for kinds in found.values()),
            "pairs",
            "0",
            None,
            settings,
        ),
        Claim("split_leaks_arrays", in_arrays, "pairs", "0", None, settings),
        Claim("split_open_share", share, "of a pass", "<= 2", None, settings),
    ]
    report(claims, arguments)


if __name__ == "__main__":
    main()
