import pytest
import torch

from vqkit import metrics


def test_usage_and_perplexity_of_hand_made_histograms():
    one, uniform = torch.tensor([[8, 0, 0, 0]]), torch.tensor([[2, 2, 2, 2]])
    assert (metrics.usage(one), metrics.perplexity(one), metrics.entropy_bits(one)) == (
        0.25,
        1.0,
        0.0,
    )
    assert metrics.usage(uniform) == 1.0
    assert metrics.perplexity(uniform) == pytest.approx(4.0) and metrics.entropy_bits(
        uniform
    ) == pytest.approx(2.0)
    both = torch.cat([one, uniform])
    assert metrics.usage(both) == pytest.approx(0.625) and metrics.perplexity(
        both
    ) == pytest.approx(2.5)


def test_code_counts_per_codebook():
    codes = torch.tensor([[[[0, 1]], [[2, 2]]], [[[0, 0]], [[1, 2]]]])  # (2, 2, 1, 2)
    assert metrics.code_counts(codes, 3).tolist() == [[3, 1, 0], [0, 1, 3]]
    codes[0, 1] = -1  # padding
    assert metrics.code_counts(codes, 3).sum(1).tolist() == [4, int((codes[:, 1] >= 0).sum())]
