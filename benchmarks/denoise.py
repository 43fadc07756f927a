"""Claims denoise_*: noise taken out of test images, beside classical methods and a DnCNN of equal
size and time.

    python benchmarks/denoise.py [--quick] [--seed 0] [--work DIR] [--json FILE]

Recipe denoise on the training images of Fashion-MNIST and emoji, and on patches of wallpapers
(tested on 13 photographs from elsewhere, Gaussian noise only), MINUTES on one core, and DnCNN for
the same processor time on the same batches. Then every method gets the same noisy uint8 images of
the test split, one at a time: PSNR and SSIM against the clean ones, seconds an image. Gaussian
noise of three levels, the other kinds of training, and a level and a kind that training never saw.
Total variation gets the best of its weights for every row, chosen on validation images; wavelets
and NL-means estimate sigma from the image; BM3D is told it where there is one, else gets the
estimate. --quick: seconds of training, one image, four kinds of noise.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench.claims import Claim, kept, machine, options, report
from bench.image_sets import shorten_fashion_mnist
from bench.photographs import test_images, training_patches
from bench.short_runs import in_parallel

PARSER = options(__doc__, work=True)

PHOTOGRAPHS = "photographs"
SOURCES = {
    PHOTOGRAPHS: ["data.test=0"],
    "fashion-mnist": ["data.image_size=null"],
    "emoji": [],
}
MINUTES = 5.0
IMAGES = 128
QUICK_MINUTES = 0.05
QUICK_IMAGES = 1
# Pixels of a side of the photographs, which BM3D takes seconds for.
SIDE = 256
QUICK_SIDE = 64
SIGMAS = 15, 25, 50
WEIGHTS = 0.02, 0.05, 0.1, 0.15, 0.2, 0.3
CLASSICAL = "median", "total variation", "wavelet", "nl-means", "bm3d"


def correlated(image, sigma, generator):
    """Normal noise of this deviation, each value the mean of 2x2 independent ones, scaled back: no
    kind of training.
    """
    noise = torch.randn(len(image), image.shape[1] + 1, image.shape[2] + 1, generator=generator)
    noise = noise[:, 1:, 1:] + noise[:, :-1, 1:] + noise[:, 1:, :-1] + noise[:, :-1, :-1]
    return (image + sigma / 2 * noise).round().clamp(0, 255).to(torch.uint8)


def cases() -> dict[str, tuple]:
    """Name -> what adds the noise, how much of it, and sigma where it is Gaussian."""
    from vqkit.signals.image.noise import (
        gaussian,
        jpeg,
        missing_blocks,
        poisson,
        salt_and_pepper,
        speckle,
    )

    return {
        **{f"gaussian {sigma}": (gaussian, sigma, sigma) for sigma in SIGMAS},
        "poisson 12": (poisson, 12, None),
        "salt and pepper 0.1": (salt_and_pepper, 0.1, None),
        "speckle 0.3": (speckle, 0.3, None),
        "jpeg 15": (jpeg, 15, None),
        "missing blocks 0.2": (missing_blocks, 0.2, None),
        "unseen: gaussian 100": (gaussian, 100, 100),
        "unseen: correlated 25": (correlated, 25, None),
    }


def kinds(source: str, quick: bool) -> list[str]:
    """Kinds of noise for a set; quick: those of the claims, and one more."""
    names = [name for name in cases() if source != PHOTOGRAPHS or name.startswith("gaussian")]
    return names[: len(SIGMAS) + 1] if quick else names


def settings(source: str, minutes: float, seed: int) -> list[str]:
    return [
        f"train.max_minutes={minutes}",
        "train.steps=20000",
        "coder.steps=0",
        f"seed={seed}",
        *SOURCES[source],
    ]


def place(source: str, work: Path) -> str:
    """What `open_images` reads."""
    return str(training_patches(work / f"{PHOTOGRAPHS}.npy")) if source == PHOTOGRAPHS else source


def learn(job: tuple) -> dict:
    """Ours, then its twin, on one core; both stay in `work`."""
    from bench import dncnn

    import vqkit
    from vqkit.config import load
    from vqkit.settings import Config

    source, work, seed, minutes = job
    folder = work / f"{source}-{seed}"
    overrides = settings(source, minutes, seed)
    if not (folder / "metrics.json").exists():
        vqkit.train(place(source, work), folder, "denoise", overrides)
    seconds = vqkit.load(folder).metrics["training_seconds"]
    read = load("denoise", overrides, Config).data
    model = dncnn.train(
        place(source, work), read, seconds, seed, work / f"dncnn-{source}-{seed}.safetensors"
    )
    return {
        "seconds": seconds,
        "dncnn_parameters": sum(part.numel() for part in model.parameters()),
    }


# -------------------------------------------------------------------------------------- the methods


def classical(name: str, image: np.ndarray, sigma: float | None, weight: float) -> np.ndarray:
    """uint8 (H, W, C) by one of CLASSICAL."""
    import bm3d
    from scipy.ndimage import median_filter
    from skimage import restoration as skimage

    if name == "median":
        return median_filter(image, (3, 3, 1))
    x = image / 255
    estimated = float(np.mean(skimage.estimate_sigma(x, channel_axis=-1))) + 1e-6
    if name == "total variation":
        found = skimage.denoise_tv_chambolle(x, weight=weight, channel_axis=-1)
    elif name == "wavelet":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # small images have fewer levels than it would like
            found = skimage.denoise_wavelet(
                x, method="BayesShrink", rescale_sigma=True, channel_axis=-1
            )
    elif name == "nl-means":
        found = skimage.denoise_nl_means(
            x, h=0.8 * estimated, sigma=estimated, patch_size=5, patch_distance=6, channel_axis=-1
        )
    else:
        known = estimated if sigma is None else sigma / 255
        found = bm3d.bm3d_rgb(x, known) if image.shape[2] == 3 else bm3d.bm3d(x[:, :, 0], known)
    return np.nan_to_num(255 * found).reshape(image.shape).round().clip(0, 255).astype(np.uint8)


def methods(source: str, work: Path, seed: int, minutes: float) -> dict:
    """Name -> function(image, sigma, weight of total variation)."""
    from bench import dncnn

    import vqkit
    from vqkit.config import load
    from vqkit.settings import Config

    model = vqkit.load(work / f"{source}-{seed}")
    read = load("denoise", settings(source, minutes, seed), Config).data
    twin = dncnn.train(
        place(source, work), read, 0, seed, work / f"dncnn-{source}-{seed}.safetensors"
    )
    found = {"noisy": lambda image, *_: image}
    found |= {name: partial(classical, name) for name in CLASSICAL}
    found["dncnn"] = lambda image, *_: dncnn.denoise(twin, image)
    found["ours"] = lambda image, *_: denoised(model, image)
    found["ours, all levels"] = lambda image, *_: denoised(model, image, strength=0)
    found["ours, continuous"] = lambda image, *_: denoised(model, image, continuous=True)
    return found


def denoised(model, image: np.ndarray, **how) -> np.ndarray:
    """uint8 (H, W, C) -> the same, by `vqkit denoise`."""
    from vqkit.apps.denoise import denoise

    found = denoise(model, torch.from_numpy(image).permute(2, 0, 1), **how)
    return found.values.permute(1, 2, 0).contiguous().numpy()


def images_of(
    source: str, work: Path, seed: int, split: str, count: int, side: int
) -> torch.Tensor:
    import vqkit
    from vqkit.apps.evaluate import open_for

    if source == PHOTOGRAPHS and split == "test":
        return test_images()[:count, :, :side, :side]
    data = open_for(vqkit.load(work / f"{source}-{seed}"), place(source, work), split)
    return data.read(data.splits[split][:count]).values


def noisy(images: torch.Tensor, add, amount: float) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    return [add(image, amount, generator).permute(1, 2, 0).contiguous().numpy() for image in images]


def scores(found: list[np.ndarray], clean: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    from vqkit.signals.image.measures import psnr, ssim

    pixels = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)
    return psnr(pixels, clean).numpy(), ssim(pixels, clean).numpy()


def row(job: tuple) -> dict:
    source, work, seed, _, count, _, name = job
    file = work / "rows" / f"{source}-{seed}-{count}-{name.replace(' ', '-')}.json"
    return kept(file, lambda: measured(*job))


def measured(
    source: str, work: Path, seed: int, minutes: float, count: int, side: int, name: str
) -> dict:
    """One kind of noise on one set: PSNR of every image, mean SSIM and seconds an image of every
    method.
    """
    add, amount, sigma = cases()[name]
    held_out = images_of(source, work, seed, "validation", max(1, count // 4), side)
    trial = noisy(held_out, add, amount)

    def gain(weight: float) -> float:
        return scores(
            [classical("total variation", image, sigma, weight) for image in trial], held_out
        )[0].mean()

    weight = max(WEIGHTS, key=gain)
    clean = images_of(source, work, seed, "test", count, side)
    images = noisy(clean, add, amount)
    rows = {}
    for method, run in methods(source, work, seed, minutes).items():
        run(images[0], sigma, weight)
        start = time.perf_counter()
        found = [run(image, sigma, weight) for image in images]
        seconds = (time.perf_counter() - start) / len(images)
        distortion, similarity = scores(found, clean)
        rows[method] = {
            "psnr": distortion.tolist(),
            "ssim": float(similarity.mean()),
            "seconds": seconds,
        }
    return rows


def speedup(work: Path, seed: int, side: int) -> float:
    """Seconds of BM3D over ours, both on one core, for a grey photograph of 256x256 (--quick:
    64x64) with noise of 25.
    """
    from skimage import data, transform

    import vqkit

    torch.set_num_threads(1)
    pixels = (255 * transform.resize(data.camera(), (side, side), anti_aliasing=True)).astype(
        np.uint8
    )
    image = noisy(torch.from_numpy(pixels)[None, None], cases()["gaussian 25"][0], 25)[0]
    model = vqkit.load(work / f"fashion-mnist-{seed}")
    times = {}
    for name, run in {
        "ours": lambda: denoised(model, image),
        "bm3d": lambda: classical("bm3d", image, 25, 0),
    }.items():
        run()
        start = time.perf_counter()
        run()
        times[name] = time.perf_counter() - start
    return times["bm3d"] / times["ours"]


# --------------------------------------------------------------------------------------- the claims


def interval(difference: np.ndarray) -> tuple[float, float]:
    """Of the mean, 95 %, by 2,000 resamplings of the images."""
    drawn = np.random.default_rng(0).integers(0, len(difference), (2000, len(difference)))
    low, high = np.quantile(difference[drawn].mean(1), (0.025, 0.975))
    return float(low), float(high)


def table(source: str, rows: dict) -> None:
    for name, found in rows.items():
        print(f"\n{source}, {name}")
        for method, figures in found.items():
            low, high = interval(np.array(figures["psnr"]))
            print(
                f"  {method:<18} {np.mean(figures['psnr']):6.2f} dB [{low:.2f}, {high:.2f}]  "
                f"SSIM {figures['ssim']:.3f}  {1000 * figures['seconds']:8.1f} ms"
            )


def claims(found: dict[str, dict], fast: float, base: dict) -> list[Claim]:
    out = []
    against_twin = []
    for source, rows in found.items():
        for sigma in SIGMAS:
            psnr = {
                method: np.array(figures["psnr"])
                for method, figures in rows[f"gaussian {sigma}"].items()
            }
            best = max(CLASSICAL, key=lambda method: psnr[method].mean())
            low, high = interval(psnr["ours"] - psnr[best])
            told = {
                **base,
                "interval": [low, high],
                "dncnn": float((psnr["ours"] - psnr["dncnn"]).mean()),
            }
            name = f"denoise_gain_vs_best_classical_db_{source}_{sigma}"
            gain = float((psnr["ours"] - psnr[best]).mean())
            out.append(
                Claim(
                    name,
                    gain,
                    "dB",
                    "> 0" if sigma > 15 and source != PHOTOGRAPHS else "-",
                    best,
                    told,
                )
            )
            if source != PHOTOGRAPHS:
                against_twin.append(told["dncnn"])
    out.append(
        Claim(
            "denoise_vs_dncnn_db", min(against_twin), "dB", ">= -0.3", "DnCNN, the worst row", base
        )
    )
    out.append(Claim("denoise_vs_bm3d_speedup", fast, "times", ">= 20", "bm3d 4.0.3", base))
    return out


def main() -> None:
    given = PARSER.parse_args()
    if given.quick:
        shorten_fashion_mnist()
    minutes, count = (QUICK_MINUTES, QUICK_IMAGES) if given.quick else (MINUTES, IMAGES)
    side = QUICK_SIDE if given.quick else SIDE
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        trained = in_parallel(learn, [(source, work, given.seed, minutes) for source in SOURCES])
        jobs = [
            (source, work, given.seed, minutes, count, side, name)
            for source in SOURCES
            for name in kinds(source, given.quick)
        ]
        rows = dict(zip([(job[0], job[-1]) for job in jobs], in_parallel(row, jobs), strict=True))
        found = {
            source: {name: rows[source, name] for name in kinds(source, given.quick)}
            for source in SOURCES
        }
        fast = speedup(work, given.seed, side)
    for source in SOURCES:
        table(source, found[source])
    base = {
        "seed": given.seed,
        "images": count,
        "minutes": minutes,
        "trained": trained,
        **machine(),
    }
    report(claims(found, fast, base), given)


if __name__ == "__main__":
    main()
