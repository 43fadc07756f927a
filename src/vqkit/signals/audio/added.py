"""Networks whose output is added to what a fixed model says."""

from __future__ import annotations

from torch import nn

from ...model.blocks import DepthwiseResidual
from ...model.tiling import Reach
from .config import LappedConfig, VocoderConfig


def added_network(
    config: VocoderConfig | LappedConfig,
    num_blocks: int,
    inputs: int,
    outputs: int,
    is_causal: bool,
) -> nn.Sequential:
    """(B, t, inputs) -> (B, t, outputs): linear --DepthwiseResidual x num_blocks--> norm, linear.

    The last linear starts at zero, so that nothing is added before training.
    """
    blocks = [
        DepthwiseResidual(config.width, config.expansion, 1, is_causal=is_causal)
        for _ in range(num_blocks)
    ]
    last = nn.Linear(config.width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    first = nn.Linear(inputs, config.width)
    return nn.Sequential(first, *blocks, nn.LayerNorm(config.width), last)


def reach_of(num_blocks: int, is_causal: bool) -> Reach:
    """Positions that such a network sees around one."""
    return Reach(2 * num_blocks, 0) if is_causal else Reach(num_blocks, num_blocks)
