"""simvq, lfq, bsq and gaussian_codebook, each against a reference in NumPy; the contract is in
test_quantizers.
"""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.stats import chi2, norm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vqkit.config import (
    BSQConfig,
    GaussianCodebookConfig,
    HierarchicalConfig,
    LFQConfig,
    ProductConfig,
    PyramidConfig,
    ResidualConfig,
    SimVQConfig,
)
from vqkit.model.quantizers import build_quantizer, lookup_free, simvq

SIGNS = {"lfq": LFQConfig, "bsq": BSQConfig}


def normal_tokens(count, width, seed=0, scale=1.0):
    return scale * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def as_latents(tokens):
    """(N, d) -> (1, d, N)."""
    return tokens.t()[None]


def codes_of(quantizer, tokens):
    return quantizer.encode(as_latents(tokens))[0, 0]


# -------------------------------------------------------------------------------------------- simvq


def trained_once(quantizer, tokens):
    result = quantizer(as_latents(tokens))
    return result, {name: float(term.detach()) for name, term in result.terms.items()}


def test_simvq_is_the_nearest_mapped_row():
    quantizer = build_quantizer(SimVQConfig(codebook_size=40, code_dim=5))
    tokens = normal_tokens(300, 5)
    result, terms = trained_once(quantizer, tokens)
    codebook = quantizer.frozen.numpy().astype(np.float64) @ quantizer.map.weight.detach().numpy().T
    distance = ((tokens.numpy()[:, None] - codebook) ** 2).sum(-1)
    np.testing.assert_array_equal(result.codes[0, 0].numpy(), distance.argmin(1))
    np.testing.assert_allclose(
        result.quantized[0].detach().numpy().T, codebook[distance.argmin(1)], atol=1e-6
    )
    assert terms == pytest.approx(
        {"commitment": distance.min(1).mean() / 5, "codebook": distance.min(1).mean() / 5}
    )


def test_simvq_terms_move_either_the_latents_or_the_map():
    quantizer = build_quantizer(SimVQConfig(codebook_size=40, code_dim=5))
    latents = as_latents(normal_tokens(300, 5)).requires_grad_()
    result = quantizer(latents)
    tokens, values = latents[0].detach().t(), result.quantized[0].detach().t()
    result.terms["commitment"].backward(retain_graph=True)
    assert quantizer.map.weight.grad is None
    torch.testing.assert_close(latents.grad[0].t(), 2 * (tokens - values) / tokens.numel())
    latents.grad = None
    result.terms["codebook"].backward()
    assert latents.grad is None
    picked = quantizer.frozen[result.codes[0, 0]]
    torch.testing.assert_close(
        quantizer.map.weight.grad, 2 * (values - tokens).t() @ picked / tokens.numel()
    )


def test_one_step_of_simvq_moves_every_code_even_those_that_nobody_uses():
    quantizer = build_quantizer(SimVQConfig(codebook_size=64, code_dim=3))
    result = quantizer(as_latents(normal_tokens(10, 3)))
    before = quantizer.codes().detach()
    result.loss.backward()
    with torch.no_grad():
        quantizer.map.weight -= 0.1 * quantizer.map.weight.grad
    assert len(result.codes.unique()) <= 10
    assert bool(((quantizer.codes() - before).norm(dim=1) > 0).all())


def test_simvq_draws_from_the_global_generator_with_variance_one_over_d():
    torch.manual_seed(3)
    first = build_quantizer(SimVQConfig(codebook_size=4096, code_dim=8)).frozen
    second = build_quantizer(SimVQConfig(codebook_size=4096, code_dim=8)).frozen
    torch.manual_seed(3)
    assert torch.equal(first, build_quantizer(SimVQConfig(codebook_size=4096, code_dim=8)).frozen)
    assert not torch.equal(first, second)
    assert float(first.square().sum(1).mean()) == pytest.approx(1.0, abs=0.03)


def test_the_first_training_batch_gives_simvq_the_moments_of_the_tokens_and_no_other_does():
    quantizer = build_quantizer(SimVQConfig(codebook_size=20_000, code_dim=3))
    tokens = (
        normal_tokens(500, 3) @ torch.tensor([[9.0, 1.0, 0.0], [0.0, 0.5, 0.2], [0.0, 0.0, 2.0]])
        + 4.0
    )
    random = quantizer.map.weight.detach().clone()
    quantizer.eval()(as_latents(tokens))
    assert torch.equal(quantizer.map.weight, random) and not quantizer.fitted
    quantizer.train()(as_latents(tokens))
    codebook = quantizer.codes().detach()
    wanted, have = tokens.t() @ tokens / 500, codebook.t() @ codebook / 20_000
    assert float((have - wanted).norm() / wanted.norm()) < 0.05
    quantizer(as_latents(100 * tokens))
    assert torch.equal(quantizer.codes(), codebook)
    twin = build_quantizer(SimVQConfig(codebook_size=20_000, code_dim=3))
    twin.load_state_dict(quantizer.state_dict())
    twin(as_latents(100 * tokens))
    assert torch.equal(twin.codes(), codebook)


def test_simvq_fits_the_tokens_of_all_ranks(monkeypatch):
    parts = [normal_tokens(40, 3), 5 * normal_tokens(60, 3, seed=1)]
    alone = build_quantizer(SimVQConfig(code_dim=3))
    alone(as_latents(torch.cat(parts)))
    other = {(): torch.tensor(60.0), (3, 3): parts[1].t() @ parts[1]}
    monkeypatch.setattr(simvq, "all_reduce_sum", lambda tensor: tensor + other[tuple(tensor.shape)])
    first_rank = build_quantizer(SimVQConfig(code_dim=3))
    first_rank(as_latents(parts[0]))
    torch.testing.assert_close(first_rank.map.weight, alone.map.weight)


def test_simvq_starts_even_from_tokens_that_are_all_alike():
    quantizer = build_quantizer(SimVQConfig(codebook_size=16, code_dim=4))
    result = quantizer(as_latents(torch.full((8, 4), 2.0)))
    assert bool(result.loss.isfinite())
    assert int(torch.linalg.matrix_rank(quantizer.map.weight.detach())) == 4


# --------------------------------------------------------------------------- lfq and bsq: the codes


@given(kind=st.sampled_from(sorted(SIGNS)), bits=st.integers(1, 40), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_code_is_the_signs_as_a_binary_number(kind, bits, seed):
    quantizer = build_quantizer(SIGNS[kind](bits=bits))
    tokens = normal_tokens(5, bits, seed)
    tokens[0] = 0.0
    expected = [sum(1 << i for i, value in enumerate(row) if value >= 0) for row in tokens.tolist()]
    assert codes_of(quantizer, tokens).tolist() == expected
    scale = {"lfq": 1.0, "bsq": bits**-0.5}[kind]
    values = quantizer.decode(torch.tensor(expected)[None, None])[0].t()
    torch.testing.assert_close(values, torch.where(tokens >= 0, scale, -scale))


def test_bsq_quantises_on_the_sphere_whatever_the_length():
    quantizer = build_quantizer(BSQConfig(bits=7)).eval()
    tokens = normal_tokens(50, 7)
    torch.testing.assert_close(quantizer.bound(tokens), tokens / tokens.norm(dim=1, keepdim=True))
    result = quantizer(as_latents(tokens))
    torch.testing.assert_close(result.quantized.norm(dim=1), torch.ones(1, 50))
    scaled = quantizer(as_latents(12.5 * tokens))
    torch.testing.assert_close(scaled.terms["entropy"], result.terms["entropy"])


def test_lfq_commitment_and_straight_through_gradient():
    quantizer = build_quantizer(LFQConfig(bits=2))
    latents = torch.tensor(
        [[[0.5, -3.0], [2.0, 0.0]]], requires_grad=True
    )  # tokens (0.5, 2) and (-3, 0)
    result = quantizer(latents)
    assert result.quantized.tolist() == [[[1.0, -1.0], [1.0, 1.0]]]
    assert float(result.terms["commitment"].detach()) == pytest.approx((0.25 + 1 + 4 + 1) / 4)
    weights = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    (result.quantized * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


# ------------------------------------------------------------------------- lfq and bsq: the entropy


def brute_force(tokens, scale, inverse_temperature, bits):
    """p(code | token) over all 2^bits codes by a softmax of distances, in float64: (N, 2^bits)."""
    bit = (torch.arange(2**bits)[:, None] >> torch.arange(bits)) & 1
    codes = scale * (2.0 * bit.double() - 1)
    return torch.softmax(
        -inverse_temperature * (tokens.double()[:, None] - codes).square().sum(-1), dim=1
    )


def entropy(p):
    return -torch.special.xlogy(p, p).sum(-1)


def reference_term(tokens, scale, inverse_temperature, diversity, bits):
    p = brute_force(tokens, scale, inverse_temperature, bits)
    return (entropy(p).mean() - diversity * entropy(p.mean(0))) / (bits * math.log(2))


@pytest.mark.parametrize("inverse_temperature, diversity", [(0.3, 1.0), (1.0, 0.5), (10.0, 2.0)])
@pytest.mark.parametrize("kind", SIGNS)
@pytest.mark.parametrize("bits", [1, 6, 7])
def test_entropy_and_its_gradient_are_those_of_all_codes(
    kind, bits, inverse_temperature, diversity
):
    config = SIGNS[kind](bits=bits, inverse_temperature=inverse_temperature, diversity=diversity)
    quantizer = build_quantizer(config)
    scale = {"lfq": 1.0, "bsq": bits**-0.5}[kind]
    tokens = quantizer.bound(normal_tokens(50, bits) + 0.3).requires_grad_()
    expected = reference_term(tokens, scale, inverse_temperature, diversity, bits)
    (wanted,) = torch.autograd.grad(expected, tokens)
    term = quantizer.quantize(tokens).terms["entropy"]
    (gradient,) = torch.autograd.grad(term, tokens)
    assert float(term.detach()) == pytest.approx(float(expected.detach()), abs=2e-6)
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-4)


def test_entropy_is_normalised():
    quantizer = build_quantizer(LFQConfig(bits=4, inverse_temperature=100.0, diversity=1.0))
    every_code = quantizer.lookup(torch.arange(16)[:, None])
    assert float(quantizer.quantize(every_code).terms["entropy"]) == pytest.approx(-1.0, abs=1e-5)
    one_code = every_code[:1].repeat(20, 1)
    assert float(quantizer.quantize(one_code).terms["entropy"]) == pytest.approx(0.0, abs=1e-5)
    without_diversity = build_quantizer(LFQConfig(bits=4, diversity=0.0))
    assert float(without_diversity.quantize(torch.zeros(20, 4)).terms["entropy"]) == pytest.approx(
        1.0, abs=1e-5
    )


def test_groups_of_bits_give_the_sum_of_their_entropies_an_upper_bound(monkeypatch):
    tokens = normal_tokens(50, 1) + 0.2 * normal_tokens(
        50, 6, seed=1
    )  # bits that depend on one another
    exact = float(lookup_free.entropy_of_average_code(4.0 * tokens))
    monkeypatch.setattr(lookup_free, "BITS_PER_GROUP", 4)
    grouped = float(lookup_free.entropy_of_average_code(4.0 * tokens))
    halves = [
        entropy(brute_force(tokens[:, part], 1.0, 1.0, 3).mean(0))
        for part in (slice(0, 3), slice(3, 6))
    ]
    assert grouped == pytest.approx(float(sum(halves)), rel=1e-5)
    assert grouped > exact + 0.1


@pytest.mark.parametrize("kind", SIGNS)
def test_forty_bits_have_a_finite_entropy(kind):
    result = build_quantizer(SIGNS[kind](bits=40, diversity=1.0))(as_latents(normal_tokens(20, 40)))
    assert -1.0 <= float(result.terms["entropy"]) <= 1.0


@pytest.mark.parametrize("inverse_temperature", [1.0, 100.0])
@pytest.mark.parametrize("size", [0.0, 100.0, 1e4])
def test_saturated_bits_have_finite_gradients(size, inverse_temperature):
    quantizer = build_quantizer(LFQConfig(bits=9, inverse_temperature=inverse_temperature))
    latents = (size * as_latents(normal_tokens(64, 9)).sign()).requires_grad_()
    term = quantizer(latents).terms["entropy"]
    term.backward()
    assert bool(term.isfinite()) and bool(latents.grad.isfinite().all())
    same = torch.full((1, 9, 64), size or 1e-3, requires_grad=True)  # 511 codes of probability zero
    quantizer(same).terms["entropy"].backward()
    assert bool(same.grad.isfinite().all())


class AllocatedBytes(TorchDispatchMode):
    """Bytes of the results of all operations but views: at least as many as are ever held at
    once.
    """

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        old = {
            tensor.untyped_storage().data_ptr()
            for tensor in tree_leaves(args)
            if isinstance(tensor, torch.Tensor)
        }
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in old:
                self.total += tensor.numel() * tensor.element_size()
        return result


@pytest.mark.parametrize("kind", SIGNS)
def test_eighteen_bits_need_no_tensor_of_tokens_by_codes(kind):
    quantizer = build_quantizer(SIGNS[kind](bits=18))
    latents = as_latents(normal_tokens(4096, 18)).requires_grad_()
    with AllocatedBytes() as allocated:
        quantizer(latents).loss.backward()
    assert 4096 * 512 * 4 < allocated.total < 300e6, "tokens by codes are 4.3e9 bytes"
    assert float(latents.grad.abs().sum()) > 0


def test_ranks_share_the_average_code_and_their_mean_gradient_is_that_of_the_joined_batch(
    monkeypatch,
):
    tokens = normal_tokens(90, 6).requires_grad_()
    whole = lookup_free.entropy_of_average_code(tokens)
    (expected,) = torch.autograd.grad(whole, tokens)
    parts = [tokens.detach()[:50].requires_grad_(), tokens.detach()[50:].requires_grad_()]
    joint = [lookup_free._mean_code(part.detach(), over_ranks=False) * len(part) for part in parts]
    monkeypatch.setattr(lookup_free, "ranks", lambda: 2)
    monkeypatch.setattr(lookup_free, "place_among_ranks", lambda count, device: (0, 90))
    monkeypatch.setattr(
        lookup_free, "all_reduce_sum", lambda tensor: tensor.copy_(joint[0] + joint[1])
    )
    gradients = []
    for part in parts:
        value = lookup_free.entropy_of_average_code(part)
        assert float(value.detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
        gradients += torch.autograd.grad(value, part)
    torch.testing.assert_close(torch.cat(gradients) / 2, expected, atol=1e-7, rtol=1e-4)


def test_ranks_do_not_wait_for_one_another_in_eval_mode(monkeypatch):
    calls = []
    monkeypatch.setattr(lookup_free, "ranks", lambda: 2)
    monkeypatch.setattr(lookup_free, "place_among_ranks", lambda count, device: (0, count))
    monkeypatch.setattr(lookup_free, "all_reduce_sum", lambda tensor: calls.append(1) or tensor)
    quantizer = build_quantizer(LFQConfig(bits=4))
    quantizer(as_latents(normal_tokens(10, 4)))
    assert calls == [1]
    result = quantizer.eval()(as_latents(normal_tokens(10, 4)))
    # Read later, and in training mode by then, it is still that of an eval call.
    quantizer.train()
    assert bool(result.loss.isfinite())
    assert calls == [1]


@pytest.mark.parametrize("kind", SIGNS)
def test_an_eval_call_whose_loss_is_not_read_makes_no_table_of_codes(kind):
    stage = SIGNS[kind](bits=18)
    latents = as_latents(normal_tokens(8, 18))
    residual = ResidualConfig(stage=stage, num_stages=2)
    product = ProductConfig(group=stage, num_groups=1)
    pyramid = PyramidConfig(stage=stage, num_grids=2, grid_dims=1)
    hierarchical = HierarchicalConfig(top=stage, bottom=stage, latent_dim=18, grid_dims=1)
    for config in (stage, residual, product, pyramid, hierarchical):
        quantizer = build_quantizer(config).eval()
        latents = torch.randn(1, quantizer.latent_dim, 8)
        with AllocatedBytes() as allocated:
            result = quantizer(latents)
        assert allocated.total < 4 * 2**18
        with AllocatedBytes() as allocated:
            loss = result.loss
        assert allocated.total > 4 * 2**18 and bool(loss.isfinite())


@pytest.mark.parametrize("kind", SIGNS)
def test_terms_read_late_are_those_of_the_latents_that_came(kind):
    """Whatever was overwritten since, whatever gradients and autocast are like by then."""
    config = SIGNS[kind](bits=6, inverse_temperature=1.0, diversity=1.0)
    quantizer = build_quantizer(config).eval()
    latents = as_latents(normal_tokens(50, 6))
    scale = {"lfq": 1.0, "bsq": 6**-0.5}[kind]
    tokens = quantizer.bound(normal_tokens(50, 6))
    expected = float(reference_term(tokens, scale, 1.0, 1.0, 6))
    result = quantizer(latents)
    latents.zero_()
    result.quantized.fill_(torch.nan)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert float(result.terms["entropy"]) == pytest.approx(expected, abs=2e-6)
    wanted = sum(quantizer.default_weights[name] * term for name, term in result.terms.items())
    assert float(result.loss) == pytest.approx(float(wanted))
    copied = pickle.loads(pickle.dumps(result))
    assert copied.terms == dict(result.terms) and torch.equal(copied.loss, result.loss)


def test_terms_read_first_without_gradients_have_them_still():
    quantizer = build_quantizer(LFQConfig(bits=6)).eval()
    latents = as_latents(normal_tokens(50, 6)).requires_grad_()
    result = quantizer(latents)
    with torch.no_grad():
        result.loss.item()
    result.loss.backward()
    assert bool(latents.grad.abs().sum() > 0)


# -------------------------------------------------------------------------- gaussian_codebook: bins

LEVELS = st.lists(st.integers(2, 16), min_size=1, max_size=5).map(tuple)


@given(levels=LEVELS, seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_bins_are_the_normal_quantiles(levels, seed):
    quantizer = build_quantizer(GaussianCodebookConfig(levels=levels))
    tokens = normal_tokens(40, len(levels), seed, scale=1.5)
    edges = [norm.ppf(np.arange(1, count) / count) for count in levels]
    digits = [np.digitize(tokens[:, i].numpy(), edge) for i, edge in enumerate(edges)]
    near = min(np.abs(tokens[:, i].numpy()[:, None] - edge).min() for i, edge in enumerate(edges))
    expected = sum(digit * math.prod(levels[:i]) for i, digit in enumerate(digits))
    if near > 1e-6:  # on an edge float32 and float64 may differ
        np.testing.assert_array_equal(codes_of(quantizer, tokens).numpy(), expected)
    values = quantizer.decode(torch.tensor(expected)[None, None])[0].t()
    again = codes_of(quantizer, values)
    assert torch.equal(again, torch.tensor(expected))  # every mean lies inside of its own bin


@pytest.mark.parametrize("count", [2, 3, 8, 31])
def test_levels_are_the_conditional_means_and_distortion_is_theirs(count):
    quantizer = build_quantizer(GaussianCodebookConfig(levels=(count,))).eval()
    edges = [-np.inf, *norm.ppf(np.arange(1, count) / count), np.inf]
    levels = quantizer.decode(torch.arange(count)[None, None])[0, 0].numpy()
    distortion = 0.0
    for low, high, level in zip(edges[:-1], edges[1:], levels, strict=True):
        mass = integrate.quad(norm.pdf, low, high)[0]
        moment = integrate.quad(lambda x: x * norm.pdf(x), low, high)[0]
        assert level == pytest.approx(moment / mass, abs=1e-6)
        distortion += integrate.quad(
            lambda x, level=level: (x - level) ** 2 * norm.pdf(x), low, high
        )[0]
    tokens = normal_tokens(100_000, 1, seed=count)
    assert float(quantizer(as_latents(tokens)).terms["commitment"]) == pytest.approx(
        distortion, rel=0.05
    )
    assert float(1 - (quantizer.means[0].double() ** 2).mean()) == pytest.approx(
        distortion, abs=1e-6
    )


def test_normal_tokens_make_uniform_codes():
    quantizer = build_quantizer(GaussianCodebookConfig(levels=(8, 5, 4)))
    counts = torch.bincount(codes_of(quantizer, normal_tokens(100_000, 3)), minlength=160).numpy()
    statistic = ((counts - 625) ** 2 / 625).sum()
    assert chi2.ppf(1e-4, 159) < statistic < chi2.ppf(1 - 1e-4, 159)


def test_tokens_on_an_edge_belong_to_the_bin_above_and_infinite_ones_to_the_outermost():
    quantizer = build_quantizer(GaussianCodebookConfig(levels=(4, 2)))
    edge = quantizer.edges[0, 2]
    below = torch.nextafter(edge, torch.tensor(-math.inf))
    first = torch.stack([edge, below, torch.tensor(math.inf), torch.tensor(-math.inf)])
    codes = codes_of(
        quantizer, torch.stack([first, torch.tensor([0.0, -1e-30, math.inf, -math.inf])], dim=1)
    )
    assert codes.tolist() == [3 + 4, 2, 3 + 4, 0]


def test_bins_commitment_and_straight_through_gradient():
    quantizer = build_quantizer(GaussianCodebookConfig(levels=(2, 2)))
    half = math.sqrt(2 / math.pi)  # mean of |x|
    latents = torch.tensor([[[0.5], [-2.0]]], requires_grad=True)
    result = quantizer(latents)
    assert result.quantized.flatten().tolist() == pytest.approx([half, -half])
    assert float(result.terms["commitment"].detach()) == pytest.approx(
        ((0.5 - half) ** 2 + (half - 2) ** 2) / 2
    )
    (result.quantized * torch.tensor([[[3.0], [4.0]]])).sum().backward()
    assert latents.grad.flatten().tolist() == [3.0, 4.0]


def test_bins_refuse_more_codes_than_an_int64_holds():
    with pytest.raises(ValueError, match="2\\^62"):
        build_quantizer(GaussianCodebookConfig(levels=(256,) * 8))


# ------------------------------------------------------------------------- gaussian_codebook: draws


def draws(size=200, width=3):
    return build_quantizer(
        GaussianCodebookConfig(layout="draws", codebook_size=size, code_dim=width)
    )


def test_draws_are_the_same_for_every_model_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    first, state = draws().codebook, torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, draws().codebook)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert "codebook" in draws().state_dict()


@pytest.mark.parametrize("size, width", [(2, 1), (200, 3), (4096, 4)])
def test_draws_have_the_moments_of_the_prior(size, width):
    codebook = draws(size, width).codebook.double()
    torch.testing.assert_close(codebook.mean(0), torch.zeros(width).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        codebook.square().mean(0), torch.ones(width).double(), atol=1e-5, rtol=0
    )


def test_draws_look_normal():
    values = np.sort(draws(4096, 4).codebook.flatten().numpy())
    ranks = (np.arange(len(values)) + 0.5) / len(values)
    assert np.abs(norm.cdf(values) - ranks).max() < 1.95 / math.sqrt(
        len(values)
    )  # Kolmogorov's bound at 0.1 %


def test_draws_are_searched_exactly():
    quantizer = draws()
    tokens = normal_tokens(500, 3)
    result, terms = trained_once(quantizer, tokens)
    distance = ((tokens.numpy()[:, None].astype(np.float64) - quantizer.codebook.numpy()) ** 2).sum(
        -1
    )
    np.testing.assert_array_equal(result.codes[0, 0].numpy(), distance.argmin(1))
    assert terms == pytest.approx({"commitment": distance.min(1).mean() / 3}, rel=1e-4)
    assert torch.equal(result.quantized[0].t(), quantizer.codebook[result.codes[0, 0]])
