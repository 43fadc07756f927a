"""Bytes against PSNR: .vq files of a residual model beside JPEG, WebP, AVIF, JPEG 2000 and JPEG XL
on the same images.

    python benchmarks/rate_distortion.py [--set fashion-mnist|emoji|photographs]
        [--quick] [--seed 0] [--work DIR] [--json FILE]

Trains recipe rates (four residual stages) and its coder on the training images of a set, or takes
those of an earlier run in --work; photographs are learnt from patches of wallpapers and tested on
13 others of 256x256. Points of ours: those numbers of stages and weights of a bit that lie on the
convex hull of bytes and PSNR of validation images. All curves are measured on test images, in three
accountings: one file for each image; one file for all (ours: a bundle;
theirs: the images as a mosaic); and that with the model's bytes shared out. Sizes are of files on
disk. PSNR is the mean of each image's, as everywhere here; that of the mean squared error over all
images is beside it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench.claims import Claim, kept, machine, options, report
from bench.image_codecs import bd_rate, codecs, decoded, errors, mixtures, psnr, with_rate
from bench.image_sets import arrays, shorten_fashion_mnist, values_of


@dataclass(frozen=True)
class Effort:
    """How much is measured. settings: of training. rows: of the mosaic of test images, None for as
    many as the set has. files: test images that get a file of their own. validated: validation
    images that choose points. weights: of a bit, in units of the mean squared distance of tokens to
    their codes. every: of the qualities of other codecs, one of so many. resamples: draws of images
    for an interval.
    """

    settings: tuple[str, ...]
    rows: int | None
    files: int
    validated: int
    weights: tuple[float, ...]
    every: int
    resamples: int


# More files and validation images change little.
FULL = Effort(
    settings=("train.max_minutes=6",),
    rows=None,
    files=128,
    validated=256,
    weights=(0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
    every=1,
    resamples=500,
)
QUICK = Effort(
    settings=("train.steps=60", "coder.steps=20"),
    rows=2,
    files=8,
    validated=32,
    weights=(0.0, 0.2),
    every=3,
    resamples=20,
)


@dataclass(frozen=True)
class Set:
    """images of the test in a mosaic of `columns`; dB between which curves are compared, as far as
    bytes stay below `most` an image; settings of training; goals for mosaic and file.
    """

    images: int
    columns: int
    decibels: tuple[float, float]
    most: float
    settings: tuple[str, ...]
    goals: tuple[str, str]


SETS = {
    "fashion-mnist": Set(1024, 32, (22.0, 30.0), np.inf, (), ("<= -50", "<= -75")),
    "emoji": Set(
        144,
        12,
        (18.0, 40.0),
        32 * 32 / 8,
        ("data.image_size=[32,32]", "coder.steps=600"),
        ("<= -25", "-"),
    ),
    "photographs": Set(13, 1, (20.0, 36.0), np.inf, ("data.test=0", "coder.steps=600"), ("-", "-")),
}
PARSER = options(__doc__, work=True)
PARSER.add_argument("--set", choices=list(SETS), default="fashion-mnist")
MEASURES: dict[str, Callable[[np.ndarray], float]] = {
    "mean of PSNR": lambda mse: float(psnr(mse).mean()),
    "PSNR of mean": lambda mse: float(psnr(mse.mean())),
}


def mosaic(images: np.ndarray, columns: int) -> np.ndarray:
    height, width = images.shape[1:3]
    sheet = images.reshape(-1, columns, height, width, *images.shape[3:]).swapaxes(1, 2)
    return sheet.reshape(-1, columns * width, *images.shape[3:])


def cut(sheet: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = sheet.shape[0] // height
    columns = sheet.shape[1] // width
    parts = sheet.reshape(rows, height, columns, width, *sheet.shape[2:]).swapaxes(1, 2)
    return parts.reshape(-1, height, width, *sheet.shape[2:])


def theirs(images: np.ndarray, columns: int, effort: Effort) -> dict[str, list[dict]]:
    """Curves of every codec: bytes an image in a mosaic and in files of their own, and errors of
    each image.
    """
    found: dict[str, list[dict]] = {}
    grey = images.ndim == 3
    some = images[: effort.files]
    for name, (encode, qualities) in codecs().items():
        for quality in qualities[:: effort.every]:
            data = encode(mosaic(images, columns), quality)
            together = errors(cut(decoded(data, grey), *images.shape[1:3]), images)
            files = [encode(image, quality) for image in some]
            alone = errors(np.stack([decoded(one, grey) for one in files]), some)
            found.setdefault(name, []).append(
                {
                    "quality": quality,
                    "mosaic_bytes": len(data) / len(images),
                    "mosaic_mse": together.tolist(),
                    "file_bytes": float(np.mean([len(one) for one in files])),
                    "file_mse": alone.tolist(),
                }
            )
    return found


# --------------------------------------------------------------------------------------------- ours


def ours(model, images: np.ndarray, validation: np.ndarray, effort: Effort) -> list[dict]:
    """The hull of validation images, on test images: bytes in a bundle and in files of their
    own.
    """
    wanted = places(model, validation, effort.weights)
    found = [point(model, validation, *where, files=1) for where in wanted]
    best = hull(found)
    return [point(model, images, one["num_stages"], one["weight"], effort.files) for one in best]


def places(model, images: np.ndarray, weights: tuple[float, ...]) -> list[tuple[int, float]]:
    """Numbers of stages and weights of a bit, as squared distances of tokens."""
    import torch

    quantizer = model.network.quantizer
    found = []
    values = values_of(images.reshape(*images.shape[:3], -1))
    with torch.no_grad():
        tokens = quantizer.tokens(model.network.latents(model.tokenizer.standardise(values)))
        codes = quantizer.assign(tokens)
        for depth in range(1, quantizer.num_codebooks + 1):
            left = quantizer.distances(tokens, codes[:, : depth - 1]).gather(
                1, codes[:, depth - 1 : depth]
            )
            found += [(depth, weight * float(left.mean())) for weight in weights]
    return found


def hull(points: list[dict]) -> list[dict]:
    """Those from which no mixture of two others takes bytes without taking PSNR: the convex hull,
    by growing size.
    """
    found: list[tuple[float, float, int]] = []
    places = [
        (one["bundle_bytes"], MEASURES["mean of PSNR"](np.array(one["mse"]))) for one in points
    ]
    for size, level, index in sorted((*place, index) for index, place in enumerate(places)):
        if found and level <= found[-1][1]:
            continue  # more bytes for no better image
        while len(found) > 1 and slope(found[-2], found[-1]) <= slope(found[-2], (size, level)):
            found.pop()
        found.append((size, level, index))
    return [points[index] for _, _, index in found]


def slope(one: tuple, other: tuple) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])


def point(model, images: np.ndarray, num_stages: int, weight: float, files: int) -> dict:
    from vqkit.apps.compress import compress

    model = with_rate(model, num_stages, weight)
    compressor = model.compressor
    codec = compressor.codec(rate="here")
    values = values_of(images.reshape(*images.shape[:3], -1))
    names = [f"{number:05}.png" for number in range(len(images))]
    coded = [one.coded for _, one in compress(model, codec, zip(names, values, strict=True))]
    bundle = compressor.write_bundle(coded, codec, names)
    blocks = [compressor.decode(block) for block in compressor.read_blocks(bundle)]
    shown = np.stack(
        [
            model.signal.to_array(one[None], model.data)[0].reshape(images.shape[1:])
            for block in blocks
            for one in block
        ]
    )
    sizes = [len(model.compress(image, rate="here")) for image in images[:files]]
    return {
        "num_stages": num_stages,
        "weight": weight,
        "bundle_bytes": len(bundle) / len(images),
        "file_bytes": float(np.mean(sizes)),
        "mse": errors(shown, images).tolist(),
    }


# ------------------------------------------------------------------------------------------- curves


def compared(
    mine: list[dict],
    peers: dict[str, list[dict]],
    kind: str,
    measure: str,
    wanted: Set,
    resamples: int,
) -> dict[str, dict]:
    """BD-rate against every codec, with an interval of 95 % over images that are drawn anew."""
    ours_bytes, their_bytes = (
        ("bundle_bytes", "mosaic_bytes") if kind == "mosaic" else ("file_bytes", "file_bytes")
    )
    most = wanted.most if kind == "mosaic" else np.inf
    rng = np.random.default_rng(0)
    level = MEASURES[measure]
    few = [one for one in mine if one[ours_bytes] <= most]
    found = {}
    for name, every in peers.items():
        curve = [one for one in every if one[their_bytes] <= most]
        mse = np.array([one[f"{kind}_mse"] for one in curve])
        own = np.array([one["mse"] for one in few])[:, : mse.shape[1]]
        sizes = (
            np.array([one[ours_bytes] for one in few]),
            np.array([one[their_bytes] for one in curve]),
        )

        def rate(rows: np.ndarray, own=own, mse=mse, sizes=sizes) -> float:
            levels = (np.array([level(one[rows]) for one in errors]) for errors in (own, mse))
            return bd_rate(
                mixtures(sizes[0], next(levels)), (sizes[1], next(levels)), wanted.decibels
            )

        everything = np.arange(mse.shape[1])
        drawn = [rate(rng.choice(everything, len(everything))) for _ in range(resamples)]
        found[name] = {
            "bd_rate": rate(everything),
            "low": float(np.nanquantile(drawn, 0.025)),
            "high": float(np.nanquantile(drawn, 0.975)),
        }
    return found


def break_even(
    mine: list[dict], curve: list[dict], model_bytes: int, decibels: float = 26.0
) -> float:
    """Images from which on a bundle with its model is smaller than a mosaic, at that PSNR."""

    def at(points: list[dict], size: str, mse: str) -> float:
        level = MEASURES["mean of PSNR"]
        found = sorted((level(np.array(one[mse])), np.log(one[size])) for one in points)
        return float(np.exp(np.interp(decibels, *np.array(found).T)))

    saved = at(curve, "mosaic_bytes", "mosaic_mse") - at(mine, "bundle_bytes", "mse")
    return model_bytes / saved if saved > 0 else float("inf")


def place(name: str, work: Path) -> str:
    """What `open_images` reads."""
    from bench.photographs import training_patches

    return str(training_patches(work / f"{name}.npy")) if name == "photographs" else name


def trained(name: str, work: Path, seed: int, effort: Effort):
    import vqkit

    folder = work / f"{name}-rates-{seed}"
    if not (folder / "config.json").exists():
        overrides = [*SETS[name].settings, *effort.settings, f"seed={seed}"]
        vqkit.train(place(name, work), folder, "rates", overrides)
    return vqkit.load(folder)


def images_of(model, name: str, work: Path, split: str, count: int) -> np.ndarray:
    """The first images of a split, uint8 (N, H, W[, 3])."""
    from bench.photographs import test_images

    from vqkit.apps.evaluate import open_for

    if name == "photographs" and split == "test":
        return test_images()[:count, 0].numpy()
    data = open_for(model, place(name, work), split)
    found = arrays(data, data.splits[split][:count])
    return found[..., 0] if found.shape[3] == 1 else found


def main() -> None:
    args = PARSER.parse_args()
    if args.quick:
        shorten_fashion_mnist()
    wanted = SETS[args.set]
    effort = QUICK if args.quick else FULL
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        model = trained(args.set, work, args.seed, effort)
        count = min(wanted.images, (effort.rows or wanted.images) * wanted.columns)
        images = images_of(model, args.set, work, "test", count)
        validation = images_of(model, args.set, work, "validation", effort.validated)
        name = f"{args.set}-{count}-{args.seed}"
        points = kept(
            work / f"ours-{name}.json",
            lambda: {"points": ours(model, images, validation, effort)},
        )
        mine = points["points"]
        peers = kept(work / f"theirs-{name}.json", lambda: theirs(images, wanted.columns, effort))
        folder = work / f"{args.set}-rates-{args.seed}"
        model_bytes = sum(
            os.path.getsize(folder / f"{part}.safetensors") for part in ("model", "coder")
        )
    show(mine, peers)
    report(claims(args, mine, peers, model_bytes, effort), args)


def claims(
    args, mine: list[dict], peers: dict[str, list[dict]], model_bytes: int, effort: Effort
) -> list[Claim]:
    found = []
    even = {name: break_even(mine, curve, model_bytes) for name, curve in peers.items()}
    print(
        "break-even images:",
        {name: round(value) if value < 1e12 else None for name, value in even.items()},
    )
    for kind, goal in zip(("mosaic", "file"), SETS[args.set].goals, strict=True):
        rows = {
            measure: compared(mine, peers, kind, measure, SETS[args.set], effort.resamples)
            for measure in MEASURES
        }
        for measure, by_codec in rows.items():
            for name, row in by_codec.items():
                interval = f"{row['bd_rate']:6.1f} % ({row['low']:.1f} .. {row['high']:.1f})"
                print(f"{kind:<7} {measure} against {name:<9} {interval}")
        first = rows["mean of PSNR"]
        best = max(first, key=lambda name: np.nan_to_num(first[name]["bd_rate"], nan=-np.inf))
        settings = {
            **machine(),
            "seed": args.seed,
            "rows": rows,
            "model_bytes": model_bytes,
            "break_even": even,
        }
        name = f"bd_rate_{kind}_{'fmnist' if args.set == 'fashion-mnist' else args.set}"
        found.append(Claim(name, first[best]["bd_rate"], "%", goal, best, settings))
    return found


def show(mine: list[dict], peers: dict[str, list[dict]]) -> None:
    def levels(mse: list[float]) -> str:
        return ", ".join(
            f"{level(np.array(mse)):.2f} dB ({name})" for name, level in MEASURES.items()
        )

    def sizes(one: dict, together: str) -> str:
        return f"{together} {one[f'{together}_bytes']:6.1f} B, file {one['file_bytes']:6.1f} B"

    for one in mine:
        print(
            f"ours stages {one['num_stages']} weight {one['weight']:.4f}: "
            f"{sizes(one, 'bundle')}, {levels(one['mse'])}"
        )
    for name, curve in peers.items():
        for one in curve:
            print(
                f"{name:<9} {one['quality']:>3}: {sizes(one, 'mosaic')}, "
                f"mosaic {levels(one['mosaic_mse'])}, files {levels(one['file_mse'])}"
            )


if __name__ == "__main__":
    main()
