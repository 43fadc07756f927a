"""What a model gets from the engine that runs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqkit.config import TrainConfig
from vqkit.training.engine import Engine


class Seen(nn.Module):
    """Keeps what it was given, and what its product came out as."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.given = x
        product = self.layer(x)
        self.made = product.dtype
        return product


def test_items_go_in_as_they_are_and_products_are_bfloat16():
    engine = Engine(TrainConfig(precision="bfloat16"), alone=True)
    seen = Seen()
    wrapped = engine.wrap_model(seen, (), False)
    # A sample of 16 bits, of which bfloat16 would keep 8.
    items = torch.full((2, 4), 12345 / 32768)
    wrapped(items)
    assert engine.precision == "bfloat16"
    assert torch.equal(seen.given, items)
    assert seen.made == torch.bfloat16
