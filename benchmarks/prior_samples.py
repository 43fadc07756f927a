"""Images: what uniform random codes decode to, and the classic fully connected model.

    python benchmarks/prior_samples.py [--quick] [--seed 0] [--json FILE]

Fashion-MNIST. docs/figures/prior-samples.png: 16 images of uniform random codes (normal latents for
the VAE) from a VAE, vq, the Gaussian codebook, and the variational model; no prior was learned.
docs/figures/variational-mlp.png: 16 test images over their reconstructions by a fully connected
variational model. Claims sample_distance_<name>: Frechet distance from 2,000 test images in 64
principal components of their pixels; smaller is better.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bench.claims import Claim, machine, options, report
from bench.frechet import frechet
from bench.image_sets import arrays, shorten_fashion_mnist
from bench.short_runs import fit_settings, in_parallel, short_settings
from PIL import Image

PARSER = options(__doc__)

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
STEPS = 500
MODELS = {
    "vae": [
        "model.quantizer.kind=none",
        "model.quantizer.code_dim=16",
        "model.variational=true",
        "losses.kl=1",
    ],
    "vq": [],
    "gaussian-codebook": ["model.quantizer.kind=gaussian_codebook", "losses.transform=1"],
    "variational": [
        "model.quantizer.kind=gaussian_codebook",
        "model.variational=true",
        "model.transform.kind=mlp",
        "model.transform.latent_dim=16",
        "losses.kl=0.01",
        "losses.transform=1",
    ],
    "variational-mlp": [],
}


def run(job: tuple[str, int, int]) -> dict:
    """Train one model; its samples, or originals over reconstructions, as rows of 16 images,
    uint8.
    """
    name, seed, steps = job
    mlp = name == "variational-mlp"
    if mlp:
        settings = variational_mlp(seed, steps)
    else:
        settings = short_settings("fashion-mnist", MODELS[name], seed, steps)
    model, _, data = fit_settings("fashion-mnist", settings)
    originals = arrays(data, data.splits["test"][:2000])
    if mlp:
        return {"name": name, "rows": [originals[:16], model.reconstruct(originals[:16])]}
    samples = model.sample(len(originals), seed)
    return {"name": name, "rows": [samples[:16]], "distance": frechet(samples, originals)}


def variational_mlp(seed: int, steps: int):
    """784-512-100 (mean and variance), map to 128, 16 codes, 512, 784.

    One position holds the whole image. A single code for it would be 9 bits, so its 128 channels
    are cut into 16 groups of 8 with 256 codes each: 128 bits an image.
    """
    from vqkit import config, settings
    from vqkit.signals.image.config import DataConfig, MLPConfig

    group = config.VQConfig(codebook_size=256, code_dim=8)
    return settings.Config(
        seed=seed,
        data=DataConfig(image_size=(28, 28), channels=1),
        model=settings.ModelConfig(
            network=MLPConfig(widths=(512,), grid=(1, 1)),
            quantizer=config.ProductConfig(num_groups=16, group=group),
            variational=True,
            transform=config.TransformConfig(kind="mlp", latent_dim=100, width=128),
        ),
        losses=config.LossConfig(
            kl=config.WeightConfig(peak=0.01, schedule="warmup"),
            transform=config.WeightConfig(peak=0.01, schedule="warmup", share=0.1),
        ),
        train=config.TrainConfig(steps=steps),
    )


def save(rows: list[np.ndarray], file: Path, scale: int = 2) -> None:
    """Rows of images (n, H, W, 1) as one PNG."""
    sheet = np.concatenate([np.concatenate(list(row[..., 0]), 1) for row in rows], 0)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.kron(sheet, np.ones((scale, scale), np.uint8))).save(file, optimize=True)


def main() -> None:
    arguments = PARSER.parse_args()
    if arguments.quick:
        shorten_fashion_mnist()
    steps = 10 if arguments.quick else STEPS
    found = in_parallel(run, [(name, arguments.seed, steps) for name in MODELS])
    if not arguments.quick:
        save([row for one in found[:-1] for row in one["rows"]], FIGURES / "prior-samples.png")
        save(found[-1]["rows"], FIGURES / "variational-mlp.png")
    claims = [
        Claim(
            f"sample_distance_{one['name'].replace('-', '_')}",
            one["distance"],
            "",
            "reported",
            "vq, vae",
            machine(),
        )
        for one in found[:-1]
    ]
    report(claims, arguments)


if __name__ == "__main__":
    main()
