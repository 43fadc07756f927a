"""Maps before the quantizer, and the distances to N(0, 1) that pull on them."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from vqkit.config import FSQConfig, LossConfig, TransformConfig, VQConfig
from vqkit.model.normality import (
    Moments,
    PriorNetwork,
    SlicedWasserstein,
    build_normality,
    wasserstein_to_normal,
)
from vqkit.model.quantizers.base import to_tokens
from vqkit.model.transform import build_transform
from vqkit.settings import ModelConfig
from vqkit.signals.image.config import ConvConfig, MLPConfig, PatchConfig

from ..untrained import autoencoder

KINDS = {
    "none": TransformConfig(),
    "mlp": TransformConfig(kind="mlp", latent_dim=5),
    "mlp-same-width": TransformConfig(kind="mlp", num_blocks=2),
    "conv": TransformConfig(kind="conv", latent_dim=12, width=16),
    "linear": TransformConfig(kind="linear"),
}
DISTANCES = {
    "sliced_wasserstein": SlicedWasserstein,
    "moments": Moments,
    "prior_network": lambda: PriorNetwork(4),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(transform, network=None, losses=None, variational=False, quantizer=None):
    torch.manual_seed(0)
    network = network or PatchConfig(width=16, encoder_blocks=1, decoder_blocks=1)
    quantizer = quantizer or VQConfig(codebook_size=32, code_dim=8)
    config = ModelConfig(
        network=network, quantizer=quantizer, transform=transform, variational=variational
    )
    return autoencoder(config, losses=losses)


def train(model, steps, data=None):
    """A few optimiser steps on noise with all weights 1."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        x = torch.randn(4, 3, 16, 16, generator=generator(step)) if data is None else data
        loss = sum(model(x, generator(step)).terms.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


# ----------------------------------------------------------------------------------------- the maps


@pytest.mark.parametrize(
    "network", [ConvConfig(width=32, num_blocks=1), MLPConfig(widths=(64,), grid=(4, 4)), None]
)
@pytest.mark.parametrize("kind", KINDS)
def test_decode_of_encode_is_the_eval_forward_at_any_size(kind, network):
    model = build(KINDS[kind], network, LossConfig(transform=0.1), variational=True)
    model = train(model, 3).eval()
    for size in ((16, 16), (17, 23), (5, 40)):
        x = torch.randn(2, 3, *size, generator=generator(1))
        with torch.no_grad():
            output, codes = model(x), model.encode(x)
            assert torch.equal(codes, output.codes)
            assert torch.equal(codes, model.quantizer.encode(model.latents(x)))
            assert torch.equal(model.decode(codes, size), output.reconstruction)


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_of_a_map_learns(kind):
    model = build(KINDS[kind])
    before = {name: value.clone() for name, value in model.transform.named_parameters()}
    train(model, 3)
    assert all(
        not torch.equal(before[name], value) for name, value in model.transform.named_parameters()
    )


@pytest.mark.parametrize("kind", ["mlp-same-width", "linear", "none"])
def test_maps_of_equal_widths_start_as_the_identity(kind):
    x = torch.randn(2, 8, 4, 4)
    transform = build_transform(KINDS[kind], 8)
    assert torch.allclose(transform(x), x) and torch.allclose(transform.inverse(x), x)


def test_widths_of_latents_and_quantizer_may_differ():
    model = build(KINDS["conv"], variational=True)
    assert model.encoder(torch.zeros(1, 3, 16, 16)).shape[1] == 2 * 12
    assert model.latents(torch.zeros(1, 3, 16, 16)).shape[1] == 8


@pytest.mark.parametrize("grid", [(7,), (4, 5), (2, 3, 4)])
def test_linear_is_undone_at_the_start_and_after_training(grid):
    transform = build_transform(KINDS["linear"], 8)
    x = torch.randn(3, 8, *grid, generator=generator())
    optimizer = torch.optim.SGD(transform.parameters(), lr=0.5)
    for _ in range(30):
        assert torch.allclose(transform.inverse(transform(x)), x, atol=1e-4)
        loss = (transform(x) - x.flip(1) ** 3).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float((transform(x) - x).detach().abs().max()) > 0.5, "it moved"


def test_linear_is_undone_after_training_a_model():
    model = train(build(KINDS["linear"], losses=LossConfig(transform=1.0)), 30)
    x = torch.randn(2, 8, 4, 4)
    assert float(model.transform.log_weight.detach().abs().max()) > 0.05
    assert torch.allclose(model.transform.inverse(model.transform(x)), x, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(model.transform.inverse(model.transform(x)), x, atol=1e-4)


@pytest.mark.parametrize("kind", ["none", "linear"])
def test_a_change_of_width_needs_a_map_that_can(kind):
    with pytest.raises(
        ValueError,
        match=f"kind={kind} keeps the width, but latent_dim is 4 and the quantizer takes 3",
    ):
        build(TransformConfig(kind=kind, latent_dim=4), quantizer=FSQConfig(levels=(8, 8, 8)))


def test_without_weights_and_map_it_is_plain_vq_to_the_bit():
    plain = build(TransformConfig())
    reduced = build(TransformConfig(), losses=LossConfig(kl=0.0, transform=0.0), variational=True)
    states = [train(model, 20).state_dict() for model in (plain, reduced)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# ------------------------------------------------------------------------------ distances to normal


@pytest.mark.parametrize(
    "draw", [stats.norm(0, 1), stats.norm(1, 2), stats.uniform(-1, 2), stats.expon()]
)
def test_distance_along_a_line_is_the_integral(draw):
    """Wasserstein-2 by its definition: the integral of the squared difference of the two quantile
    functions.
    """
    values = np.sort(draw.rvs(12, random_state=0))
    bins = [
        integrate.quad(
            lambda u, value=value: (value - stats.norm.ppf(u)) ** 2, index / 12, (index + 1) / 12
        )[0]
        for index, value in enumerate(values)
    ]
    shuffled = torch.from_numpy(np.random.default_rng(1).permutation(values))[None]
    assert float(wasserstein_to_normal(shuffled)) == pytest.approx(sum(bins), rel=1e-5)


def test_distance_between_normals_is_known():
    """W^2(N(m, s^2), N(0, 1)) = m^2 + (s - 1)^2."""
    values = 0.5 + 3 * torch.randn(1, 100_000, generator=generator(), dtype=torch.float64)
    assert float(wasserstein_to_normal(values)) == pytest.approx(0.25 + 4, rel=0.02)


def shapes():
    """Tokens as latents (8, 4, 16, 16), by name."""
    normal = torch.randn(8, 4, 16, 16, generator=generator())
    clusters = torch.where(normal > 0, 1.0, -1.0)
    mixed = torch.einsum("ij,bjhw->bihw", torch.tensor(np.eye(4) * 0.6 + 0.4).float(), normal)
    return {
        "normal": normal,
        "shifted": normal + 1,
        "wide": 2 * normal,
        "two clusters": clusters,
        "correlated": mixed,
    }


@pytest.mark.parametrize("name", ["sliced_wasserstein", "moments"])
def test_normal_tokens_are_near_and_others_far(name):
    found = {
        shape: float(DISTANCES[name]()(latents, generator(1)))
        for shape, latents in shapes().items()
    }
    assert 0 <= found["normal"] < 0.02
    # second moments do not see clusters
    seen = ["shifted", "wide", "correlated"] + ["two clusters"] * (name == "sliced_wasserstein")
    assert all(found[shape] > 3 * found["normal"] and found[shape] > 0.01 for shape in seen), found


def test_moments_by_hand():
    tokens = torch.tensor(
        [[3.0, 0.0], [1.0, 0.0], [3.0, 2.0], [1.0, 2.0]]
    )  # means 2, 1; variances 1, 1; uncorrelated
    latents = tokens.T[None]
    assert float(Moments()(latents)) == pytest.approx((2**2 + 1**2) / 2)
    assert float(Moments()(2 * latents)) == pytest.approx((4**2 + 2**2 + 3**2 + 3**2) / 2)


@pytest.mark.parametrize("name", DISTANCES)
def test_gradients_lead_to_the_normal_distribution(name):
    """Free tokens, far off at the start: skewed, correlated, shifted."""
    torch.manual_seed(0)
    start = torch.randn(8, 4, 16, 16, generator=generator()).abs() * 0.2 + 2
    start = start + 0.1 * start.flip(1)
    latents = torch.nn.Parameter(start)
    measure = DISTANCES[name]()
    optimizer = torch.optim.Adam(
        [{"params": [latents], "lr": 0.05}, {"params": measure.parameters(), "lr": 0.01}]
    )
    for step in range(500):
        loss = measure(latents, generator(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens = to_tokens(latents.detach())
    assert float(tokens.mean(0).abs().max()) < 0.1
    assert torch.allclose(tokens.std(0), torch.ones(4), atol=0.15)
    if name != "prior_network":  # that one looks at neighbours, not across channels
        assert float((tokens.T.corrcoef() - torch.eye(4)).abs().max()) < 0.1
    if name == "sliced_wasserstein":
        assert float(SlicedWasserstein()(latents).detach()) < 0.01
        assert np.abs(stats.skew(tokens.numpy())).max() < 0.3


def test_prior_network_keeps_its_scale_finite_and_does_not_see_a_value_that_it_predicts():
    measure = PriorNetwork(4)
    torch.nn.init.normal_(measure.head.weight)
    latents = torch.randn(1, 4, 5, 5, generator=generator()).requires_grad_()
    measure.predict(latents)[0][0, :, 2, 2].sum().backward()
    reached = latents.grad.abs().sum((0, 1)) > 0
    assert reached[1:4, 1:4].sum() == 8 and not reached[2, 2] and reached.sum() == 8
    measure = PriorNetwork(4)
    optimizer = torch.optim.Adam(measure.parameters(), lr=0.01)
    given = 1 + 3 * torch.randn(16, 4, 16, 16, generator=generator())
    for _ in range(200):
        optimizer.zero_grad()
        measure(given).backward()
        optimizer.step()
    mean, log_scale = measure.predict(given)
    assert float(mean.detach().mean()) == pytest.approx(1.0, abs=0.2)
    assert float(log_scale.detach().mean()) == pytest.approx(math.log(3), abs=0.2)


@pytest.mark.parametrize("name", DISTANCES)
def test_evaluation_gives_the_same_number_and_leaves_the_global_generator(name):
    measure, latents = (
        DISTANCES[name](),
        torch.randn(9, 4, 32, 32),
    )  # more tokens than are sorted at once
    state = torch.get_rng_state()
    assert torch.equal(measure(latents), measure(latents))
    assert torch.equal(torch.get_rng_state(), state)


def test_no_weight_no_cost():
    assert build_normality(LossConfig(), 4) is None
    losses = LossConfig(transform=0.1, transform_distance="prior_network")
    assert isinstance(build_normality(losses, 4), PriorNetwork)
    assert "transform" in build(TransformConfig(), losses=losses)(torch.randn(2, 3, 16, 16)).terms


# ----------------------------------------------------------------------------------------- sampling


def test_samples_of_codes_have_their_shape_and_range_and_repeat():
    model = build(KINDS["mlp"])
    codes = model.sample_codes(50, (17, 16), generator())
    assert codes.shape == (50, 1, *model.grid((17, 16)))
    assert int(codes.min()) == 0 and int(codes.max()) == 31
    assert torch.equal(codes, model.sample_codes(50, (17, 16), generator()))
    assert model.decode(codes, (17, 16)).shape == (50, 3, 17, 16)
