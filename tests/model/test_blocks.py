"""Blocks in float64, a few rows of the grid at a time, against PyTorch's own convolutions."""

import pytest
import torch

from vqkit.model import blocks
from vqkit.model.blocks import DepthwiseResidual

SHAPES = [((2, 37, 6), False), ((2, 37, 6), True), ((2, 9, 7, 6), False), ((1, 5, 6, 7, 6), False)]


@pytest.mark.parametrize(("shape", "is_causal"), SHAPES)
@pytest.mark.parametrize("values", [1, 100, 1 << 17])
def test_rows_of_a_block_are_those_of_the_whole(shape, is_causal, values, monkeypatch):
    monkeypatch.setattr(blocks, "ROW_VALUES", values)
    torch.manual_seed(0)
    block = DepthwiseResidual(6, 2, len(shape) - 2, is_causal=is_causal).double()
    torch.nn.init.normal_(block.contract.weight)
    x = torch.randn(shape, dtype=torch.float64)
    with_gradient = block(x)
    assert with_gradient.requires_grad
    with torch.no_grad():
        found = block(x)
    assert torch.allclose(found, with_gradient, rtol=0, atol=1e-12)
    assert not torch.allclose(found, x, atol=0.1)


@pytest.mark.parametrize("is_causal", [False, True])
def test_a_position_sees_its_neighbours_or_the_two_before_it(is_causal):
    torch.manual_seed(0)
    block = DepthwiseResidual(6, 2, 1, is_causal=is_causal)
    torch.nn.init.normal_(block.contract.weight)
    x = torch.randn(1, 12, 6, requires_grad=True)
    block(x)[0, 5].sum().backward()
    seen = x.grad[0].abs().sum(1).nonzero()[:, 0].tolist()
    assert seen == ([3, 4, 5] if is_causal else [4, 5, 6])
    # What is not there yet is zeros.
    alone = block(torch.cat([torch.zeros(1, 2, 6), x[:, :1]], 1))[:, 2]
    if is_causal:
        assert torch.allclose(block(x[:, :1])[:, 0], alone, rtol=0, atol=1e-6)


def test_blocks_of_images_are_not_causal():
    with pytest.raises(ValueError, match="one dimension, not 2"):
        DepthwiseResidual(6, 2, 2, is_causal=True)
