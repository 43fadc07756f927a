"""Fits the integer prior that codes are compressed with: a float twin that rounds as the integers will.

Shapes: B images, Q stages, h w the grid, C context codes, e the length of a vector, H hidden channels, K codes.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..artifact import Artifact
from ..coding.integer_prior import (
    BIAS_LIMIT,
    MAX_CODES,
    MAX_FAN_IN,
    OCTAVE,
    REACH,
    IntegerPrior,
    Stage,
    context_offsets,
)
from ..data import ImageData, split_batches
from .progress import Display, Silent

VECTOR_BITS, FIRST_BITS, SECOND_BITS, LAST_BITS, HIDDEN_BITS = 5, 7, 7, 5, 4
"""bits behind the point of the vectors, of each layer's weights, and of hidden values"""
LENGTH = 32
"""of a code's vector, where the context is not too wide for it"""
WIDTHS = (256, 192, 128, 96, 64, 48, 32, 16)
"""hidden channels, the first that keeps the network below MAX_BYTES"""
MAX_BYTES = 1 << 20
STEP_CODES = 1 << 13
"""codes of a step"""
MAX_KEPT = 1 << 24
"""codes of the training images that are in memory at most; more images than that are left out"""
NUM_VALIDATED = 1024
LOOKS = 12
"""at the validation split"""


class _Round(torch.autograd.Function):
    """Nearest multiple of 2^-bits in [low, high], halves up as integers are shifted; the gradient passes inside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: int, low: float, high: float) -> Tensor:
        scale = 2.0**bits
        ctx.save_for_backward((x >= low / scale) & (x <= high / scale))
        return torch.floor(x * scale + 0.5).clamp_(low, high).div_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None


def _rounded(x: Tensor, bits: int, low: float = -127, high: float = 127) -> Tensor:
    return cast(Tensor, _Round.apply(x, bits, low, high))


class CoderNetwork(nn.Module):
    """All stages of the float twin. forward: codes (B, Q, h, w) int64 -> bits (B, Q, h, w) that each costs."""

    def __init__(self, sizes: list[int], grid: tuple[int, int], hidden: int) -> None:
        super().__init__()
        self.sizes, self.grid = sizes, grid
        self.contexts = [context_offsets(stage) for stage in range(len(sizes))]
        length = min(LENGTH, MAX_FAN_IN // max(map(len, self.contexts)))
        self.vectors = nn.ParameterList(0.5 * torch.randn(size + 1, length) for size in sizes)
        fan_in = [len(context) * length for context in self.contexts]
        self.first = nn.ParameterList(torch.randn(n, hidden) * n**-0.5 for n in fan_in)
        self.rows = nn.ParameterList(torch.zeros(grid[0], hidden) for _ in sizes)
        self.columns = nn.ParameterList(torch.zeros(grid[1], hidden) for _ in sizes)
        self.second = nn.ParameterList(torch.randn(hidden, hidden) * hidden**-0.5 for _ in sizes)
        self.second_bias = nn.ParameterList(torch.zeros(hidden) for _ in sizes)
        self.last = nn.ParameterList(torch.randn(hidden, size) * 0.1 * hidden**-0.5 for size in sizes)
        self.last_bias = nn.ParameterList(torch.zeros(size) for size in sizes)

    def forward(self, codes: Tensor) -> Tensor:
        vectors = [_rounded(table, VECTOR_BITS) for table in self.vectors]
        return torch.stack([self._stage(stage, codes, vectors) for stage in range(len(self.sizes))], 1)

    def _stage(self, stage: int, codes: Tensor, vectors: list[Tensor]) -> Tensor:
        height, width = codes.shape[2:]
        parts = []
        padded = {
            back: F.pad(codes[:, stage + back], (REACH,) * 4, value=self.sizes[stage + back])
            for back in {context[0] for context in self.contexts[stage]}
        }
        for back, down, right in self.contexts[stage]:
            top, left = down + REACH, right + REACH
            shown = padded[back][:, top : top + height, left : left + width]
            parts.append(F.embedding(shown, vectors[stage + back]))
        x = torch.cat(parts, -1)  # (B, h, w, C * e)
        place = self.rows[stage][:, None] + self.columns[stage]
        x = _rounded(x @ _rounded(self.first[stage], FIRST_BITS) + place, HIDDEN_BITS, 0)
        x = x @ _rounded(self.second[stage], SECOND_BITS) + self.second_bias[stage]
        x = _rounded(x, HIDDEN_BITS, 0) @ _rounded(self.last[stage], LAST_BITS) + self.last_bias[stage]
        logits = math.log(2) * x
        wanted = codes[:, stage]
        return F.cross_entropy(logits.movedim(-1, 1), wanted, reduction="none") / math.log(2)

    @torch.no_grad()
    def integers(self) -> IntegerPrior:
        """The same network in whole numbers."""

        def whole(x: Tensor, bits: int, limit: int = 127) -> np.ndarray:
            found = torch.floor(x.double() * 2.0**bits + 0.5).clamp(-limit, limit).numpy()
            return found.astype(np.int8 if limit == 127 else np.int32)

        one, two, three = VECTOR_BITS + FIRST_BITS, HIDDEN_BITS + SECOND_BITS, HIDDEN_BITS + LAST_BITS
        stages = [
            Stage(
                np.array(self.contexts[stage]).reshape(-1, 3),
                whole(self.first[stage], FIRST_BITS),
                whole(self.rows[stage], one, BIAS_LIMIT),
                whole(self.columns[stage], one, BIAS_LIMIT),
                whole(self.second[stage], SECOND_BITS),
                whole(self.second_bias[stage], two, BIAS_LIMIT),
                whole(self.last[stage], LAST_BITS),
                whole(self.last_bias[stage], three, BIAS_LIMIT),
                (one - HIDDEN_BITS, two - HIDDEN_BITS, three - int(math.log2(OCTAVE))),
            )
            for stage in range(len(self.sizes))
        ]
        return IntegerPrior(self.grid, [whole(table, VECTOR_BITS) for table in self.vectors], stages)


def fit_coder(
    artifact: Artifact, data: ImageData, steps: int, display: Display | None = None
) -> tuple[IntegerPrior, dict[str, float]] | None:
    """The integer prior of an artifact's codes, and coder_bits_per_code (on validation images, if there are any).

    The look at the validation split that was best is kept. A pure function of artifact, data and steps. None for no
    steps, and for codes that it cannot hold: none at all, or codebooks of more than MAX_CODES.
    """
    quantizer, seed = artifact.model.quantizer, artifact.config.seed
    if not steps or not quantizer.is_discrete or max(quantizer.codebook_sizes) > MAX_CODES:
        return None
    codes = _codes(artifact, data, "train", MAX_KEPT)
    held_out = _codes(artifact, data, "validation", NUM_VALIDATED * codes[0].numel())
    network = _network(list(quantizer.codebook_sizes), codes, seed)
    best, kept, found, began = math.inf, network, math.inf, time.monotonic()
    display = display or Silent()
    display.start(f"fitting the coder to the codes of {len(codes)} images")
    try:
        for step, _ in enumerate(_steps(network, codes, steps, artifact.config.coder.lr, seed), 1):
            if step == steps or step * LOOKS % steps < LOOKS:
                found = _bits(network, held_out if len(held_out) else codes[:NUM_VALIDATED])
                if found < best:
                    best, kept = found, copy.deepcopy(network)
            row = {"step": step, "seconds": time.monotonic() - began}
            display.update(step / steps, row | ({"bits_per_code": found} if found < math.inf else {}))
    finally:
        display.stop()
    return kept.integers(), {"coder_bits_per_code": best}


def _codes(artifact: Artifact, data: ImageData, split: str, limit: int) -> Tensor:  # (N, Q, h, w) int64
    parts, found = [], 0
    for _, images in split_batches(data, split, 256):
        parts.append(artifact.encode(images.permute(0, 2, 3, 1)).to(torch.int16))
        found += parts[-1].numel()
        if found >= limit:
            break
    grid = artifact.model.grid(artifact.size)
    return torch.cat(parts) if parts else torch.zeros(0, artifact.model.quantizer.num_codebooks, *grid)


def _network(sizes: list[int], codes: Tensor, seed: int) -> CoderNetwork:
    """Untrained, predicting the frequencies of the codes."""
    grid = codes.shape[2], codes.shape[3]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for hidden in WIDTHS:
            network = CoderNetwork(sizes, grid, hidden)
            if sum(parameter.numel() for parameter in network.parameters()) < MAX_BYTES:
                break
    for stage, size in enumerate(sizes):
        counts = torch.bincount(codes[:, stage].flatten().int(), minlength=size) + 1.0
        network.last_bias[stage].data.copy_((counts / counts.sum()).log2())
    return network


def _steps(network: CoderNetwork, codes: Tensor, steps: int, lr: float, seed: int) -> Iterator[None]:
    """Train, and give way after every step."""
    generator = torch.Generator().manual_seed(seed)
    batch = max(1, STEP_CODES // codes[0].numel())
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=1e-3, fused=True)
    for step in range(steps):
        share = step / steps
        optimizer.param_groups[0]["lr"] = lr * min(
            (step + 1) / (0.03 * steps + 1), 0.5 + 0.5 * math.cos(math.pi * share)
        )
        rows = torch.randint(len(codes), (batch,), generator=generator)
        network(codes[rows].long()).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield


@torch.no_grad()
def _bits(network: CoderNetwork, codes: Tensor) -> float:
    """Bits a code, as the integers will have them but for the rounding of frequencies."""
    batch = max(1, STEP_CODES // codes[0].numel())
    return float(torch.cat([network(part.long()).flatten() for part in codes.split(batch)]).mean())
