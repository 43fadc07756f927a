"""The discriminator sees what it says it sees, and both sides minimise what the papers say."""

import math

import pytest
import torch
from torch.nn import functional as F

from vqkit.model import discriminator
from vqkit.model.discriminator import PatchDiscriminator, field_of_view, most_layers

ITEMS = torch.tensor([2.0, 0.5, -1.0])
FAKES = torch.tensor([-3.0, 0.25, 0.0])


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_score_depends_on_as_many_positions_as_the_field_of_view_says(dims, num_layers):
    torch.manual_seed(0)
    side = 40 if dims < 3 else 24
    network = PatchDiscriminator(2, dims, 4, num_layers, is_spectral=False)
    x = torch.randn(1, 2, *[side] * dims, requires_grad=True)
    scores = network.features(x)[-1]
    assert scores.shape == (1, 1, *[side // 2**num_layers] * dims)
    middle = tuple(length // 2 for length in scores.shape[2:])
    (gradient,) = torch.autograd.grad(scores[(0, 0, *middle)], x)
    for dim in range(2, 2 + dims):
        others = [other for other in range(2 + dims) if other != dim]
        seen = gradient.abs().sum(others).nonzero()[:, 0]
        assert len(seen) == field_of_view(num_layers)


def test_layers_are_as_many_as_the_shortest_side_fills():
    assert [field_of_view(layers) for layers in (1, 2, 3, 4)] == [8, 18, 38, 78]
    assert most_layers((7, 64)) == 0
    assert most_layers((64, 8)) == 1
    assert most_layers((18, 18)) == 2
    assert most_layers((37,)) == 2
    assert most_layers((38, 100, 50)) == 3


def test_scores_of_an_item_do_not_depend_on_its_neighbours_in_the_batch():
    torch.manual_seed(0)
    network = PatchDiscriminator(3, 2, 4, 1, is_spectral=True).eval()
    x = torch.randn(4, 3, 8, 8)
    alone = network.features(x[1:2])[-1]
    torch.testing.assert_close(network.features(x)[-1][1:2], alone)


def test_spectral_kernels_have_a_largest_singular_value_of_one():
    torch.manual_seed(0)
    network = PatchDiscriminator(3, 2, 8, 2, is_spectral=True)
    for _ in range(60):
        network.features(torch.randn(1, 3, 18, 18))
    network.eval()
    for layer in network.layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert float(largest.detach()) == pytest.approx(1.0, abs=0.02)


def test_hinge_by_hand():
    # max(0, 1 - D(x)): 0, 0.5, 2; max(0, 1 + D(y)): 0, 1.25, 1.
    loss = discriminator.discriminator_loss("hinge", ITEMS, FAKES)
    assert float(loss) == pytest.approx(2.5 / 3 + 2.25 / 3)
    assert float(discriminator.generator_loss("hinge", ITEMS, FAKES)) == pytest.approx(2.75 / 3)


def test_relativistic_by_hand():
    margins = [5.0, 0.25, -1.0]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins) / 3
    loss = discriminator.discriminator_loss("relativistic", ITEMS, FAKES)
    assert float(loss) == pytest.approx(expected)
    expected = sum(math.log1p(math.exp(margin)) for margin in margins) / 3
    assert float(discriminator.generator_loss("relativistic", ITEMS, FAKES)) == pytest.approx(
        expected
    )


def test_lecam_holds_scores_near_the_average_of_the_other_side():
    found = discriminator.lecam(ITEMS, FAKES, 0.5, -0.5)
    items = ((2 + 0.5) ** 2 + (0.5 + 0.5) ** 2 + (-1 + 0.5) ** 2) / 3
    fakes = ((-3 - 0.5) ** 2 + (0.25 - 0.5) ** 2 + (0 - 0.5) ** 2) / 3
    assert float(found) == pytest.approx(items + fakes)


def test_r1_is_half_the_squared_gradient_of_the_mean_score():
    """By central differences, in float64, and with a gradient for the discriminator."""
    torch.manual_seed(0)
    network = PatchDiscriminator(1, 1, 3, 1, is_spectral=False).double()
    items = torch.randn(2, 1, 8, dtype=torch.float64)
    expected = 0.0
    for item in items:
        for position in range(8):
            step = torch.zeros_like(item)
            step[0, position] = 1e-6
            up = network.features((item + step)[None])[-1].mean()
            down = network.features((item - step)[None])[-1].mean()
            expected += ((up - down) / 2e-6).item() ** 2
    found = discriminator.r1(network, items)
    assert float(found.detach()) == pytest.approx(0.5 * expected / 2, rel=1e-4)
    found.backward()
    # The second derivative is there: the penalty can be minimised.
    assert float(network.layers[0].weight.grad.abs().sum()) > 0


def test_feature_matching_is_relative_to_the_size_of_the_items_features():
    first = [torch.tensor([[2.0, -2.0], [4.0, 0.0]]), torch.tensor([[10.0], [1.0]])]
    second = [torch.tensor([[1.0, -2.0], [4.0, 8.0]]), torch.tensor([[15.0], [1.0]])]
    found = discriminator.feature_matching(first, second)
    layers = [(0.5 / 2 + 4 / 2) / 2, (5 / 10 + 0) / 2]
    assert float(found) == pytest.approx(sum(layers) / 2, rel=1e-5)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_patch_is_real_where_its_own_positions_are(dims, num_layers):
    """Those that its strides lead to: 2 for each layer, along every dimension."""
    extent = (19, 18, 20)[:dims]
    network = PatchDiscriminator(1, dims, 4, num_layers, is_spectral=False)
    mask = torch.zeros(2, *extent, dtype=torch.bool)
    mask.view(2, -1)[0, 5] = True
    mask.view(2, -1)[1, 11] = True
    features = network.features(torch.randn(2, 1, *extent))
    real = network.real(mask)
    assert [one.shape[2:] for one in real] == [one.shape[2:] for one in features]
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dims - 1]
    for layer, one in enumerate(real, start=1):
        side = 2 ** min(layer, num_layers)
        assert torch.equal(one.float(), pool(mask[:, None].float(), side))
    assert int(real[-1].sum()) == 2


def test_what_is_not_real_is_in_no_mean():
    """Of matched features and of R1: as where there is nothing else."""
    torch.manual_seed(0)
    one = torch.randn(2, 3, 8)
    other = torch.randn(2, 3, 8)
    real = (torch.arange(8) < 5).expand(2, 1, 8)
    found = discriminator.feature_matching([one], [other], [real])
    expected = discriminator.feature_matching([one[..., :5]], [other[..., :5]])
    torch.testing.assert_close(found, expected)
    network = PatchDiscriminator(1, 1, 3, 1, is_spectral=False)
    items = torch.randn(1, 1, 16)
    # Of one score alone, half the squared gradient of that score.
    first = torch.arange(8).view(1, 1, 8) == 3
    leaf = items.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network.features(leaf)[-1][0, 0, 3], leaf)
    found = discriminator.r1(network, items, first)
    torch.testing.assert_close(found, 0.5 * gradient.square().sum())


def test_forward_scores_both_sides_as_alone():
    torch.manual_seed(0)
    network = PatchDiscriminator(1, 2, 4, 1, is_spectral=False)
    items = torch.randn(3, 1, 8, 8)
    fakes = torch.randn(2, 1, 8, 8)
    of_items, of_fakes, penalty = network(items, fakes, 2)
    torch.testing.assert_close(of_items, network.features(items)[-1])
    torch.testing.assert_close(of_fakes, network.features(fakes)[-1])
    torch.testing.assert_close(penalty, discriminator.r1(network, items[:2]))


def test_the_last_matrix_is_that_of_the_layer_that_gives_the_output():
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    assert discriminator.last_matrix(network) is network[2].weight
    x = torch.randn(4, 3)
    assert F.linear(torch.relu(network[0](x)), network[2].weight).shape == (4, 2)
