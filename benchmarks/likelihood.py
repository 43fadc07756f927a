"""Claims bits_per_dim_*: bits that the 10,000 test images of Fashion-MNIST need, exact to the
pixel, per pixel.

    python benchmarks/likelihood.py [--quick] [--seed 0] [--json FILE]

A VAE (recipe vae at 28x28, the negative evidence lower bound with one draw of z) and 7x7 codes of 9
bits (recipe likelihood: codes with uniform probabilities, and with those of a learned prior), each
trained for MINUTES, three seeds from --seed on (--quick: one seed, some seconds each, classical
coders on 100 images). Ours are upper bounds of -log2 p(image), for which no file is
written: with codes an arithmetic coder comes within a few bytes of it, a VAE gets there only with
bits-back coding; the weights, which both sides must have, are not counted. Theirs are bytes that
Pillow writes, headers included: one file an image, and sheets of 100 and of all images, where
headers no longer matter and a coder learns from many images at once. Settings of models and coders
were chosen on a validation split.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from bench.claims import Claim, machine, options, report
from bench.image_sets import arrays, open_set, shorten_fashion_mnist

PARSER = options(__doc__)

SOURCE = "fashion-mnist"
MINUTES = 8.0
QUICK_MINUTES = 0.05
QUICK_IMAGES = 100
QUICK_PRIOR = ["train.steps=10", "network.width=64", "network.num_blocks=2"]
VAE = ["data.image_size=null", "data.augment.flip=false", "data.augment.shift=0"]
CODERS: dict[str, dict] = {
    "png": {"format": "PNG", "optimize": True, "compress_level": 9},
    "webp": {"format": "WEBP", "lossless": True, "quality": 100, "method": 6},
    # lossless, without the boxes of a file, and without wavelets, which make these images longer
    # (4.90 for 5.21 bits)
    "jpeg2000": {"format": "JPEG2000", "irreversible": False, "no_jp2": True, "num_resolutions": 1},
}


def model(name: str, overrides: list[str], minutes: float, seed: int, folder: Path) -> dict:
    """Train a recipe for `minutes` and measure its bound on the test images; the folder keeps the
    artifact.
    """
    import vqkit

    settings = [*overrides, f"train.max_minutes={minutes}", f"seed={seed}", "coder.steps=0"]
    trained = vqkit.train(SOURCE, folder, name, settings)
    assert trained is not None
    return {"step": trained.metrics["step"], "psnr": trained.metrics["psnr"], **bound(folder)}


def bound(folder: Path) -> dict:
    """Figures of the artifact in `folder`, with its prior if it has one."""
    import vqkit
    from vqkit.apps.evaluate import likelihood, open_for

    model = vqkit.load(folder)
    found = likelihood(model, open_for(model, SOURCE, "test")).metrics
    print(
        {
            key: round(value, 3) if isinstance(value, float) else value
            for key, value in found.items()
        },
        flush=True,
    )
    return found


def models(arguments, folder: Path) -> dict[str, list[dict]]:
    """Rows of every model, one a seed. The prior, of the codes of the training images, is added to
    the artifact without it.
    """
    import vqkit

    minutes, seeds = (QUICK_MINUTES, 1) if arguments.quick else (MINUTES, 3)
    rows: dict[str, list[dict]] = {"vae": [], "vq_uniform": [], "vq_prior": []}
    for seed in range(arguments.seed, arguments.seed + seeds):
        rows["vae"].append(model("vae", VAE, minutes, seed, folder / f"vae-{seed}"))
        rows["vq_uniform"].append(model("likelihood", [], minutes, seed, folder / f"vq-{seed}"))
        overrides = QUICK_PRIOR if arguments.quick else []
        vqkit.train_prior(folder / f"vq-{seed}", SOURCE, overrides=overrides)
        rows["vq_prior"].append(bound(folder / f"vq-{seed}"))
    return rows


def num_bytes(images: Iterable[np.ndarray], settings: dict) -> int:
    """Bytes of one file for each image (H, W) uint8; every file is read back and compared."""
    from PIL import Image

    total = 0
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, **settings)
        total += len(file.getvalue())
        with Image.open(file) as found:
            assert np.array_equal(np.asarray(found.convert("L")), image), settings
    return total


def sheet(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W) beside and below one another as an image that is about square; those of a
    last, short row are left out.
    """
    columns = math.isqrt(len(images))
    rows = len(images) // columns
    grid = images[: rows * columns].reshape(rows, columns, *images.shape[1:])
    return grid.transpose(0, 2, 1, 3).reshape(rows * images.shape[1], columns * images.shape[2])


def classical(quick: bool) -> dict[str, float]:
    """Bits per pixel of every coder: one file an image, a hundred images in a file, all of them in
    one.
    """
    from PIL import features

    data = open_set(SOURCE)
    images = arrays(data, data.splits["test"][: QUICK_IMAGES if quick else None])[..., 0]
    found = {}
    for name, settings in CODERS.items():
        if name == "jpeg2000" and not features.check("jpg_2000"):
            continue
        hundreds = [sheet(images[start : start + 100]) for start in range(0, len(images), 100)]
        for layout, files in (
            ("", images),
            ("_sheets_of_100", hundreds),
            ("_sheet", [sheet(images)]),
        ):
            pixels = sum(image.size for image in files)
            found[name + layout] = 8 * num_bytes(files, settings) / pixels
    return found


def main() -> None:
    arguments = PARSER.parse_args()
    if arguments.quick:
        shorten_fashion_mnist()
    claims = [
        Claim(
            f"bits_per_dim_{name}", value, "bits", "reported", "Pillow", CODERS[name.split("_")[0]]
        )
        for name, value in classical(arguments.quick).items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        rows = models(arguments, Path(folder))
    minutes = QUICK_MINUTES if arguments.quick else MINUTES
    for name, found in rows.items():
        values = [row["bits_per_dim"] for row in found]
        spread = {
            "stdev": stdev(values) if len(values) > 1 else None,
            "minutes": minutes,
            "rows": found,
            **machine(),
        }
        claims.append(
            Claim(
                f"bits_per_dim_{name}",
                mean(values),
                "bits",
                "reported",
                "png, webp, jpeg2000",
                spread,
            )
        )
    report(claims, arguments)


if __name__ == "__main__":
    main()
