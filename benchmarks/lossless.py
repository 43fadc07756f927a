"""Lossless files of test images, one file an image, beside the best that PNG, WebP and JPEG XL make
of them.

    python benchmarks/lossless.py [--json FILE]

Trains a tokenizer for one step, as lossless files rest on none of its weights, and fits what is
compressed with to the training images, at three seeds for Fashion-MNIST. Every tenth file is
decoded and compared. Bytes are those on disk.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench.claims import Claim, machine, options, report
from bench.image_sets import arrays, shorten_fashion_mnist
from PIL import Image

PARSER = options(__doc__)

SEEDS = 3
# Of the files, every so many-th is decoded.
EVERY = 10
# Test images, and steps of the coder.
SETS = {"fashion-mnist": (2_000, 600), "emoji": (149, 600)}


def pillow(kind: str, **how: object) -> Callable[[np.ndarray], bytes]:
    """An encoder of Pillow."""

    def encode(image: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, **how)
        return buffer.getvalue()

    return encode


def peers() -> dict[str, Callable[[np.ndarray], bytes]]:
    """Encoders by name, each at its most thorough; those of imagecodecs where it is installed."""
    found = {
        "png": pillow("PNG", optimize=True),
        "webp": pillow("WEBP", lossless=True, quality=100, method=6),
        "jpeg2000": pillow("JPEG2000"),
    }
    try:
        import imagecodecs
    except ImportError:
        return found
    return found | {
        "jpeg_xl_effort_9": lambda image: imagecodecs.jpegxl_encode(image, lossless=True, effort=9),
        "jpeg_xl_effort_10": lambda image: imagecodecs.jpegxl_encode(
            image, lossless=True, effort=10
        ),
        "jpeg_ls": imagecodecs.jpegls_encode,
    }


def bits(sizes: list[int], images: np.ndarray) -> float:
    """Bits a pixel and channel of files of those sizes in bytes."""
    return 8 * sum(sizes) / images.size


def measured(name: str, num: int, steps: int, seed: int) -> tuple[float, np.ndarray, dict]:
    """Bits a value of our files, the images, and seconds that fitting, writing and reading took."""
    import vqkit
    from vqkit.apps.evaluate import open_for
    from vqkit.artifact.model import Model
    from vqkit.artifact.record import Coders
    from vqkit.training.loop import fit
    from vqkit.training.tasks.value_coder import ValueCoderTask

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        overrides = [f"seed={seed}", "train.steps=1", "coder.steps=0"]
        model = vqkit.train(name, work / "model", recipe=name, overrides=overrides)
        data = open_for(model, name, "train")
        began = time.perf_counter()
        finished = fit(ValueCoderTask(model.tokenizer, data, steps), work / "lossless")
        assert finished is not None
        model = Model(replace(model.artifact, coders=Coders(values=finished.model.integers())))
        fitted = time.perf_counter() - began
        images = arrays(data, data.splits["test"][:num])
        sizes = []
        began = time.perf_counter()
        for number, image in enumerate(images):
            (work / f"{number}.vq").write_bytes(model.compress(image, lossless=True))
            sizes.append(os.path.getsize(work / f"{number}.vq"))
        written = time.perf_counter() - began
        began = time.perf_counter()
        checked = range(0, len(images), EVERY)
        wrong = sum(
            not np.array_equal(model.decompress(work / f"{n}.vq"), images[n]) for n in checked
        )
        read = time.perf_counter() - began
    assert not wrong, f"{wrong} images are not what they were"
    seconds = {
        "fit": fitted,
        "write_ms": 1e3 * written / len(images),
        "read_ms": 1e3 * read / len(checked),
    }
    return bits(sizes, images), images, seconds


def main() -> None:
    chosen = PARSER.parse_args()
    if chosen.quick:
        shorten_fashion_mnist()
    claims = []
    for name, (num, steps) in SETS.items():
        num, steps = (100, 60) if chosen.quick else (num, steps)
        seeds = range(
            chosen.seed, chosen.seed + (1 if chosen.quick or name != "fashion-mnist" else SEEDS)
        )
        ours = []
        for seed in seeds:
            value, images, seconds = measured(name, num, steps, seed)
            ours.append(value)
            print(f"{name}, seed {seed}: {value:.4f} bits, {seconds}", flush=True)
        shown = images[..., 0] if images.shape[3] == 1 else images
        theirs = {
            peer: bits([len(encode(image)) for image in shown], images)
            for peer, encode in peers().items()
        }
        best = min(theirs, key=theirs.__getitem__)
        settings = {
            "images": len(images),
            "steps": steps,
            "seeds": list(seeds),
            "ours": ours,
            "peers": theirs,
            **seconds,
        }
        short = name.replace("fashion-mnist", "fmnist")
        goal = ">= 30" if short == "fmnist" else "-"
        claims += [
            Claim(f"lossless_bits_{short}", float(np.mean(ours)), "bits/value", "-", None, settings)
        ]
        claims += [
            Claim(f"lossless_bits_{short}_{peer}", value, "bits/value", "-", peer, {})
            for peer, value in theirs.items()
        ]
        saving = 100 * (1 - float(np.mean(ours)) / theirs[best])
        claims += [Claim(f"lossless_saving_{short}", saving, "%", goal, best, settings | machine())]
    report(claims, chosen)


if __name__ == "__main__":
    main()
