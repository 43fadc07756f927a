"""How good is a model on a set of images: distortion, use of the codebook, rate, likelihood, and what tells most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..artifact import Artifact
from ..data import ImageData, open_images, split_batches
from ..data.noise import gaussian as gaussian_noise
from ..errors import VqkitError
from ..metrics import code_counts, code_figures, psnr, ssim, to_pixels
from ..model import gaussian

BATCH_SIZE = 128
GALLERY = 48
RANKED = 8
SIGMAS = 15, 25, 50
"""deviations of noise, in levels of 0 to 255, that a denoiser is measured at"""
SHOWN_SIGMA, SHOWN_DENOISED = 25, 16
"""the one of them, and the number of images, that its report shows"""


@dataclass(frozen=True)
class Examples:
    """Images beside what the model makes of them: uint8 (N, H, W, C) twice, names and PSNR in dB, one each."""

    names: list[str]
    psnr: list[float]
    originals: np.ndarray
    reconstructions: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Figures of one split.

    metrics: psnr (dB, mean over images), ssim, usage (share of codes hit), perplexity, entropy_bits, code_entropy (its
    share of log2 K), bits_per_image, bpp, images, split; those of codes are None where there are none to count.
    code_counts: (K,) int64 for each codebook, or None. psnr_per_image: (N,). gallery: spread evenly over the split.
    denoised: of a denoiser, noisy images in place of the originals; its PSNR is to the clean ones.
    """

    metrics: dict[str, Any]
    code_counts: list[np.ndarray] | None
    psnr_per_image: np.ndarray
    gallery: Examples
    worst: Examples
    best: Examples
    denoised: Examples | None = None


@dataclass(frozen=True)
class Likelihoods:
    """An upper bound of -log2 p(image), nothing left out, for every image of a split: (N,) float64 each.

    bits_per_dim: all bits of an image over its number of values; pixel_bits: of the pixels given the codes; code_bits:
    of the codes under their prior, None for a model without codes, which has kl_bits instead: KL(q(z|x) || p(z)).
    metrics: the means of these, split, images, and prior: uniform, learned (of the codes) or normal (of z).
    """

    metrics: dict[str, Any]
    bits_per_dim: np.ndarray
    pixel_bits: np.ndarray
    code_bits: np.ndarray | None = None
    kl_bits: np.ndarray | None = None


def open_for(artifact: Artifact, source: str | Path, split: str) -> ImageData:
    """The images of `source` as the artifact was trained to see them: its size, channels, normalisation and splits."""
    shares = {"validation": 0.0, "test": 0.0} if split == "all" else {}
    settings = artifact.config.data.model_copy(
        update={"image_size": artifact.size, "channels": artifact.channels, **shares}
    )
    return open_images(source, settings, artifact.config.seed, artifact.normalisation, artifact.value_range)


@torch.no_grad()
def evaluate(
    artifact: Artifact, data: ImageData, split: str = "test", progress: Callable[[float], None] | None = None
) -> Evaluation:
    """Measure a model on a split of `data` (train, validation, test or all).

    Pixels are rounded to 8 bits before they are compared. `progress` is called with the share that is done.
    Errors: VqkitError when the split is empty.
    """
    quantizer = artifact.model.quantizer
    counts = torch.zeros(quantizer.num_codebooks, quantizer.codebook_size if quantizer.is_countable else 1).long()
    indices, distortions, similarities = [], [], []
    for chosen, images in _batches(data, split, progress):
        output = artifact.model(artifact.standardise(images))
        pixels = to_pixels(artifact.normalisation.undo(output.reconstruction))
        distortions.append(psnr(pixels, images))
        similarities.append(ssim(pixels, images))
        indices.append(chosen)
        if quantizer.is_countable:
            counts += code_counts(output.codes, quantizer.codebook_size)
    found = _collect(
        artifact, data, split, np.concatenate(indices), torch.cat(distortions), torch.cat(similarities), counts
    )
    if artifact.config.data.noise.sigma:
        found.metrics["denoised"], examples = _denoised(artifact, data, split)
        return replace(found, denoised=examples)
    return found


def _denoised(artifact: Artifact, data: ImageData, split: str) -> tuple[dict[str, dict[str, float]], Examples | None]:
    """PSNR in dB of images with Gaussian noise, before and after, on the first images of a split, and some of them."""
    generator, found, shown = torch.Generator().manual_seed(0), {}, None
    chosen, images = next(_batches(data, split, None))
    for sigma in SIGMAS:
        noisy = torch.stack([gaussian_noise(image, sigma, generator) for image in images])
        output = artifact.model(artifact.standardise(noisy)).reconstruction
        pixels = to_pixels(artifact.normalisation.undo(output))
        found[f"sigma {sigma}"] = {
            "noisy": float(psnr(noisy, images).mean()),
            "denoised": float(psnr(pixels, images).mean()),
        }
        if sigma == SHOWN_SIGMA:
            names = [str(data.names[index]) for index in chosen[:SHOWN_DENOISED]]
            pair = (batch[:SHOWN_DENOISED].permute(0, 2, 3, 1).contiguous().numpy() for batch in (noisy, pixels))
            shown = Examples(names, psnr(pixels, images)[:SHOWN_DENOISED].tolist(), *pair)
    return found, shown


@torch.no_grad()
def likelihood(
    artifact: Artifact,
    data: ImageData,
    split: str = "test",
    progress: Callable[[float], None] | None = None,
    seed: int = 0,
) -> Likelihoods:
    """Bits that a model needs for the images of a split (train, validation, test or all), the pixels exact.

    With codes: -log2 p(codes) - log2 p(image | codes), where p(codes) is the artifact's learned prior or else uniform;
    as codes are a function of the image, that is an upper bound of -log2 p(image) = -log2 sum_c p(c) p(image | c).
    Without, for variational models, the evidence lower bound with its sign turned (Kingma & Welling 2014, arXiv
    1312.6114, equation 3): KL in closed form, and the pixels given one draw of z ~ q(z|x) from a generator of `seed`.
    Errors: VqkitError for models that give images no probability, and when the split is empty.
    """
    _check_has_likelihood(artifact)
    model, prior = artifact.model, artifact.prior
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    latent_nats, pixel_nats = [], []
    for _, images in _batches(data, split, progress):
        x = artifact.standardise(images)
        if not model.quantizer.is_discrete:
            mean, log_var = model.posterior(x)
            assert log_var is not None  # checked above
            codes = model.quantizer.encode(model.transform(gaussian.sample(mean, log_var, generator)))
            rows = zip(mean.double().split(1), log_var.double().split(1), strict=True)
            latent_nats.append(torch.stack([gaussian.kl(*row) for row in rows]))
        else:
            codes = model.encode(x)
            uniform = torch.full((len(x),), model.bits_per_image(data.size), dtype=torch.float64)
            latent_nats.append((uniform if prior is None else prior.bits(codes).double()) * math.log(2))
        pixel_nats.append(model.nats(x, codes))
    latent_bits, pixel_bits = (torch.cat(nats).cpu().numpy() / math.log(2) for nats in (latent_nats, pixel_nats))
    bits_per_dim = (latent_bits + pixel_bits) / (data.channels * math.prod(data.size))
    name = "code_bits" if model.quantizer.is_discrete else "kl_bits"
    kind = "normal" if name == "kl_bits" else "uniform" if prior is None else "learned"
    found = {"bits_per_dim": bits_per_dim, "pixel_bits": pixel_bits, name: latent_bits}
    means = {key: float(values.mean()) for key, values in found.items()}
    return Likelihoods({"split": split, "images": len(pixel_bits), "prior": kind, **means}, **found)


def _check_has_likelihood(artifact: Artifact) -> None:
    distortion = artifact.config.losses.distortion
    if not artifact.model.likelihood.is_likelihood:
        raise VqkitError(
            f"losses.distortion={distortion} gives pixels no probability, so there is no likelihood to measure; "
            "train with losses.distortion=logistic_mixture"
        )
    if not artifact.model.quantizer.is_discrete and not artifact.model.is_sampled:
        raise VqkitError(
            "a plain autoencoder has no distribution over its latents, so there is no likelihood to measure; "
            "train with a quantizer, or with model.variational=true and losses.kl above 0"
        )


def _batches(
    data: ImageData, split: str, progress: Callable[[float], None] | None
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Indices and images (B, C, H, W) uint8 of a split. VqkitError when it is empty."""
    parts = ("train", "test") if split == "all" else (split,)
    total, done = sum(len(data.splits[part]) for part in parts), 0
    if total == 0:
        raise VqkitError(f"the {split} split of {data.name} is empty; choose another with --split")
    for part in parts:
        for chosen, images in split_batches(data, part, BATCH_SIZE):
            yield np.asarray(chosen), images
            done += len(chosen)
            if progress:
                progress(done / total)


def _collect(
    artifact: Artifact,
    data: ImageData,
    split: str,
    indices: np.ndarray,
    distortions: torch.Tensor,
    similarities: torch.Tensor,
    counts: torch.Tensor,
) -> Evaluation:
    quantizer, values = artifact.model.quantizer, distortions.numpy()
    bits = artifact.model.bits_per_image(data.size)
    counted = quantizer.per_codebook(counts) if quantizer.is_countable else []
    figures = code_figures(counted) if counted else {}
    metrics: dict[str, Any] = {
        "split": split,
        "images": len(values),
        "psnr": float(distortions.double().mean()),
        "ssim": float(similarities.double().mean()),
        **{key: figures.get(key) for key in ("usage", "perplexity", "code_entropy", "entropy_bits")},
        "bits_per_image": bits,
        "bpp": bits / math.prod(data.size),
    }
    order = np.argsort(values, kind="stable")
    spread = np.linspace(0, len(values) - 1, min(GALLERY, len(values))).round().astype(int)

    def examples(positions: np.ndarray) -> Examples:
        originals = data.read(indices[positions]).permute(0, 2, 3, 1).contiguous().numpy()
        names = [str(data.names[int(index)]) for index in indices[positions]]
        return Examples(names, values[positions].tolist(), originals, artifact.reconstruct(originals))

    return Evaluation(
        metrics,
        [row.numpy() for row in counted] or None,
        values,
        examples(spread),
        examples(order[:RANKED]),
        examples(order[::-1][:RANKED]),
    )
