"""Fits the network that lossless files start from: a float twin of it, whose weights are rounded at the end.

Shapes: n pixels, C neighbours, H hidden channels, M logistics that are mixed, P planes.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..artifact import Artifact
from ..coding.values.network import (
    ARRAYS,
    BIAS_LIMIT,
    HIDDEN_BITS,
    INPUT_BITS,
    LEVELS,
    MAX_SIDE,
    MIXED,
    MOST,
    REACH,
    WEIGHT_BITS,
    ChannelNetwork,
    ValueNetwork,
    inputs,
    neighbours,
    num_inputs,
)
from ..data import ImageData, split_batches
from ..model.precision import use_bfloat16
from .progress import Display, Silent

HIDDEN = 128
STEP_PIXELS = 1024
STEPS = 12
"""of this fit, shared by the planes, for each step of the coder of codes"""
MAX_ROUNDS, MIN_STEPS = 20, 300
"""times that as many pixels are taken as there are, at most, and steps that this leaves of those that were asked for"""
LR = 4e-3
MAX_KEPT = 1 << 27
"""bytes of the training images that are in memory at most; more images than that are left out"""
NUM_VALIDATED = 256


class PixelTwin(nn.Module):
    """One plane. forward: inputs (n, 2 C + 1) and anchors (n, M) as integers make them, in pixels, rows and columns
    (n,), levels (n,) -> nats (n,) that each pixel costs."""

    def __init__(self, plane: int, size: tuple[int, int]) -> None:
        super().__init__()
        given = num_inputs(plane)
        self.first = nn.Parameter(torch.randn(given, HIDDEN) * given**-0.5)
        self.rows = nn.Parameter(torch.zeros(size[0], HIDDEN))
        self.columns = nn.Parameter(torch.zeros(size[1], HIDDEN))
        self.second = nn.Parameter(torch.randn(HIDDEN, HIDDEN) * HIDDEN**-0.5)
        self.second_bias = nn.Parameter(torch.zeros(HIDDEN))
        self.third = nn.Parameter(torch.randn(HIDDEN, HIDDEN) * HIDDEN**-0.5)
        self.third_bias = nn.Parameter(torch.zeros(HIDDEN))
        self.last = nn.Parameter(torch.randn(HIDDEN, 3 * MIXED) * 0.2 * HIDDEN**-0.5)
        self.last_bias = nn.Parameter(torch.zeros(3 * MIXED))

    def forward(self, values: Tensor, anchors: Tensor, rows: Tensor, columns: Tensor, levels: Tensor) -> Tensor:
        most = MOST / 2**HIDDEN_BITS
        hidden = (values / 2**INPUT_BITS) @ self.first
        hidden = functional.hardtanh(hidden + self.rows[rows] + self.columns[columns], 0, most)
        hidden = functional.hardtanh(hidden @ self.second + self.second_bias, 0, most)
        hidden = functional.hardtanh(hidden @ self.third + self.third_bias, 0, most)
        logits, means, scales = (hidden @ self.last + self.last_bias).float().split(MIXED, 1)
        weights = (logits * math.log(2)).softmax(1)
        steepness = math.log(2) / 16 * torch.exp2(-scales.clamp(-8, 4))
        lower = levels[:, None] - 0.5 - anchors - 64 * means
        below = torch.where(levels[:, None] == 0, 0.0, torch.sigmoid(lower * steepness))
        upto = torch.where(levels[:, None] == LEVELS - 1, 1.0, torch.sigmoid((lower + 1) * steepness))
        likely = (weights * (upto - below)).sum(1)
        return -torch.log(likely * (1 - 1 / LEVELS) + 2.0**-16)

    @torch.no_grad()
    def integers(self) -> ChannelNetwork:
        """The network of integers that computes nearly the same."""

        def whole(name: str, kind: type) -> np.ndarray:
            given = INPUT_BITS if name in ("rows", "columns") else HIDDEN_BITS
            limit, bits = ((1 << 15) - 1, 0) if kind is np.int16 else (BIAS_LIMIT, given)
            scaled = getattr(self, name).double() * 2.0 ** (WEIGHT_BITS + bits)
            return scaled.round().clamp(-limit, limit).numpy().astype(kind)

        return ChannelNetwork(**{name: whole(name, kind) for name, kind in ARRAYS.items()})


class _Pixels:
    """Images of a split, padded, of which any pixels are taken with their neighbours."""

    def __init__(self, data: ImageData, split: str, limit: int) -> None:
        parts, size = [], 0
        for _, images in split_batches(data, split, 256):
            parts.append(nn.functional.pad(images, (REACH,) * 4))
            size += parts[-1].numel()
            if size >= limit:
                break
        self.padded = torch.cat(parts) if parts else torch.zeros(0, 1, 1, 1, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.padded)

    def take(self, images: Tensor, plane: int, rows: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
        """What `PixelTwin` takes, of pixels (n,) of a plane."""
        _, planes, height, width = self.padded.shape
        start = ((images * planes + plane) * height + rows + REACH) * width + columns + REACH
        offsets = torch.tensor([(back * height + down) * width + right for back, down, right in neighbours(plane)])
        flat = self.padded.view(-1)
        given, anchors = inputs(flat[start[:, None] + offsets].numpy().astype(np.int32), plane)
        return torch.from_numpy(given), torch.from_numpy(anchors), rows, columns, flat[start]


def fit_pixels(
    artifact: Artifact, data: ImageData, steps: int, display: Display | None = None
) -> tuple[ValueNetwork, dict[str, float]] | None:
    """The network for lossless files, and lossless_bits_per_value (on validation images, if there are any).

    steps: of the coder of codes; few pixels take fewer. A pure function of artifact, data and steps. None for no steps,
    and for images with a side above MAX_SIDE, which the network cannot hold.
    """
    display = display or Silent()
    if steps and max(artifact.size) > MAX_SIDE:
        display.message(f"no network for lossless files: a side is above {MAX_SIDE} pixels; they will be larger")
    if not steps or max(artifact.size) > MAX_SIDE:
        return None
    pixels, held_out = _Pixels(data, "train", MAX_KEPT), _Pixels(data, "validation", 1)
    steps = STEPS * steps // artifact.channels
    steps = min(steps, max(MIN_STEPS, MAX_ROUNDS * len(pixels) * math.prod(artifact.size) // STEP_PIXELS))
    display.start(f"fitting lossless files to {len(pixels)} images")
    twins, bits = [], []
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(artifact.config.seed)
            for plane in range(artifact.channels):
                twins.append(_fitted(pixels, plane, artifact.size, steps, display))
                bits.append(_bits(twins[-1], held_out if len(held_out) else pixels, plane, artifact.size))
    finally:
        display.stop()
    return ValueNetwork([twin.integers() for twin in twins]), {"lossless_bits_per_value": float(np.mean(bits))}


def _fitted(pixels: _Pixels, plane: int, size: tuple[int, int], steps: int, display: Display) -> PixelTwin:
    twin = PixelTwin(plane, size)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=1e-3, fused=True)
    began, fast = time.monotonic(), use_bfloat16("auto")
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * min((step + 1) / 50, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        images, rows, columns = (torch.randint(top, (STEP_PIXELS,)) for top in (len(pixels), *size))
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            loss = twin(*pixels.take(images, plane, rows, columns)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0:
            display.update(step / steps, {"step": step, "seconds": time.monotonic() - began})
    return twin


@torch.no_grad()
def _bits(twin: PixelTwin, pixels: _Pixels, plane: int, size: tuple[int, int]) -> float:
    """Bits a pixel of the first images, by the network alone."""
    rows, columns = torch.arange(size[0]).repeat_interleave(size[1]), torch.arange(size[1]).repeat(size[0])
    costs = [
        twin(*pixels.take(torch.full_like(rows, image), plane, rows, columns)).mean()
        for image in range(min(NUM_VALIDATED, len(pixels)))
    ]
    return float(torch.stack(costs).mean()) / math.log(2)
