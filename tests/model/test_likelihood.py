"""The mixture of discretised logistics, against sums over all 256 values and distribution functions
in float64.
"""

import math

import pytest
import torch

from vqkit.config import LossConfig, NoneConfig, VQConfig
from vqkit.data.normalisation import Normalisation
from vqkit.model.likelihood import Likelihood, LogisticMixture
from vqkit.settings import ModelConfig
from vqkit.signals.image.config import ConvConfig, MLPConfig, MultiscaleConfig, PatchConfig

from ..untrained import autoencoder

STD, MEAN = (0.35, 0.2), (0.28, 0.6)
NETWORKS = {
    "conv": ConvConfig(width=32, num_blocks=1),
    "patch": PatchConfig(width=16, encoder_blocks=1, decoder_blocks=1),
    "mlp": MLPConfig(widths=(64,), grid=(4, 4)),
    "multiscale": MultiscaleConfig(
        downsampling_factor=4, width=16, encoder_blocks=(1, 1), decoder_blocks=(1, 1)
    ),
}


def pixels(values: torch.Tensor) -> torch.Tensor:
    """0..255 (B, C, H, W) -> standardised."""
    std, mean = (torch.tensor(each).view(-1, 1, 1) for each in (STD, MEAN))
    return (values / 255 - mean) / std


def every_value() -> torch.Tensor:
    """(1, 2, 1, 256): every pixel of both channels has another value."""
    return torch.arange(256.0).expand(1, 2, 1, 256)


def outputs(log_scale: float, mixtures: int = 5, spread: float = 1.0) -> torch.Tensor:
    """Decoder output (1, 2 * 3 M, 1, 256), the same at all pixels."""
    torch.manual_seed(0)
    parts = spread * torch.randn(1, 2, 3, mixtures)
    parts[:, :, 2] += log_scale
    return parts.flatten(1)[:, :, None, None].expand(-1, -1, 1, 256)


def by_hand(decoder_output: torch.Tensor, mixtures: int) -> torch.Tensor:
    """Probabilities (2, 256) by differences of the mixture's distribution function, in float64."""
    table = torch.empty(2, 256, dtype=torch.float64)
    for channel in range(2):
        logits, means, raw = decoder_output[0, :, 0, 0].double().view(2, 3, mixtures)[channel]
        std, mean = STD[channel], MEAN[channel]
        # in units of pixels in [0, 1]: where training starts, and the soft floor of the scales
        start = torch.tensor(
            [((m + 0.5) / mixtures - mean) / std for m in range(mixtures)], dtype=torch.float64
        )
        centres = (means + start) * std + mean
        floor = math.log(0.05 / (255 * std))
        raw = raw + math.log(0.1 * math.sqrt(3) / math.pi)
        scales = (floor + torch.log1p(torch.exp(raw - floor))).exp() * std
        edges = (torch.arange(255, dtype=torch.float64) + 0.5) / 255
        below = (
            torch.softmax(logits, 0) / (1 + torch.exp(-(edges[:, None] - centres) / scales))
        ).sum(1)
        table[channel] = torch.diff(
            below, prepend=torch.zeros(1).double(), append=torch.ones(1).double()
        )
    return table


@pytest.mark.parametrize("log_scale", [-8.0, -2.0, 0.0, 4.0])
def test_probabilities_of_all_values_sum_to_one(log_scale):
    mixture = LogisticMixture(STD, MEAN, 5).double()
    nll = mixture.nll(outputs(log_scale).double(), pixels(every_value().double()))
    assert torch.allclose((-nll).exp().sum(3), torch.ones(1, 2, 1).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mixtures", [1, 5])
@pytest.mark.parametrize("log_scale", [-3.0, 0.0, 3.0])
def test_probabilities_are_differences_of_the_distribution_function(mixtures, log_scale):
    likelihood = Likelihood("logistic_mixture", STD, MEAN, mixtures)
    decoder_output = outputs(log_scale, mixtures)
    nll = likelihood.nll(decoder_output, pixels(every_value()))[0, :, 0]
    expected = by_hand(decoder_output, mixtures)
    sure = expected > 1e-9  # the reference cancels beyond, ours does not
    assert (sure.sum(1) >= 4).all()
    assert torch.allclose(nll.double()[sure], -expected[sure].log(), rtol=1e-4, atol=1e-4)
    nats = likelihood.nats(decoder_output, pixels(every_value()))
    assert float(nats) == pytest.approx(float(nll.double().sum()), rel=1e-6)
    assert float(likelihood(decoder_output, pixels(every_value()))) == pytest.approx(
        float(nats) / 512, rel=1e-5
    )


@pytest.mark.parametrize("log_scale", [-3.0, 0.0, 3.0])
def test_mean_is_that_of_the_distribution_over_256_values(log_scale):
    """Means far below black and above white count as black and white, as they do in the
    probabilities.
    """
    decoder_output = outputs(log_scale, spread=2.0)
    mean = Likelihood("logistic_mixture", STD, MEAN).mean(decoder_output)
    values = pixels(every_value().double())
    expected = (by_hand(decoder_output, 5) * values[0, :, 0]).sum(1)
    bin_width = 1 / (255 * min(STD))
    assert mean.shape == (1, 2, 1, 256)
    assert torch.allclose(mean[0, :, 0, 7].double(), expected, atol=0.5 * bin_width)
    assert (mean <= values.max(3, keepdim=True)[0]).all() and (
        mean >= values.min(3, keepdim=True)[0]
    ).all()


def test_finite_with_gradients_at_extremes():
    likelihood = Likelihood("logistic_mixture", STD, MEAN)
    target = pixels(every_value())
    for logit in (-1e4, 0.0, 1e4):
        for mean in (-1e5, 0.0, 1e5):
            for log_scale in (-1e4, -20.0, 0.0, 20.0, 1e4):
                parts = torch.zeros(1, 2, 3, 5, 1, 256)
                parts[:, :, 0, 0], parts[:, :, 1], parts[:, :, 2] = logit, mean, log_scale
                decoder_output = parts.flatten(1, 3).requires_grad_()
                (
                    likelihood(decoder_output, target) + likelihood.mean(decoder_output).sum()
                ).backward()
                assert torch.isfinite(likelihood(decoder_output, target))
                assert torch.isfinite(decoder_output.grad).all(), (logit, mean, log_scale)


def test_gradient_is_the_slope():
    likelihood = Likelihood("logistic_mixture", STD, MEAN, 3).double()
    target = pixels(torch.tensor([0.0, 1.0, 77.0, 254.0, 255.0]).double().expand(1, 2, 1, 5))
    decoder_output = outputs(-1.0, 3)[:, :, :, :5].double().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: likelihood.mixture.nll(x, target), decoder_output)
    assert torch.autograd.gradcheck(likelihood.mixture.mean, decoder_output)


def test_float32_whatever_autocast_does():
    likelihood, target = Likelihood("logistic_mixture", STD, MEAN), pixels(every_value())
    plain, mean = likelihood(outputs(0.0), target), likelihood.mean(outputs(0.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(likelihood(outputs(0.0), target), plain)
        assert torch.equal(likelihood.mean(outputs(0.0)), mean)


def test_logistic_bounds_its_own_mixture_of_one_from_above():
    """The older kind leaves the tails out at black and white, and only there."""
    logistic, mixture = (
        Likelihood("logistic", STD, MEAN),
        Likelihood("logistic_mixture", STD, MEAN, 1),
    )
    target = pixels(every_value())
    mean = torch.zeros(1, 2, 1, 256)
    start = mixture.mixture.start.view(1, 2, 1, 1)
    floor = torch.log(0.05 * mixture.mixture.bin_width).view(1, 2, 1, 1)
    raw = (
        torch.log(torch.expm1(logistic.log_scale - floor)) + floor - logistic.log_scale
    )  # undoes the soft floor
    parts = torch.stack([mean, mean - start, mean + raw], dim=2).flatten(1, 2)
    found, widened = logistic.nll(mean, target), mixture.nll(parts, target)
    assert torch.allclose(found[..., 1:-1], widened[..., 1:-1], rtol=1e-4)
    assert (found[..., [0, -1]] > widened[..., [0, -1]]).all()


def test_distances_have_no_nats_and_a_mixture_needs_the_mean():
    for kind in ("mse", "log_mse", "l1", "huber"):
        likelihood = Likelihood(kind, (1.0,))
        assert not likelihood.is_likelihood
        with pytest.raises(ValueError, match="no probability"):
            likelihood.nats(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="needs the mean"):
        Likelihood("logistic_mixture", (1.0,))


# -------------------------------------------------------------------------------- in an autoencoder


def build(network, quantizer, mixtures=5):
    torch.manual_seed(0)
    losses = LossConfig(distortion="logistic_mixture", num_mixtures=mixtures)
    return autoencoder(
        ModelConfig(network=network, quantizer=quantizer), (16, 16), 2, losses, STD, MEAN
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(16, 16), (5, 23)])
def test_every_network_gives_images_and_nats(name, size):
    model = build(NETWORKS[name], VQConfig(codebook_size=64, code_dim=8), mixtures=3).eval()
    x = pixels(torch.randint(0, 256, (3, 2, *size)).float())
    with torch.no_grad():
        output = model(x)
        codes = model.encode(x)
        assert output.reconstruction.shape == x.shape
        assert torch.equal(model.decode(codes, size), output.reconstruction)
        nats = model.nats(x, codes)
    assert nats.shape == (3,) and nats.dtype == torch.float64
    assert float(output.terms["reconstruction"]) == pytest.approx(
        float(nats.mean()) / x[0].numel(), rel=1e-5
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_one_batch_of_real_pictures_is_learnt_by_heart(name, emoji):
    """From step one on: nats fall below those of the pixels' own histogram, and the mean is a good
    image.
    """
    model = build(NETWORKS[name], NoneConfig(code_dim=8))
    values = emoji.read(emoji.splits["train"][:8]).values[:, :2, 8:24, 8:24]
    x = pixels(values.float())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    curve = []
    for _ in range(300):
        loss = model(x).terms["reconstruction"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(float(loss.detach()))
    counts = [
        torch.bincount(values[:, channel].flatten().int(), minlength=256) for channel in range(2)
    ]
    entropy = (
        float(sum(-torch.xlogy(count / count.sum(), count / count.sum()).sum() for count in counts))
        / 2
    )
    with torch.no_grad():
        output = model.eval()(x)
    assert max(curve) < 3 * curve[0] and curve[-1] < entropy, (
        curve[0],
        max(curve),
        curve[-1],
        entropy,
    )
    assert float((output.reconstruction - x).square().mean()) < 0.2 * float(
        x.var()
    )  # outliers are not chased


# -------------------------------------------------------------------------------------- categorical


def test_categorical_costs_the_log_of_the_share_that_a_value_has():
    torch.manual_seed(0)
    likelihood = Likelihood("categorical", (0.3, 0.2), (0.5, 0.4), dims=1)
    assert likelihood.outputs_per_channel == 256 and likelihood.is_likelihood
    levels = torch.randint(256, (3, 2, 5))
    target = (levels / 255 - torch.tensor([0.5, 0.4]).view(1, 2, 1)) / torch.tensor(
        [0.3, 0.2]
    ).view(1, 2, 1)
    logits = torch.randn(3, 2 * 256, 5)
    wanted = torch.zeros(3, 2, 5, dtype=torch.float64)
    for place in torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(5)).tolist():
        item, channel, at = place
        of_value = logits[item, 256 * channel : 256 * (channel + 1), at].double()
        wanted[item, channel, at] = of_value.exp().sum().log() - of_value[levels[*place]]
    torch.testing.assert_close(
        likelihood(logits, target).double(), wanted.mean(), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(
        likelihood.nats(logits, target), wanted.sum((1, 2)), rtol=1e-5, atol=0
    )
    mask = torch.arange(5) < torch.tensor([[5], [2], [0]])
    torch.testing.assert_close(
        likelihood(logits, target, mask).double(),
        (wanted.sum(1) * mask).sum() / (2 * mask.sum()),
        rtol=1e-5,
        atol=0,
    )


def test_categorical_gives_every_value_back():
    likelihood = Likelihood("categorical", (0.31,), (0.47,), dims=1)
    logits = torch.eye(256)[None]
    values = Normalisation((0.47,), (0.31,)).restore(likelihood.mean(logits))
    assert torch.equal(values, torch.arange(256, dtype=torch.uint8)[None, None])
