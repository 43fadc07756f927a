"""Blocks in float64, a few rows of the grid at a time, against PyTorch's own convolutions."""

import pytest
import torch

from vqkit.model import blocks
from vqkit.model.blocks import DepthwiseResidual


@pytest.mark.parametrize("shape", [(2, 37, 6), (2, 9, 7, 6), (1, 5, 6, 7, 6)])
@pytest.mark.parametrize("values", [1, 100, 1 << 17])
def test_rows_of_a_block_are_those_of_the_whole(shape, values, monkeypatch):
    monkeypatch.setattr(blocks, "ROW_VALUES", values)
    torch.manual_seed(0)
    block = DepthwiseResidual(6, 2, len(shape) - 2).double()
    torch.nn.init.normal_(block.contract.weight)
    x = torch.randn(shape, dtype=torch.float64)
    with_gradient = block(x)
    assert with_gradient.requires_grad
    with torch.no_grad():
        found = block(x)
    assert torch.allclose(found, with_gradient, rtol=0, atol=1e-12)
    assert not torch.allclose(found, x, atol=0.1)
