"""Bytes against PSNR: .vq files of a residual model beside JPEG, WebP, AVIF, JPEG 2000 and JPEG XL on the same images.

    python benchmarks/rate_distortion.py [--work DIR] [--json FILE]

Trains a tokenizer of four residual stages and its coder on Fashion-MNIST (about 15 minutes on two cores), or takes
those of an earlier run in --work. Points of ours: every number of stages and weight of a bit that no other point
beats on validation images. All curves are measured on the first 1024 test images, in three accountings: one file for
each image; one file for all (ours: a bundle; theirs: the images as a 32 x 32 mosaic); and that with the model's bytes
shared out. Sizes are of files on disk. PSNR is of the mean squared error over all images; the mean of each image's
PSNR is beside it.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _common import Claim, kept, machine, options, report
from PIL import Image

SIDE = 32
LOW, HIGH = 22.0, 30.0
"""dB between which curves are compared"""
RESAMPLES = 500
WEIGHTS = (0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""of a bit, as a squared distance of tokens"""


def codecs() -> dict[str, tuple[Callable[[np.ndarray, int], bytes], range]]:
    """name -> (image, quality) -> bytes, and the qualities of its curve."""

    def pillow(kind: str, **how: object) -> Callable[[np.ndarray, int], bytes]:
        def encode(image: np.ndarray, quality: int) -> bytes:
            buffer = io.BytesIO()
            named = {"quality_mode": "dB", "quality_layers": [quality]} if kind == "JPEG2000" else {"quality": quality}
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


def pictures(data: bytes) -> np.ndarray:
    """A file of Pillow or imagecodecs as uint8 grey values."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    except OSError:
        import imagecodecs

        return np.asarray(imagecodecs.jpegxl_decode(data))


def errors(shown: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Mean squared error of each image, uint8 (N, H, W) both."""
    return np.square(shown.astype(np.float64) - images).mean((1, 2))


def psnr(mse: np.ndarray | float) -> np.ndarray:
    return 10 * np.log10(255**2 / np.maximum(mse, 1e-9))


def mosaic(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:]
    rows = len(images) // SIDE
    return images.reshape(rows, SIDE, height, width).transpose(0, 2, 1, 3).reshape(rows * height, SIDE * width)


def cut(sheet: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = sheet.shape[0] // height, sheet.shape[1] // width
    return sheet.reshape(rows, height, columns, width).transpose(0, 2, 1, 3).reshape(-1, height, width)


def theirs(images: np.ndarray) -> dict[str, list[dict]]:
    """Curves of every codec: bytes an image in a mosaic and in files of their own, and errors of each image."""
    found: dict[str, list[dict]] = {}
    for name, (encode, qualities) in codecs().items():
        for quality in qualities:
            data = encode(mosaic(images), quality)
            together = errors(cut(pictures(data), *images.shape[1:]), images)
            files = [encode(image, quality) for image in images[:128]]  # the rest would cost minutes and change nothing
            alone = errors(np.stack([pictures(one) for one in files]), images[: len(files)])
            found.setdefault(name, []).append(
                {"quality": quality, "mosaic_bytes": len(data) / len(images), "mosaic_mse": together.tolist(),
                 "file_bytes": float(np.mean([len(one) for one in files])), "file_mse": alone.tolist()}
            )  # fmt: skip
    return found


# ---------------------------------------------------------------------------------------------------------------- ours


def ours(artifact, images: np.ndarray, validation: np.ndarray) -> list[dict]:
    """Points that none beats on validation images, on test images: bytes in a bundle and in files of their own."""
    found = [point(artifact, validation, *where) for where in places(artifact)]
    best = [one for one in found if not any(beats(other, one) for other in found)]
    return [point(artifact, images, one["num_stages"], one["weight"]) for one in best]


def places(artifact) -> list[tuple[int, float]]:
    """Numbers of stages and weights of a bit."""
    stages = range(1, artifact.rates["full"].num_stages + 1)
    return [(depth, weight) for depth in stages for weight in WEIGHTS]


def beats(one: dict, other: dict) -> bool:
    smaller, better = one["bundle_bytes"] <= other["bundle_bytes"], np.mean(one["mse"]) <= np.mean(other["mse"])
    return one is not other and smaller and better


def point(artifact, images: np.ndarray, num_stages: int, weight: float) -> dict:
    from dataclasses import replace

    from vqkit.apps.compress import compress, pictures

    rates = {
        **artifact.metrics["rates"],
        "here": {"num_stages": num_stages, "weight": weight, "bits": 0.0, "psnr": 0.0},
    }
    model = replace(artifact, metrics={**artifact.metrics, "rates": rates})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{number:05}.png")
        target = folder / "all.vq"
        list(compress(model, sorted(folder.glob("*.png")), target=target, bundle=True, rate="here"))
        with target.open("rb") as stream:
            shown = np.stack([pixels[..., 0] for _, pixels in pictures(model, stream)])
        sizes = [len(model.compress(image, rate="here")) for image in images[:128]]
        return {"num_stages": num_stages, "weight": weight, "bundle_bytes": target.stat().st_size / len(images),
                "file_bytes": float(np.mean(sizes)), "mse": errors(shown, images).tolist()}  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- curves


def bd_rate(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean difference of log bytes between LOW and HIGH dB where both curves are, in %: (bytes, PSNR) each.

    Bjontegaard 2001 (VCEG-M33) with Akima's interpolation of log bytes over PSNR.
    """
    from scipy.interpolate import Akima1DInterpolator

    curves = []
    for size, decibels in (ours, theirs):
        order = np.argsort(decibels)
        unique = np.append(True, np.diff(decibels[order]) > 1e-3)
        curves.append((decibels[order][unique], np.log(size[order][unique])))
    low = max(LOW, *(x[0] for x, _ in curves))
    high = min(HIGH, *(x[-1] for x, _ in curves))
    grid = np.linspace(low, high, 200)
    one, other = (Akima1DInterpolator(x, y)(grid) for x, y in curves)
    return float(100 * (np.exp(np.mean(one - other)) - 1))


def compared(mine: list[dict], peers: dict[str, list[dict]], kind: str, seed: int) -> dict[str, dict]:
    """BD-rate against every codec, with an interval of 95 % over images that are drawn anew."""
    ours_bytes, their_bytes = ("bundle_bytes", "mosaic_bytes") if kind == "mosaic" else ("file_bytes", "file_bytes")
    rng = np.random.default_rng(seed)
    found = {}
    for name, curve in peers.items():
        mse = np.array([one[f"{kind}_mse"] for one in curve])
        own = np.array([one["mse"] for one in mine])[:, : mse.shape[1]]
        sizes = np.array([one[ours_bytes] for one in mine]), np.array([one[their_bytes] for one in curve])

        def rate(rows: np.ndarray, own=own, mse=mse, sizes=sizes) -> float:
            return bd_rate((sizes[0], psnr(own[:, rows].mean(1))), (sizes[1], psnr(mse[:, rows].mean(1))))

        everything = np.arange(mse.shape[1])
        drawn = [rate(rng.choice(everything, len(everything))) for _ in range(RESAMPLES)]
        found[name] = {"bd_rate": rate(everything), "low": float(np.quantile(drawn, 0.025)),
                       "high": float(np.quantile(drawn, 0.975))}  # fmt: skip
    return found


def break_even(mine: list[dict], curve: list[dict], model_bytes: int, decibels: float = 26.0) -> float:
    """Images from which on a bundle with its model is smaller than a mosaic, at that PSNR."""

    def at(points: list[dict], size: str, mse: str) -> float:
        order = sorted(points, key=lambda one: np.mean(one[mse]), reverse=True)
        x = [float(psnr(np.mean(one[mse]))) for one in order]
        return float(np.exp(np.interp(decibels, x, np.log([one[size] for one in order]))))

    saved = at(curve, "mosaic_bytes", "mosaic_mse") - at(mine, "bundle_bytes", "mse")
    return model_bytes / saved if saved > 0 else float("inf")


def trained(folder: Path, seed: int, quick: bool):
    import vqkit

    if not (folder / "config.json").exists():
        short = ["train.steps=300", "coder.steps=60"] if quick else ["train.max_minutes=6"]
        vqkit.train("fashion-mnist", folder, recipe="rates", overrides=[*short, f"seed={seed}"])
    return vqkit.load(folder)


def main() -> None:
    args = options(__doc__, work=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        artifact = trained(work / f"fashion-mnist-residual-{args.seed}", args.seed, args.quick)
        count = 256 if args.quick else SIDE * SIDE
        images, validation = (pictures_of(split, count) for split in ("test", "validation"))
        mine = kept(work / f"ours-{args.seed}.json", lambda: {"points": ours(artifact, images, validation)})["points"]
        peers = kept(work / f"theirs-{count}.json", lambda: theirs(images))
        names = ("model.safetensors", "coder.safetensors")
        model_bytes = sum(os.path.getsize(work / f"fashion-mnist-residual-{args.seed}" / name) for name in names)
        show(mine, peers)
        claims = []
        for kind, goal in (("mosaic", "<= -50"), ("file", "<= -75")):
            rows = compared(mine, peers, kind, args.seed)
            best = max(rows, key=lambda name: rows[name]["bd_rate"])
            for name, row in rows.items():
                print(f"{kind:<7} against {name:<9} {row['bd_rate']:6.1f} % ({row['low']:.1f} .. {row['high']:.1f})")
            settings = {**machine(), "seed": args.seed, "rows": rows, "model_bytes": model_bytes,
                        "break_even": {name: break_even(mine, peers[name], model_bytes) for name in rows}}  # fmt: skip
            claims.append(Claim(f"bd_rate_{kind}_fmnist", rows[best]["bd_rate"], "%", goal, best, settings))
        print("break-even images:", {k: round(v) if v < 1e12 else None for k, v in settings["break_even"].items()})
        report(claims, args.json)


def pictures_of(split: str, count: int) -> np.ndarray:
    """The first pictures of a split, uint8 (N, H, W)."""
    from vqkit.config import DataConfig
    from vqkit.data import open_images

    data = open_images("fashion-mnist", DataConfig(), 0)
    return data.read(data.splits[split][:count])[:, 0].numpy()


def show(mine: list[dict], peers: dict[str, list[dict]]) -> None:
    for one in mine:
        print(f"ours stages {one['num_stages']} weight {one['weight']:.4f}: bundle {one['bundle_bytes']:6.1f} B, "
              f"file {one['file_bytes']:6.1f} B, {psnr(np.mean(one['mse'])):.2f} dB "
              f"(mean of images {psnr(np.array(one['mse'])).mean():.2f})")  # fmt: skip
    for name, curve in peers.items():
        for one in curve:
            print(f"{name:<9} {one['quality']:>3}: mosaic {one['mosaic_bytes']:6.1f} B "
                  f"{psnr(np.mean(one['mosaic_mse'])):.2f} dB; file {one['file_bytes']:6.1f} B "
                  f"{psnr(np.mean(one['file_mse'])):.2f} dB")  # fmt: skip


if __name__ == "__main__":
    main()
