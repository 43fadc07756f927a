"""Gradients through a quantizer against the formulas of the papers, and what composites do with
them.
"""

import numpy as np
import pytest
import torch

from vqkit.config import FSQConfig, ProductConfig, ResidualConfig, VQConfig
from vqkit.config.quantizers import FAMILIES
from vqkit.model.quantizers import build_quantizer, estimators
from vqkit.model.quantizers.cells import fold, unfold
from vqkit.model.quantizers.search import SCORES_PER_CHUNK, nearest
from vqkit.model.quantizers.vq import map_rows


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


# --------------------------------------------------------------------------------------- estimators


def rotation_matrix(source, target):
    """The rotation in the plane of two unit vectors that takes one to the other (Rodrigues),
    float64 NumPy.
    """
    cosine = source @ target
    across = np.outer(target, source) - np.outer(source, target)
    return np.eye(len(source)) + across + across @ across / (1 + cosine)


def test_rotation_gradient_is_the_scaled_transposed_rotation():
    tokens, values, arriving = normal(7, 5), normal(7, 5, seed=1), normal(7, 5, seed=2)
    tokens.requires_grad_()
    result = estimators.rotation(tokens, values)
    assert torch.equal(result, values)
    (result * arriving).sum().backward()
    for row in range(7):
        e, q, g = (x[row].detach().double().numpy() for x in (tokens, values, arriving))
        matrix = rotation_matrix(e / np.linalg.norm(e), q / np.linalg.norm(q))
        scale = np.linalg.norm(q) / np.linalg.norm(e)
        np.testing.assert_allclose(scale * matrix @ e, q, atol=1e-5)
        np.testing.assert_allclose(
            tokens.grad[row].numpy(), scale * matrix.T @ g, rtol=1e-4, atol=1e-5
        )


def test_rotation_of_a_zero_token_is_finite():
    tokens = torch.zeros(2, 3, requires_grad=True)
    estimators.rotation(tokens, torch.ones(2, 3)).sum().backward()
    assert bool(tokens.grad.isfinite().all())


def test_gumbel_gradient_is_that_of_the_relaxation_over_several_chunks():
    codebook = normal(300, 4, seed=1)
    tokens = normal(SCORES_PER_CHUNK // 300 + 50, 4).requires_grad_()
    arriving = normal(len(tokens), 4, seed=2)
    values, codes = estimators.gumbel(tokens, codebook, 0.7, generator(3))
    (values * arriving).sum().backward()
    gradient, tokens.grad = tokens.grad, None
    # the same with a dense softmax and autograd, from the same noise
    seed = int(torch.randint(1 << 62, (), generator=generator(3)))
    source, rows = generator(seed), SCORES_PER_CHUNK // 300
    noise = torch.cat(
        [
            -torch.empty(len(part), 300).exponential_(generator=source).log()
            for part in tokens.split(rows)
        ]
    )
    logits = -(tokens[:, None] - codebook).square().sum(2) / 0.7 + noise
    assert torch.equal(logits.argmax(1), codes)
    assert torch.equal(values, codebook[codes])
    (logits.softmax(1) @ codebook * arriving).sum().backward()
    torch.testing.assert_close(gradient, tokens.grad, rtol=1e-3, atol=1e-4)


def test_gumbel_draws_codes_with_the_probabilities_of_the_softmax():
    codebook = torch.tensor([[0.0], [1.0], [2.0]])
    tokens = torch.full((60000, 1), 0.8)
    _, codes = estimators.gumbel(tokens, codebook, 0.5, generator())
    expected = (-(0.8 - codebook[:, 0]).square() / 0.5).softmax(0)
    torch.testing.assert_close(
        torch.bincount(codes, minlength=3) / 60000, expected, rtol=0, atol=0.01
    )


def test_gumbel_is_the_same_far_from_the_origin():
    codebook = torch.randint(-64, 65, (40, 3), generator=generator(1)) / 64
    tokens = torch.randint(-64, 65, (500, 3), generator=generator(2)) / 64
    found = []
    for shift in (0.0, 1024.0):
        moved = (tokens + shift).requires_grad_()
        values, codes = estimators.gumbel(moved, codebook + shift, 0.1, generator(3))
        (values * normal(500, 3, seed=4)).sum().backward()
        assert torch.equal(values, (codebook + shift)[codes])
        found.append((codes, moved.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-3, atol=1e-4)


def test_gumbel_cools_down_and_is_the_nearest_code_in_eval():
    config = VQConfig(
        codebook_size=16,
        code_dim=3,
        estimator="gumbel",
        temperature=2.0,
        final_temperature=0.02,
        temperature_steps=10,
    )
    quantizer = build_quantizer(config)
    seen = [quantizer.temperature]
    for step in range(12):
        quantizer(normal(1, 3, 300, seed=step), generator(step))
        seen.append(quantizer.temperature)
    assert seen[0] == 2.0 and seen[5] == pytest.approx(0.2) and seen[-1] == pytest.approx(0.02)
    latents = normal(1, 3, 50, seed=99)
    assert torch.equal(
        quantizer.eval().encode(latents)[0, 0], nearest(latents[0].t(), quantizer.codebook)
    )


# --------------------------------------------------------------------------------------- composites


@pytest.mark.parametrize(
    "stage", [VQConfig(codebook_size=8, code_dim=3), FSQConfig(levels=(5, 5, 5))]
)
def test_the_gradient_through_all_stages_is_that_through_one(stage):
    quantizer = build_quantizer(ResidualConfig(num_stages=3, stage=stage))
    tokens = quantizer.bound(normal(40, 3) * 0.3).detach().requires_grad_()
    arriving = normal(40, 3, seed=1)
    (quantizer.quantize(tokens, generator()).values * arriving).sum().backward()
    torch.testing.assert_close(tokens.grad, arriving)


ESTIMATORS = [
    VQConfig(codebook_size=16, code_dim=3, estimator=name)
    for name in ("straight_through", "rotation", "gumbel")
]
STAGES = [*ESTIMATORS, *(section() for section in FAMILIES)]


def one_step(config, latents):
    """Result of a training step, gradient of the latents with some weights, and the state
    after it.
    """
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    latents = latents.clone().requires_grad_()
    result = quantizer(latents, generator())
    (result.quantized * normal(*latents.shape, seed=5)).sum().backward()
    return result, latents.grad, list(quantizer.state_dict().values())


@pytest.mark.parametrize(
    "stage", STAGES, ids=lambda stage: f"{stage.kind}-{getattr(stage, 'estimator', '')}"
)
def test_a_row_of_one_stage_and_a_product_of_one_group_are_what_is_inside(stage):
    latents = normal(2, build_quantizer(stage).latent_dim, 30)
    expected, gradient, _ = one_step(stage, latents)
    for composite in (
        ResidualConfig(num_stages=1, stage=stage),
        ProductConfig(num_groups=1, group=stage),
    ):
        result, found, _ = one_step(composite, latents)
        assert torch.equal(result.codes, expected.codes)
        torch.testing.assert_close(result.quantized, expected.quantized)
        torch.testing.assert_close(found, gradient)
        assert {name: float(term.detach()) for name, term in result.terms.items()} == pytest.approx(
            {name: float(term.detach()) for name, term in expected.terms.items()}
        )


@pytest.mark.parametrize("count", [1, 3])
def test_the_estimator_of_a_stage_decides_how_gradients_pass_the_row(count):
    latents = normal(2, 3, 30)
    gradients = [
        one_step(ResidualConfig(num_stages=count, stage=stage), latents)[1] for stage in ESTIMATORS
    ]
    for left, right in ((0, 1), (0, 2), (1, 2)):
        assert float((gradients[left] - gradients[right]).abs().max()) > 0.01


def test_residual_stages_by_hand():
    quantizer = build_quantizer(
        ResidualConfig(
            num_stages=2, stage=VQConfig(codebook_size=2, code_dim=1, revive_threshold=0)
        )
    )
    first, second = quantizer.parts()
    with torch.no_grad():
        first.codebook.copy_(torch.tensor([[0.0], [10.0]]))
        second.codebook.copy_(torch.tensor([[-1.0], [2.0]]))
        first.updates.fill_(1)
        second.updates.fill_(1)
    quantizer.eval()
    latents = torch.tensor([[[12.5, -0.5]]], requires_grad=True)
    result = quantizer(latents)
    assert result.codes.tolist() == [[[1, 0], [1, 0]]]
    assert result.quantized.tolist() == [[[12.0, -1.0]]]
    # stage 1: (2.5^2 + 0.5^2) / 2, stage 2: (0.5^2 + 0.5^2) / 2; the term is their mean
    assert float(result.terms["commitment"].detach()) == pytest.approx((3.25 + 0.25) / 2)
    result.terms["commitment"].backward()
    # each stage pulls: mean over 2 stages and 2 tokens of 2 (r_s - q_s)
    assert latents.grad.flatten().tolist() == pytest.approx([(5 + 1) / 4, (-1 + 1) / 4])


def test_fewer_stages_decode_too_and_more_are_better():
    quantizer = build_quantizer(
        ResidualConfig(
            num_stages=4, stage=VQConfig(codebook_size=16, code_dim=4), quantizer_dropout=0.5
        )
    )
    for step in range(30):
        quantizer(normal(1, 4, 500, seed=step), generator(step))
    quantizer.eval()
    latents = normal(1, 4, 500, seed=77)
    codes, errors = quantizer.encode(latents), []
    for stages in range(1, 5):
        shorter = codes.clone()
        shorter[:, stages:] = -1
        errors.append(float((quantizer.decode(shorter) - latents).square().mean()))
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.2 * errors[0]


def test_residual_fsq_measures_its_scales_and_refines():
    quantizer = build_quantizer(ResidualConfig(num_stages=3, stage=FSQConfig(levels=(5, 5))))
    for step in range(5):
        quantizer(normal(1, 2, 2000, seed=step), generator())
    assert quantizer.scales[0] == 1 and 0.1 < float(quantizer.scales[1]) < 0.35
    quantizer.eval()
    latents = normal(1, 2, 2000, seed=50)
    tokens = quantizer.bound(latents[0].t())
    error = (quantizer.lookup(quantizer.assign(tokens)) - tokens).square().mean()
    single = build_quantizer(FSQConfig(levels=(5, 5)))
    assert float(error) < 0.01 * float(
        (single.lookup(single.assign(tokens)) - tokens).square().mean()
    )


def test_product_is_its_groups_side_by_side():
    quantizer = build_quantizer(ProductConfig(num_groups=2, group=FSQConfig(levels=(5, 4)))).eval()
    alone = build_quantizer(FSQConfig(levels=(5, 4))).eval()
    latents = normal(2, 4, 6)
    result = quantizer(latents)
    for index in range(2):
        expected = alone(latents[:, 2 * index : 2 * index + 2])
        assert torch.equal(result.quantized[:, 2 * index : 2 * index + 2], expected.quantized)
        assert torch.equal(result.codes[:, index : index + 1], expected.codes)


def test_shared_groups_learn_from_all_tokens_in_one_step():
    quantizer = build_quantizer(
        ProductConfig(
            num_groups=3, group=VQConfig(codebook_size=8, code_dim=2), shared_codebook=True
        )
    )
    quantizer(normal(1, 6, 100), generator())
    part = quantizer.parts()[0]
    assert int(part.updates) == 1 and quantizer.parts() == [part] * 3
    assert float(part.ema_count.sum()) == pytest.approx(300, rel=1e-5)


@pytest.mark.parametrize("grid", [(6,), (4, 6), (2, 4, 6)])
def test_fold_is_space_to_depth_and_unfold_its_inverse(grid):
    x = normal(2, 3, *grid)
    folded = fold(x, 2)
    assert folded.shape == (2, 3 * 2 ** len(grid), *(side // 2 for side in grid))
    assert torch.equal(unfold(folded, 2), x)
    if len(grid) == 2:
        assert torch.equal(folded, torch.nn.functional.pixel_unshuffle(x, 2))


# ------------------------------------------------------------------------------------- Kohonen maps


def test_map_is_nearly_square():
    assert [map_rows(k) for k in (512, 16, 7, 12)] == [16, 4, 1, 3]


def test_spread_is_the_dense_neighbourhood_sum():
    quantizer = build_quantizer(VQConfig(codebook_size=12, code_dim=2, neighbourhood=1.5))
    values = normal(12, 2)
    place = np.array([(k // 4, k % 4) for k in range(12)])
    distance = ((place[:, None] - place[None]) ** 2).sum(-1)
    expected = np.exp(-distance / (2 * 1.5**2)) @ values.numpy()
    np.testing.assert_allclose(quantizer._spread(values).numpy(), expected, rtol=1e-4, atol=1e-5)


def neighbour_ratio(codebook):
    """Mean distance of neighbours on the map over that of any two codes; about 1 without order."""
    rows = map_rows(len(codebook))
    grid = codebook.view(rows, -1, codebook.shape[1])
    beside = torch.cat(
        [
            (grid[1:] - grid[:-1]).norm(dim=2).flatten(),
            (grid[:, 1:] - grid[:, :-1]).norm(dim=2).flatten(),
        ]
    )
    return float(beside.mean() / torch.pdist(codebook).mean())


def test_a_neighbourhood_orders_the_codes_and_uses_them_all():
    ratios = {}
    for radius in (0.0, 3.0):
        steps = {"neighbourhood_steps": 150} if radius else {}
        config = VQConfig(codebook_size=64, code_dim=3, neighbourhood=radius, decay=0.9, **steps)
        quantizer = build_quantizer(config)
        for step in range(200):
            quantizer(torch.rand(1, 3, 500, generator=generator(step)), generator(step))
        ratios[radius] = neighbour_ratio(quantizer.codebook)
        assert (
            len(quantizer.eval().encode(torch.rand(1, 3, 4000, generator=generator(999))).unique())
            >= 62
        )
    assert ratios[0.0] > 0.8 and ratios[3.0] < 0.5


# ------------------------------------------------------------------------------------------ compile


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        VQConfig(codebook_size=64, code_dim=4),
        VQConfig(codebook_size=64, code_dim=4, update="gradient"),
        FSQConfig(levels=(8, 5, 4)),
    ],
)
def test_dynamo_traces_the_forward_without_a_break(config, training):
    quantizer = build_quantizer(config)
    latents = normal(2, quantizer.latent_dim, 4, 4)
    quantizer(latents)  # the codes are set
    quantizer.train(training)
    expected = quantizer.eval()(latents) if not training else None
    quantizer.train(training)
    torch._dynamo.reset()
    result = torch.compile(quantizer, fullgraph=True, backend="aot_eager")(
        latents
    )  # raises at a break
    if expected is not None:
        assert torch.equal(result.codes, expected.codes) and torch.equal(
            result.quantized, expected.quantized
        )


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("estimator", ["straight_through", "rotation", "gumbel"])
def test_gradients_are_those_of_the_codes_that_were_compared_though_dead_ones_are_replaced(
    distance, estimator
):
    """Codes without tokens jump between forward and backward; what was used has the gradient that
    it has without.
    """
    settings = {"codebook_size": 16, "code_dim": 4, "update": "gradient", "kmeans_iterations": 0}
    gradients = []
    for threshold in (0.0, 0.5):
        torch.manual_seed(0)
        config = VQConfig(
            **settings, distance=distance, estimator=estimator, revive_threshold=threshold
        )
        quantizer = build_quantizer(config).train()
        with torch.no_grad():
            quantizer.ema_count.fill_(1.0)
        before = quantizer.codebook.detach().clone()
        latents = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1))
        result = quantizer(latents, torch.Generator().manual_seed(2))
        (result.loss + result.quantized.square().mean()).backward()
        gradients.append(quantizer.codebook.grad)
    assert not torch.equal(before, quantizer.codebook), "codes were replaced"
    assert torch.equal(*gradients) and bool(gradients[0].abs().sum() > 0)
