"""The float twin of the integer prior: what it promises is what the integers do."""

import numpy as np
import pytest
import torch

from vqkit.coding import IntegerPrior
from vqkit.coding.integer_prior import frequencies
from vqkit.training.coder import CoderNetwork

SIZES, GRID = [20, 12, 7], (3, 4)


def network() -> CoderNetwork:
    """Weights large enough that every clip and rounding takes place."""
    torch.manual_seed(0)
    found = CoderNetwork(SIZES, GRID, 24)
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return found


def random_codes(count: int) -> torch.Tensor:
    return torch.stack([torch.randint(size, (count, *GRID)) for size in SIZES], 1)


def test_the_twin_says_what_the_integers_cost():
    """Bits by the frequencies of the integers and by the twin differ by the rounding of frequencies alone."""
    net, codes = network(), random_codes(8)
    with torch.no_grad():
        expected = net(codes).numpy()
    prior = net.integers()
    for stage in range(len(SIZES)):
        padded = prior._padded(codes.numpy(), stage)
        for y, x in np.ndindex(*GRID):
            rows = np.arange(8)
            table = prior._frequencies(stage, padded, rows, *np.full((2, 8), [[y], [x]]))
            bits = 16 - np.log2(table[rows, codes[:, stage, y, x].numpy()])
            likely = expected[:, stage, y, x] < 8  # frequencies of unlikely codes are a few steps from 1
            assert np.allclose(bits[likely], expected[:, stage, y, x][likely], atol=0.12)


def test_the_cost_of_a_file_is_what_training_minimised():
    net, codes = network(), random_codes(64)
    with torch.no_grad():
        promised = float(net(codes).clamp(max=16).sum()) / 8
    written = sum(len(part) for item in net.integers().encode(codes.numpy()) for part in item)
    assert written == pytest.approx(promised, rel=0.1)


@pytest.mark.parametrize("stages", [1, 2, 9, 16])
def test_any_number_of_stages_stays_within_what_a_file_may_hold(stages):
    prior = CoderNetwork([8] * stages, (2, 2), 16).integers()
    codes = np.random.default_rng(0).integers(0, 8, (2, stages, 2, 2))
    again = IntegerPrior.from_tensors(prior.tensors())
    assert np.array_equal(again.decode(prior.encode(codes), (2, 2)), codes)


def test_frequencies_are_those_of_the_softmax():
    logits = np.array([[0, -32, -64, -320]])
    expected = 2.0 ** np.array([0, -1, -2, -10])
    assert np.allclose(frequencies(logits)[0] / 65536, expected / expected.sum(), atol=3e-5)
