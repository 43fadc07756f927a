"""Claims prior_saving_vs_order0 ... inpaint_class_kept: what a prior over 49 codes of Fashion-MNIST
is worth.

    python benchmarks/priors.py [--quick] [--seed 0] [--json FILE] [--work DIR]

Three seeds from --seed on (--quick: one, some seconds each). For each seed `vqkit train
fashion-mnist --recipe fashion-mnist` and then `vqkit train-prior DIR fashion-mnist`, which takes
ten minutes on two cores. All figures are of the 10,000 test images, which chose nothing.

prior_saving_vs_order0: share of the bits of test codes under their frequencies in training that the
prior saves, its class paid for. prior_vs_pixelcnn_bits: bits a code of a Gated PixelCNN after as
much processor time (two cores for ten minutes, all on one), its best validation pass, less those of
the prior. kid_lite0_*: see bench/image_features.py; 10,000 samples, a thousand of each class, the
reconstructions of the test images, real training images, and samples of pythae (first seed only)
after as much processor time as both of our trainings took. class_agreement: samples that a
classifier of real training images takes for the class that they were drawn for. inpaint_class_kept:
test images with their lower half drawn anew, without a class, that it takes for the class which
they had.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from bench.claims import Claim, kept, machine, options, report
from bench.image_sets import arrays, open_set, shorten_fashion_mnist, values_of
from bench.short_runs import in_parallel

PARSER = options(__doc__, work=True)

SOURCE = "fashion-mnist"
CORES = 2
PRIOR_MINUTES = 10.0
# The size that did best on the validation split with this much time.
PIXELCNN = {"width": 64, "layers": 8}
QUICK = {"minutes": 0.05, "samples": 30, "inpainted": 2, "classifier": 2.0}
FULL = {"minutes": PRIOR_MINUTES, "samples": 10_000, "inpainted": 500, "classifier": 75.0}


def train(folder: Path, seed: int, minutes: float, quick: bool) -> None:
    """The artifact of one seed with its prior, by the commands that users type."""
    vqkit = [sys.executable, "-m", "vqkit"]
    if not (folder / "model.safetensors").exists():
        short = [f"train.max_minutes={minutes}", "coder.steps=0"] if quick else []
        command = [
            "train",
            SOURCE,
            "--recipe",
            SOURCE,
            "--out",
            str(folder),
            f"seed={seed}",
            *short,
        ]
        subprocess.run([*vqkit, *command], check=True)
    if not (folder / "prior.safetensors").exists():
        command = [
            "train-prior",
            str(folder),
            SOURCE,
            f"train.max_minutes={minutes}",
            f"seed={seed}",
            *(["network.width=64", "network.num_blocks=2"] if quick else []),
        ]
        subprocess.run([*vqkit, *command], check=True)


@cache
def labelled_images() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (N, 28, 28, 1) uint8 and numbers of their classes (N,), by split."""
    data = open_set(SOURCE)
    numbers = {name: number for number, name in enumerate(sorted(set(data.groups)))}
    labels = np.array([numbers[name] for name in data.groups])
    return {
        split: (arrays(data, rows), labels[np.asarray(rows)]) for split, rows in data.splits.items()
    }


def distance(images: np.ndarray, work: Path, count: int) -> float:
    """KID-lite0 to `count` test images, whose features are kept in `work`."""
    from bench.image_features import kid, lite0_features

    file = work / f"test-features-{count}.npy"
    if not file.exists():
        np.save(file, lite0_features(labelled_images()["test"][0][:count]))
    return kid(lite0_features(images), np.load(file))


# -------------------------------------------------------------------------------------------- peers


def peer(job: tuple[str, Path, int, int, float]) -> dict:
    """Train and measure one peer on one core: pixelcnn, pythae_vqvae or pythae_vae."""
    name, work, seed, count, seconds = job
    measure = pixelcnn if name == "pixelcnn" else pythae
    return kept(work / f"{name}-{seed}.json", lambda: measure(name, work, seed, count, seconds))


def pixelcnn(_: str, work: Path, seed: int, count: int, seconds: float) -> dict:
    """Bits a code of the test split, class paid for."""
    import torch
    from bench.pixelcnn import bits, train_pixelcnn

    import vqkit

    tokenizer = vqkit.load(work / f"{SOURCE}-{seed}")
    parts = {}
    for split, (images, labels) in labelled_images().items():
        images = images[: None if count == FULL["samples"] else count]
        codes = torch.cat(
            [
                tokenizer.encode(part)[:, 0]
                for part in np.array_split(images, -(-len(images) // 500))
            ]
        )
        parts[split] = codes, torch.from_numpy(labels[: len(codes)])
    size = tokenizer.network.quantizer.codebook_size
    validation = parts["validation"][0][:1024], parts["validation"][1][:1024]
    model = train_pixelcnn(
        *parts["train"], size, seconds, seed, 10, validation=validation, **PIXELCNN
    )
    found = float(bits(model, *parts["test"]).mean() + np.log2(10)) / parts["test"][0][0].numel()
    return {
        "bits_per_code": found,
        "seconds": seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def pythae(name: str, work: Path, seed: int, count: int, seconds: float) -> dict:
    """KID-lite0 of samples."""
    from bench import pythae_models

    draw = {
        "pythae_vqvae": pythae_models.pythae_vqvae_samples,
        "pythae_vae": pythae_models.pythae_vae_samples,
    }[name]
    times: dict[str, float] = {}
    train, validation = (labelled_images()[split][0][..., 0] for split in ("train", "validation"))
    samples = draw(train, validation, seconds, count, seed, times=times)
    np.savez_compressed(work / f"{name}-{seed}.npz", samples=samples[:64])
    return {"kid": distance(samples, work, count), "seconds": seconds, **times}


def peers(work: Path, seeds: list[int], settings: dict) -> dict[str, list[dict]]:
    """Rows by name, one a seed; pythae only the first."""
    import vqkit

    prior = 60 * settings["minutes"] * CORES
    whole = prior + vqkit.load(work / f"{SOURCE}-{seeds[0]}").metrics["training_seconds"]
    count = settings["samples"]
    jobs = [(name, work, seeds[0], count, whole) for name in ("pythae_vqvae", "pythae_vae")]
    jobs += [("pixelcnn", work, seed, count, prior) for seed in seeds]
    rows: dict[str, list[dict]] = {}
    for job, row in zip(jobs, in_parallel(peer, jobs), strict=True):
        rows.setdefault(job[0], []).append(row)
    return rows


# --------------------------------------------------------------------------------------------- ours


@cache
def classifier(seconds: float):
    """Of real training images, and its accuracy on the test images."""
    from bench.image_features import classify, train_classifier

    model = train_classifier(*labelled_images()["train"], 10, seconds, 0)
    images, labels = labelled_images()["test"]
    return model, float((classify(model, images) == labels).mean())


def quality(work: Path, seed: int, settings: dict) -> dict:
    """What one seed's prior draws and completes, beside reconstructions and real images."""
    from bench.image_features import classify

    import vqkit
    from vqkit.apps.generate import generate
    from vqkit.prior.prior import Drawing

    model = vqkit.load(work / f"{SOURCE}-{seed}")
    count = settings["samples"]
    judge, accuracy = classifier(settings["classifier"])
    classes = model.wanted_prior().classes
    samples = model.signal.to_array(
        generate(model, count, drawing=Drawing(classes, seed=seed)).values, model.data
    )
    real = labelled_images()
    found = {
        "kid_samples": distance(samples, work, count),
        "kid_reconstructions": distance(model.reconstruct(real["test"][0][:count]), work, count),
        "kid_real": distance(real["train"][0][:count], work, count),
        "class_agreement": float(
            (classify(judge, samples) == np.arange(count) % len(classes)).mean()
        ),
        "classifier_accuracy": accuracy,
    }
    return found | completed(model, judge, real["test"], seed, settings["inpainted"])


def completed(model, judge, real: tuple[np.ndarray, np.ndarray], seed: int, count: int) -> dict:
    """Class of test images whose lower half was drawn anew, and pixels of the upper half that
    changed.
    """
    import torch
    from bench.image_features import classify

    from vqkit.apps.inpaint import inpaint
    from vqkit.prior.prior import Drawing

    images, labels = (part[:count] for part in real)
    mask = np.zeros(images.shape[1:3], dtype=bool)
    mask[mask.shape[0] // 2 :] = True
    hidden = torch.from_numpy(mask)
    drawn = np.concatenate(
        [
            model.signal.to_array(
                inpaint(model, one, hidden, drawing=Drawing(seed=seed + index), blend=0).values,
                model.data,
            )
            for index, one in enumerate(values_of(images))
        ]
    )
    blank = np.where(mask[..., None], np.uint8(0), images)
    return {
        "class_kept": float((classify(judge, drawn) == labels).mean()),
        "class_of_half": float((classify(judge, blank) == labels).mean()),
        "known_pixels_changed": int((drawn != images)[:, ~mask].sum()),
    }


def main() -> None:
    arguments = PARSER.parse_args()
    if arguments.quick:
        shorten_fashion_mnist()
    settings, count = (QUICK, 1) if arguments.quick else (FULL, 3)
    seeds = [arguments.seed + index for index in range(count)]
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for seed in seeds:
            train(work / f"{SOURCE}-{seed}", seed, settings["minutes"], arguments.quick)
        distance(labelled_images()["test"][0][: settings["samples"]], work, settings["samples"])
        beside = peers(work, seeds, settings)
        rows = [
            kept(work / f"quality-{seed}.json", lambda seed=seed: quality(work, seed, settings))
            for seed in seeds
        ]
        report(claims(work, seeds, rows, beside), arguments)


def claims(
    work: Path, seeds: list[int], rows: list[dict], beside: dict[str, list[dict]]
) -> list[Claim]:
    import vqkit

    priors = [vqkit.load(work / f"{SOURCE}-{seed}").wanted_prior().metrics for seed in seeds]
    ours = [(1 - figures["saving_vs_order0"]) * figures["order0_bits"] for figures in priors]
    ahead = [
        row["bits_per_code"] - mine for row, mine in zip(beside["pixelcnn"], ours, strict=True)
    ]
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    where = {**machine(), "seeds": seeds, "cores_of_training": os.cpu_count()}

    def claim(
        name: str, values: list[float], unit: str, goal: str, peer: str | None = None, **more
    ) -> Claim:
        spread = stdev(values) if len(values) > 1 else None
        return Claim(
            name,
            mean(values),
            unit,
            goal,
            peer,
            {**where, "values": values, "stdev": spread, **more},
        )

    saving = [100 * figures["saving_vs_order0"] for figures in priors]
    found = [
        claim("prior_saving_vs_order0", saving, "%", ">= 47", "order 0", priors=priors),
        claim(
            "prior_vs_pixelcnn_bits",
            ahead,
            "bits",
            "> 0",
            "Gated PixelCNN",
            rows=beside["pixelcnn"],
        ),
        claim("kid_lite0_samples", columns["kid_samples"], "", "below both of pythae", "pythae"),
        claim("kid_lite0_reconstructions", columns["kid_reconstructions"], "", "reported"),
        claim("kid_lite0_real", columns["kid_real"], "", "reported"),
        claim(
            "class_agreement",
            [100 * value for value in columns["class_agreement"]],
            "%",
            ">= 85",
            accuracy=columns["classifier_accuracy"],
        ),
        claim(
            "inpaint_class_kept",
            [100 * value for value in columns["class_kept"]],
            "%",
            ">= 75",
            half=columns["class_of_half"],
        ),
        claim("inpaint_known_pixels_changed", columns["known_pixels_changed"], "pixels", "0"),
    ]
    for name in ("pythae_vqvae", "pythae_vae"):
        kids = [row["kid"] for row in beside[name]]
        found.append(
            claim(f"kid_lite0_{name}", kids, "", "above ours", "pythae", rows=beside[name])
        )
    return found


if __name__ == "__main__":
    main()
