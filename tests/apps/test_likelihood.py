"""Bounds in bits per dimension of trained models, against their parts computed another way."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

import vqkit
from vqkit import config
from vqkit.apps.evaluate import likelihood
from vqkit.artifact.model import Model
from vqkit.artifact.store import save_artifact
from vqkit.errors import VqkitError
from vqkit.settings import Config

from ..conftest import TINY
from ..training.runs import fitted, without_codebook

MIXTURE = ["losses.distortion=logistic_mixture", "losses.num_mixtures=3"]
VQ = ["emoji", *TINY, *MIXTURE]
VAE = ["vae", *without_codebook(TINY), *MIXTURE, "model.quantizer.code_dim=4"]


@pytest.fixture(scope="module")
def trained(emoji, tmp_path_factory):
    """Settings -> a model after forty steps."""

    def make(recipe, *settings) -> Model:
        return fitted(
            emoji, config.load(recipe, [*settings], Config), tmp_path_factory.mktemp("run")
        )

    return make


@pytest.fixture(scope="module")
def vq(trained) -> Model:
    return trained(*VQ)


@pytest.fixture(scope="module")
def vae(trained) -> Model:
    return trained(*VAE)


def bits_by_hand(trained, quantized, images) -> np.ndarray:
    """-log2 of the mixture's mass in every pixel's bin, by its distribution function in float64;
    bits per image.
    """
    model, std = (
        trained.network,
        torch.tensor(trained.artifact.normalisation.std).double().view(-1, 1, 1, 1),
    )
    parts = (
        model.decoder(model.transform.inverse(quantized)).double().unflatten(1, (3, 3, 3))
    )  # (B, C, 3, M, H, W)
    shares, centres = torch.softmax(parts[:, :, 0], 2), parts[:, :, 1] * std
    centres = centres + torch.tensor([1 / 6, 3 / 6, 5 / 6]).double().view(-1, 1, 1)
    floor = torch.log(0.05 / (255 * std))
    raw = parts[:, :, 2] + math.log(0.1 * math.sqrt(3) / math.pi)
    scales = std * (floor + torch.nn.functional.softplus(raw - floor)).exp()
    value = images.double().unsqueeze(2)
    low = torch.where(value == 0, -math.inf, ((value - 0.5) / 255 - centres) / scales)
    high = torch.where(value == 255, math.inf, ((value + 0.5) / 255 - centres) / scales)
    flip = low > 0  # differences of small numbers, not of ones
    mass = torch.where(
        flip, torch.sigmoid(-low) - torch.sigmoid(-high), torch.sigmoid(high) - torch.sigmoid(low)
    )
    return -(shares * mass).sum(2).log2().flatten(1).sum(1).numpy()


@torch.no_grad()
def test_bound_of_a_discrete_model_is_code_bits_and_pixel_bits(vq, emoji):
    found, images = likelihood(vq, emoji), emoji.read(emoji.splits["test"]).values
    count = len(images)
    assert found.bits_per_dim.shape == found.pixel_bits.shape == found.code_bits.shape == (count,)
    assert (
        np.array_equal(found.code_bits, np.full(count, 8 * 8 * 6.0)) and found.kl_bits is None
    )  # 64 codes, 8x8
    assert np.allclose(
        found.bits_per_dim * 32 * 32 * 3, found.code_bits + found.pixel_bits, rtol=1e-12
    )
    codes = vq.encode(images.permute(0, 2, 3, 1).contiguous())
    assert np.allclose(
        found.pixel_bits, bits_by_hand(vq, vq.network.quantizer.decode(codes), images), rtol=1e-4
    )
    means = {key: getattr(found, key).mean() for key in ("bits_per_dim", "code_bits", "pixel_bits")}
    assert found.metrics == pytest.approx(
        {"split": "test", "items": count, "prior": "uniform", **means}
    )
    assert 0 < found.metrics["bits_per_dim"] < 8  # below bytes as they are


@torch.no_grad()
def test_bound_of_a_variational_model_is_kl_and_the_pixels_of_one_draw(vae, emoji):
    found = likelihood(vae, emoji, seed=3)
    generator = torch.Generator().manual_seed(3)
    kl, pixels = [], []
    for images in (batch.values for batch in emoji.split("test", 128)):
        mean, log_var = vae.network.encoder(vae.tokenizer.standardise(images)).chunk(2, dim=1)
        posterior = Normal(mean.double(), (0.5 * log_var.double()).exp())
        kl.append(
            kl_divergence(posterior, Normal(0.0, 1.0)).flatten(1).sum(1).numpy() / math.log(2)
        )
        noise = torch.randn(mean.shape, generator=generator)
        pixels.append(bits_by_hand(vae, mean + (0.5 * log_var).exp() * noise, images))
    assert np.allclose(found.kl_bits, np.concatenate(kl), rtol=1e-5) and found.code_bits is None
    assert np.allclose(found.pixel_bits, np.concatenate(pixels), rtol=1e-4)
    assert np.allclose(
        found.bits_per_dim * 32 * 32 * 3, found.kl_bits + found.pixel_bits, rtol=1e-12
    )
    assert found.metrics["prior"] == "normal" and found.metrics["kl_bits"] == pytest.approx(
        found.kl_bits.mean()
    )


def test_one_seed_one_bound(vae, emoji):
    found = [likelihood(vae, emoji, seed=seed) for seed in (3, 3, 4)]
    assert np.array_equal(found[0].bits_per_dim, found[1].bits_per_dim)
    assert not np.array_equal(found[0].bits_per_dim, found[2].bits_per_dim)
    assert found[0].metrics["bits_per_dim"] == pytest.approx(
        found[2].metrics["bits_per_dim"], rel=0.02
    )


class Histogram:
    """A prior that draws every code from how often each occurs, whatever the others are."""

    def __init__(self, codes: torch.Tensor) -> None:
        self.shares = (torch.bincount(codes.flatten(), minlength=64) + 1).double()
        self.shares /= self.shares.sum()

    def to(self, device: torch.device) -> "Histogram":
        return self

    def bits(self, codes: torch.Tensor) -> torch.Tensor:
        return -self.shares[codes].log2().flatten(1).sum(1)


def test_a_prior_says_what_codes_cost(vq, emoji):
    codes = vq.encode(emoji.read(emoji.splits["test"]).values.permute(0, 2, 3, 1).contiguous())
    prior = Histogram(codes)
    plain, found = (
        likelihood(vq, emoji),
        likelihood(Model(dataclasses.replace(vq.artifact, prior=prior)), emoji),
    )
    assert np.allclose(found.code_bits, prior.bits(codes).numpy(), rtol=1e-12)
    assert (
        np.array_equal(found.pixel_bits, plain.pixel_bits) and found.metrics["prior"] == "learned"
    )
    saved = plain.metrics["code_bits"] - found.metrics["code_bits"]
    assert saved > 0
    assert plain.metrics["bits_per_dim"] - found.metrics["bits_per_dim"] == pytest.approx(
        saved / (32 * 32 * 3)
    )


def test_codes_of_the_mean_bound_a_variational_model_with_codes(trained, emoji):
    model = trained(*VQ, "model.variational=true", "losses.kl=0.01")
    found = likelihood(model, emoji)
    codes = model.encode(emoji.read(emoji.splits["test"]).values.permute(0, 2, 3, 1).contiguous())
    images = emoji.read(emoji.splits["test"]).values
    with torch.no_grad():
        expected = bits_by_hand(model, model.network.quantizer.decode(codes), images)
    assert np.allclose(found.pixel_bits, expected, rtol=1e-4)
    assert found.metrics["code_bits"] == 8 * 8 * 6 and found.kl_bits is None


def test_the_older_logistic_has_a_bound_too_and_a_higher_one(trained, vq, emoji):
    model = trained("emoji", *TINY, "losses.distortion=logistic")
    assert (
        likelihood(model, emoji).metrics["bits_per_dim"]
        > likelihood(vq, emoji).metrics["bits_per_dim"]
    )


def test_saved_and_loaded_gives_the_same_bound(vq, emoji, tmp_path):
    """The edges of the bins follow from the normalisation, which is not among the weights."""
    save_artifact(vq.artifact, tmp_path)
    assert np.array_equal(
        likelihood(vqkit.load(tmp_path), emoji).pixel_bits, likelihood(vq, emoji).pixel_bits
    )


def test_all_is_every_image_but_those_that_chose(vq, emoji):
    shares = []
    found = likelihood(vq, emoji, "all", shares.append)
    assert len(found.bits_per_dim) == len(emoji.splits["train"]) + len(emoji.splits["test"])
    assert shares[-1] == 1.0 and shares == sorted(shares)


def test_models_without_a_likelihood_say_what_to_do(model, vq, trained, emoji):
    with pytest.raises(
        VqkitError, match="log_mse gives values no probability.*distortion=logistic_mixture"
    ):
        likelihood(model, emoji)
    for settings in (["model.variational=false"], ["losses.kl=0"]):
        with pytest.raises(VqkitError, match="plain autoencoder .* model.variational=true"):
            likelihood(trained(*VAE, *settings, "train.steps=2"), emoji)
    kept = emoji.splits["test"]
    emoji.splits["test"] = kept[:0]
    try:
        with pytest.raises(VqkitError, match="test split of emoji is empty"):
            likelihood(vq, emoji)
    finally:
        emoji.splits["test"] = kept
