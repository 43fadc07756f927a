"""Sampled latents: moments, divergence, and that eval is the mean."""

import math

import pytest
import torch

from vqkit.config import LossConfig, NoneConfig
from vqkit.model import gaussian
from vqkit.settings import ModelConfig
from vqkit.signals.image.config import PatchConfig

from ..untrained import autoencoder

NETWORK = PatchConfig(width=16, encoder_blocks=1, decoder_blocks=1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(**losses):
    torch.manual_seed(0)
    config = ModelConfig(network=NETWORK, quantizer=NoneConfig(code_dim=6), variational=True)
    return autoencoder(config, losses=LossConfig(**losses))


def test_kl_is_that_of_torch_distributions():
    mean, log_var = gaussian.mean_and_log_variance(torch.randn(5, 8, 3, 3, generator=generator(4)))
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_var).exp()),
        torch.distributions.Normal(0.0, 1.0),
    )
    assert float(gaussian.kl(mean, log_var)) == pytest.approx(
        float(reference.sum((1, 2, 3)).mean()), rel=1e-5
    )


def test_samples_have_the_predicted_moments():
    mean, log_var = torch.full((1, 1, 200000), 2.0), torch.full((1, 1, 200000), math.log(0.25))
    sample = gaussian.sample(mean, log_var, generator())
    assert float(sample.mean()) == pytest.approx(2.0, abs=0.01)
    assert float(sample.std()) == pytest.approx(0.5, abs=0.01)


def test_gradients_pass_the_sample():
    mean, log_var = (
        torch.zeros(1, 1, 1000, requires_grad=True),
        torch.zeros(1, 1, 1000, requires_grad=True),
    )
    gaussian.sample(mean, log_var, generator()).square().sum().backward()
    assert float(mean.grad.abs().sum()) > 0 and float(log_var.grad.mean()) == pytest.approx(
        1.0, abs=0.1
    )


def test_extreme_variances_stay_finite():
    mean, log_var = gaussian.mean_and_log_variance(
        torch.tensor([[1e4], [1e4]]).view(1, 2, 1).repeat(1, 2, 1)
    )
    assert (
        torch.isfinite(gaussian.kl(mean, log_var))
        and torch.isfinite(gaussian.sample(mean, log_var)).all()
    )


def test_everything_is_float32_under_autocast():
    mean, log_var = gaussian.mean_and_log_variance(torch.randn(2, 4, 3).bfloat16())
    assert mean.dtype == log_var.dtype == gaussian.sample(mean, log_var).dtype == torch.float32


def test_training_samples_and_eval_takes_the_mean():
    model, x = build(), torch.randn(2, 3, 16, 16, generator=generator(1))
    with torch.no_grad():
        first, again, other = (model(x, generator(seed)).reconstruction for seed in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)
        model.eval()
        output, mean = model(x), model.encoder(x).chunk(2, dim=1)[0]
        assert torch.equal(model.latents(x), mean)
        assert torch.equal(output.reconstruction, model.decoder(mean))
        assert torch.equal(model.decode(model.encode(x), (16, 16)), output.reconstruction)


def test_kl_is_weighed_per_value_of_the_image():
    model, x = build(), torch.randn(2, 3, 16, 16)
    mean, log_var = gaussian.mean_and_log_variance(model.encoder(x))
    expected = float(gaussian.kl(mean, log_var).detach()) / (3 * 16 * 16)
    assert float(model(x).terms["kl"].detach()) == pytest.approx(expected, rel=1e-5)


def test_without_weight_there_is_no_variance():
    model = build(kl=0.0)
    plain = autoencoder(ModelConfig(network=NETWORK, quantizer=NoneConfig(code_dim=6)))
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    assert "kl" not in model(torch.randn(2, 3, 16, 16)).terms
