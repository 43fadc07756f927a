"""How good is a model on a set of items: distortion, use of the codebook, rate, likelihood."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..artifact.model import Model
from ..data.dataset import Batch, Dataset
from ..errors import VqkitError
from ..metrics import code_counts, code_figures
from ..model import gaussian
from ..model.likelihood import SURE

BATCH_SIZE = 128
GALLERY = 48
RANKED = 8
# Noisy items that a denoiser's report shows.
SHOWN_DENOISED = 16


@dataclass(frozen=True)
class Examples:
    """Items beside what the model makes of them: values (N, C, *extent) twice, names and PSNR in
    dB, one each.
    """

    names: list[str]
    psnr: list[float]
    originals: Tensor
    reconstructions: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Figures of one split.

    metrics: those of the signal (psnr first; means over the items that have them), usage (share of
    codes hit), perplexity, entropy_bits, code_entropy (its share of log2 K), bits_per_item (of an
    item's codes one by one, see Bottleneck.bits), the signal's rate, items, split; None where no
    item has what is measured, and where there are no codes to count.
    code_counts: (K,) int64 for each codebook, or None.
    psnr_per_item: (N,). gallery: spread evenly over the split. denoised: of a denoiser, noisy items
    in place of the originals; its PSNR is to the clean ones.
    """

    metrics: dict[str, Any]
    code_counts: list[np.ndarray] | None
    psnr_per_item: np.ndarray
    gallery: Examples
    worst: Examples
    best: Examples
    denoised: Examples | None = None

    def _repr_html_(self) -> str:
        """The figures as a table, for notebooks."""
        rows = ""
        for name, value in self.metrics.items():
            if isinstance(value, (int, float, str)):
                shown = f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))
                head = f"<th style='text-align:left'>{html.escape(name)}</th>"
                rows += f"<tr>{head}<td>{shown}</td></tr>"
        return f"<table><caption>vqkit evaluation</caption>{rows}</table>"


@dataclass(frozen=True)
class Likelihoods:
    """An upper bound of -log2 p(item), nothing left out, for every item of a split: (N,) float64
    each.

    bits_per_dim: all bits of an item over its number of values; pixel_bits: of the values given the
    codes;
    code_bits: of the codes under their prior, None for a model without codes, which has kl_bits
    instead: KL(q(z|x) || p(z)). metrics: the means of these, split, items (how many), and prior:
    uniform, learned (of the codes) or normal (of z).
    """

    metrics: dict[str, Any]
    bits_per_dim: np.ndarray
    pixel_bits: np.ndarray
    code_bits: np.ndarray | None = None
    kl_bits: np.ndarray | None = None


def open_for(
    model: Model, source: str | Path, split: str, progress: Callable[[float], None] | None = None
) -> Any:
    """The items of `source` as the model was trained to see them: its shape, normalisation and
    splits.

    split: 'all' leaves everything in the training split. progress: called with the share that is
    done.
    """
    settings = model.signal.settings_of(model.config.data, model.shape)
    if split == "all":
        settings = settings.model_copy(update={"validation": 0.0, "test": 0.0})
    return model.signal.open(source, settings, model.config.seed, model.data, progress=progress)


@torch.no_grad()
def evaluate(
    model: Model,
    data: Dataset,
    split: str = "test",
    progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """Measure a model on a split of `data` (train, validation, test or all).

    Values are rounded as files hold them before they are compared. `progress` is called with the
    share that is done.
    Errors: VqkitError when the split is empty.
    """
    quantizer = model.network.quantizer
    counts: Tensor | None = None
    if quantizer.is_countable:
        size = (quantizer.num_codebooks, quantizer.codebook_size)
        counts = torch.zeros(size, dtype=torch.long)
    ids: list[np.ndarray] = []
    parts: dict[str, list[Tensor]] = {}
    bits: list[Tensor] = []
    for batch in _batches(data, split, progress):
        mask = None if batch.counted is None else batch.counted.to(model.device)
        output = model.network(model.tokenizer.standardise(batch.values), mask=mask)
        values = model.tokenizer.restore(output.reconstruction)
        measures = model.signal.evaluation_measures(
            values, batch.values, batch.counted, model.artifact.data
        )
        for name, part in measures.items():
            parts.setdefault(name, []).append(part)
        ids.append(batch.ids)
        bits.append(quantizer.bits(output.codes))
        if counts is not None:
            counts += code_counts(output.codes.cpu(), quantizer.codebook_size)
    measured = {name: torch.cat(of_batches) for name, of_batches in parts.items()}
    per_item = float(torch.cat(bits).mean())
    evaluation = _collect(model, data, split, np.concatenate(ids), measured, counts, per_item)
    denoised = _denoised(model, data, split)
    if denoised is None:
        return evaluation
    evaluation.metrics["denoised"], examples = denoised
    return replace(evaluation, denoised=examples)


def _denoised(
    model: Model, data: Dataset, split: str
) -> tuple[dict[str, dict[str, float]], Examples | None] | None:
    """PSNR in dB of the first items of a split with noise, before and after, and some of them.

    None for a model that never saw noise.
    """
    batch = next(_batches(data, split, None))
    levels = model.signal.noise_levels(model.config.data, batch.values)
    if not levels:
        return None
    mask = None if batch.mask is None else batch.mask.to(model.device)
    figures: dict[str, dict[str, float]] = {}
    shown = None
    for number, (name, noisy) in enumerate(levels.items()):
        x = model.tokenizer.standardise(noisy)
        if model.signal.has_symbols:
            latents = model.network.quantizer.decode(model.network.encode(x, mask))
            output = model.network.repaired(x, latents, SURE)
        else:
            output = model.network(x, mask=mask).reconstruction
        values = model.tokenizer.restore(output)
        quality = model.signal.quality
        before = model.signal.measures(noisy, batch.values, batch.mask)[quality]
        after = model.signal.measures(values, batch.values, batch.mask)[quality]
        figures[name] = {"noisy": float(before.mean()), "denoised": float(after.mean())}
        # The level in the middle is shown.
        if number == len(levels) // 2:
            names = [str(data.names[index]) for index in batch.ids[:SHOWN_DENOISED]]
            kept = slice(SHOWN_DENOISED)
            shown = Examples(names, after[kept].tolist(), noisy[kept], values[kept])
    return figures, shown


@torch.no_grad()
def likelihood(
    model: Model,
    data: Dataset,
    split: str = "test",
    progress: Callable[[float], None] | None = None,
    seed: int = 0,
) -> Likelihoods:
    """Bits that a model needs for the items of a split (train, validation, test or all), the values
    exact.

    With codes: -log2 p(codes) - log2 p(item | codes), where p(codes) is the model's learned prior
    or else uniform; as codes are a function of the item, that is an upper bound of -log2 p(item) =
    -log2 sum_c p(c) p(item | c). Without, for variational models, the evidence lower bound with its
    sign turned (Kingma & Welling 2014, arXiv 1312.6114, equation 3): KL in closed form, and the
    values given one draw of z ~ q(z|x) from a generator of `seed`. Errors: VqkitError for models
    that give items no probability, and when the split is empty.
    """
    _check_has_likelihood(model)
    network = model.network
    generator = torch.Generator(model.device).manual_seed(seed)
    latent_nats = []
    value_nats = []
    for batch in _batches(data, split, progress):
        x = model.tokenizer.standardise(batch.values)
        if network.quantizer.is_discrete:
            codes = network.encode(x)
            latent_nats.append(_code_nats(model, codes.cpu()))
        else:
            mean, log_var = network.posterior(x)
            assert log_var is not None, "checked above"
            z = gaussian.sample(mean, log_var, generator)
            codes = network.quantizer.encode(network.transform(z))
            # Of each item by itself: `kl` gives the mean over a batch.
            each = map(gaussian.kl, mean.double().split(1), log_var.double().split(1))
            latent_nats.append(torch.stack(list(each)).cpu())
        value_nats.append(network.nats(x, codes).cpu())
    latent_bits = torch.cat(latent_nats).numpy() / math.log(2)
    value_bits = torch.cat(value_nats).numpy() / math.log(2)
    bits_per_dim = (latent_bits + value_bits) / data.shape.num_values
    if not network.quantizer.is_discrete:
        name = "kl_bits"
        prior = "normal"
    else:
        name = "code_bits"
        prior = "uniform" if model.prior is None else "learned"
    bits = {"bits_per_dim": bits_per_dim, "pixel_bits": value_bits, name: latent_bits}
    metrics = {"split": split, "items": len(value_bits), "prior": prior}
    metrics |= {key: float(values.mean()) for key, values in bits.items()}
    return Likelihoods(metrics, **bits)


def _code_nats(model: Model, codes: Tensor) -> Tensor:
    """Nats (B,) float64 of codes (B, Q, *grid) under the learned prior, or a uniform one."""
    if model.prior is None:
        num_bits = model.network.num_bits(model.shape.extent)
        bits = torch.full((len(codes),), num_bits, dtype=torch.float64)
    else:
        bits = model.prior.bits(codes).double()
    return bits * math.log(2)


def _check_has_likelihood(model: Model) -> None:
    distortion = model.config.losses.distortion
    if not model.network.likelihood.is_likelihood:
        raise VqkitError(
            f"losses.distortion={distortion} gives values no probability, so there is no "
            "likelihood to measure; train with losses.distortion=logistic_mixture"
        )
    if not model.network.quantizer.is_discrete and not model.network.is_sampled:
        raise VqkitError(
            "a plain autoencoder has no distribution over its latents, so there is no likelihood "
            "to measure; train with a quantizer, or with model.variational=true and losses.kl "
            "above 0"
        )


def _batches(
    data: Dataset, split: str, progress: Callable[[float], None] | None
) -> Iterator[Batch]:
    """The items of a split. VqkitError when it is empty."""
    parts = ("train", "test") if split == "all" else (split,)
    total = sum(len(data.splits[part]) for part in parts)
    done = 0
    if total == 0:
        raise VqkitError(f"the {split} split of {data.name} is empty; choose another with --split")
    for part in parts:
        for batch in data.split(part, BATCH_SIZE):
            yield batch
            done += len(batch.ids)
            if progress:
                progress(done / total)


def _collect(
    model: Model,
    data: Dataset,
    split: str,
    ids: np.ndarray,
    measured: dict[str, Tensor],
    counts: Tensor | None,
    bits: float,
) -> Evaluation:
    values = measured[model.signal.quality].numpy()
    rate_name, divisor = model.signal.rate_per(data.shape.extent, model.artifact.data)
    by_codebook: list[Tensor] = []
    figures: dict[str, float] = {}
    if counts is not None:
        by_codebook = model.network.quantizer.per_codebook(counts)
        figures = code_figures(by_codebook)
    metrics: dict[str, Any] = {"split": split, "items": len(values)}
    for name, each in measured.items():
        mean = float(each.double().nanmean())
        metrics[name] = None if math.isnan(mean) else mean
    for name in ("usage", "perplexity", "code_entropy", "entropy_bits"):
        metrics[name] = figures.get(name)
    metrics["bits_per_item"] = bits
    metrics[rate_name] = bits / divisor
    order = np.argsort(values, kind="stable")
    spread = np.linspace(0, len(values) - 1, min(GALLERY, len(values))).round().astype(int)

    def examples(positions: np.ndarray) -> Examples:
        chosen = ids[positions]
        batch = data.read(chosen)
        names = [str(data.names[int(index)]) for index in chosen]
        codes = model.tokenizer.encode(batch.values, batch.mask)
        shown = model.tokenizer.decode(codes, batch.values.shape[2:])
        if batch.mask is not None:
            shown = shown.where(batch.mask[:, None], batch.values)
        return Examples(names, values[positions].tolist(), batch.values, shown)

    return Evaluation(
        metrics,
        [row.numpy() for row in by_codebook] or None,
        values,
        examples(spread),
        examples(order[:RANKED]),
        examples(order[::-1][:RANKED]),
    )
