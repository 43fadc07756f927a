"""Networks whose output is added to what a fixed model says."""

from __future__ import annotations

from torch import nn

from ...model.blocks import DepthwiseResidual
from .config import LappedConfig, VocoderConfig


def added_network(
    config: VocoderConfig | LappedConfig, num_blocks: int, inputs: int, outputs: int
) -> nn.Sequential:
    """(B, t, inputs) -> (B, t, outputs): linear --DepthwiseResidual x num_blocks--> norm, linear.

    The last linear starts at zero, so that nothing is added before training.
    """
    blocks = [DepthwiseResidual(config.width, config.expansion, 1) for _ in range(num_blocks)]
    last = nn.Linear(config.width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    first = nn.Linear(inputs, config.width)
    return nn.Sequential(first, *blocks, nn.LayerNorm(config.width), last)
