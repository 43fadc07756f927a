"""Claim variational_psnr_minus_vq_db, and the experiment behind it: what each term of the model is
good for.

    python benchmarks/variational.py [--quick] [--seed 0] [--json FILE]

Autoencoder, VAE, beta-VAE, plain quantizers, and the variational feature-transform model with its
terms on and off, on Fashion-MNIST (441 bits) and the built-in emoji (576 bits), 200 steps of 48
images, patch network of 2+2 blocks, three seeds from --seed on. Of every run, on the test images:
PSNR, usage, entropy of the codes over log2 K, PSNR of training images minus that of test images,
Frechet distance (64 principal components of the pixels) of images made from uniform random codes
(standard normal latents where there are no codes), and the PSNR lost to Gaussian noise on the input
(deviation 0.1 of the range) and to 1 % of the codes replaced by random ones. Two runs at a time,
one core each.
"""

from __future__ import annotations

from statistics import mean, stdev

from bench.claims import Claim, machine, options, report
from bench.frechet import frechet
from bench.image_sets import arrays
from bench.short_runs import fit, in_parallel

PARSER = options(__doc__)

STEPS = 200
VQ = ["kind=vq", "decay=0.98", "revive_threshold=0.1"]
FSQ = ["kind=fsq"]
BINS = ["kind=gaussian_codebook"]
ON = ["model.variational=true", "losses.kl=0.01"]
MLP = ["model.transform.kind=mlp"]
LINEAR = ["model.transform.kind=linear"]
PULL = ["losses.transform=1"]


def quantizer(settings: list[str]) -> list[str]:
    return [f"model.quantizer.{setting}" for setting in settings]


CONTENDERS: dict[str, list[str]] = {
    "autoencoder": quantizer(["kind=none", "code_dim=16"]),
    "vae": [*quantizer(["kind=none", "code_dim=16"]), "model.variational=true", "losses.kl=0.1"],
    "beta-vae": [*quantizer(["kind=none", "code_dim=16"]), "model.variational=true", "losses.kl=1"],
    "vq": quantizer(VQ),
    "vq + pull": [*quantizer(VQ), *PULL],
    "vq + kl": [*quantizer(VQ), *ON],
    "vq + kl + transform + pull": [*quantizer(VQ), *ON, *MLP, *PULL],
    "fsq": quantizer(FSQ),
    "fsq + kl + transform + pull": [*quantizer(FSQ), *ON, *MLP, *PULL],
    "bins": quantizer(BINS),
    "bins + transform": [*quantizer(BINS), *MLP],
    "bins + linear": [*quantizer(BINS), *LINEAR],
    "bins + pull": [*quantizer(BINS), *PULL],
    "bins + kl": [*quantizer(BINS), *ON],
    "bins + kl + transform + pull": [*quantizer(BINS), *ON, *MLP, *PULL],
}


def run(job: tuple[str, str, int, int]) -> dict:
    """Train one contender; all its figures on the test images."""
    import torch

    from vqkit.apps.evaluate import evaluate

    source, name, seed, steps = job
    model, _, data = fit(source, CONTENDERS[name], seed, steps)
    found = evaluate(model, data).metrics
    chosen = data.splits["test"][:2000]
    test = data.read(chosen).values
    train = data.read(data.splits["train"][: len(chosen)]).values
    noise = torch.Generator().manual_seed(seed)
    noisy = (
        (test + 25.5 * torch.randn(test.shape, generator=noise))
        .round()
        .clamp(0, 255)
        .to(torch.uint8)
    )
    clean = decibel(model, test, test)
    row = {
        "source": source,
        "name": name,
        "seed": seed,
        "psnr": found["psnr"],
        "usage": found["usage"],
        "entropy": found["code_entropy"],
        "bits": found["bits_per_item"],
        "gap": decibel(model, train, train) - clean,
        "noise_loss": clean - decibel(model, noisy, test),
        "flip_loss": None if found["usage"] is None else clean - flipped(model, test, noise),
        "sample_distance": frechet(model.sample(len(chosen), seed), arrays(data, chosen)),
    }
    print(
        " ".join(
            f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()
        ),
        flush=True,
    )
    return row


def decibel(model, images, targets) -> float:
    """Mean PSNR of reconstructions of `images` against `targets`, uint8 (B, C, H, W)."""
    from vqkit.signals.image.measures import psnr

    return float(psnr(model.tokenizer.reconstruct(images), targets).mean())


def flipped(model, images, generator) -> float:
    """PSNR with one code in a hundred replaced by a uniform random one."""
    import torch

    from vqkit.signals.image.measures import psnr

    codes = model.tokenizer.encode(images)
    hit = torch.rand(codes.shape, generator=generator) < 0.01
    codes = torch.where(
        hit,
        torch.randint(model.network.quantizer.codebook_size, codes.shape, generator=generator),
        codes,
    )
    return float(psnr(model.tokenizer.decode(codes, images.shape[2:]), images).mean())


def main() -> None:
    arguments = PARSER.parse_args()
    steps, seeds, sources = (
        (10, 1, ["emoji"]) if arguments.quick else (STEPS, 3, ["fashion-mnist", "emoji"])
    )
    jobs = [
        (source, name, arguments.seed + index, steps)
        for source in sources
        for name in CONTENDERS
        for index in range(seeds)
    ]
    rows = in_parallel(run, jobs)
    keys = ("psnr", "usage", "entropy", "gap", "sample_distance", "noise_loss", "flip_loss")
    for source in sources:
        print(f"\n{source}: {' | '.join(('', *keys))}")
        for name in CONTENDERS:
            mine = [row for row in rows if row["source"] == source and row["name"] == name]
            cells = [
                "-" if mine[0][key] is None else f"{mean(row[key] for row in mine):.3f}"
                for key in keys
            ]
            print(f"{name:<30} {' | '.join(cells)}")
    pairs = {
        name: [row["psnr"] for row in rows if row["name"] == name and row["source"] == sources[0]]
        for name in ("vq", "vq + kl + transform + pull")
    }
    difference = [
        ours - plain
        for ours, plain in zip(pairs["vq + kl + transform + pull"], pairs["vq"], strict=True)
    ]
    settings = {
        **machine(),
        "steps": steps,
        "stdev": stdev(difference) if seeds > 1 else None,
        "rows": rows,
    }
    report(
        [Claim("variational_psnr_minus_vq_db", mean(difference), "dB", "reported", "vq", settings)],
        arguments,
    )


if __name__ == "__main__":
    main()
