"""Fits the network that lossless files start from, by a float twin that is rounded at the end.

Shapes: n values, C neighbours, H hidden channels, M logistics that are mixed, P planes (channels of
a signal). The extent of an item is seen as rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from ...artifact.tokenizer import Tokenizer
from ...coding.codes.mixing_state import BORDER, neighbours
from ...coding.grids import rows_and_columns
from ...coding.values.network import (
    ARRAYS,
    BIAS_LIMIT,
    HIDDEN_BITS,
    INPUT_BITS,
    LEVELS,
    MAX_SIDE,
    MIXED,
    MOST,
    WEIGHT_BITS,
    ChannelNetwork,
    ValueNetwork,
    inputs,
    num_inputs,
)
from ...config.sections import TrainConfig
from ...data.dataset import Dataset
from ...data.splits import derive_seed
from ..task import Phase, Task

HIDDEN = 128
# Values of each plane in a step.
STEP_VALUES = 1024
# Steps of this fit, shared by the planes, for each step of the coder of codes.
STEPS = 12
# Times that as many values are taken as there are, at most, and steps that this leaves of those
# that were asked for.
MAX_EPOCHS = 20
MIN_STEPS = 300
LR = 4e-3
WARMUP_STEPS = 50
# Bytes of the training items that are in memory at most; more items than that are left out.
MAX_KEPT = 1 << 27
NUM_VALIDATED = 256


class ChannelTwin(nn.Module):
    """One plane. forward: inputs (n, 2 C + 1) and anchors (n, M) as integers make them, rows and
    columns (n,), levels (n,) -> nats (n,) that each value costs.
    """

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

    def forward(
        self, values: Tensor, anchors: Tensor, rows: Tensor, columns: Tensor, levels: Tensor
    ) -> Tensor:
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
        upto = torch.sigmoid((lower + 1) * steepness)
        # The outermost levels have what lies beyond them, too.
        upto = torch.where(levels[:, None] == LEVELS - 1, 1.0, upto)
        likely = (weights * (upto - below)).sum(1)
        return -torch.log(likely * (1 - 1 / LEVELS) + 2.0**-16)

    @torch.no_grad()
    def integers(self) -> ChannelNetwork:
        """The network of integers that computes nearly the same."""

        def whole(name: str, kind: type) -> np.ndarray:
            limit = BIAS_LIMIT
            bits = WEIGHT_BITS
            if kind is np.int16:
                limit = (1 << 15) - 1
            elif name in ("rows", "columns"):
                # What is added to products has the bits of both.
                bits += INPUT_BITS
            else:
                bits += HIDDEN_BITS
            scaled = getattr(self, name).double() * 2.0**bits
            return scaled.round().clamp(-limit, limit).numpy().astype(kind)

        return ChannelNetwork(**{name: whole(name, kind) for name, kind in ARRAYS.items()})


class ValueTwin(nn.Module):
    """The twins of all planes. forward: inputs of values for each plane -> nats (n,) of each
    plane.
    """

    def __init__(self, num_planes: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.planes = nn.ModuleList(ChannelTwin(plane, size) for plane in range(num_planes))

    def forward(self, planes: list[PlaneInputs]) -> list[Tensor]:
        return [twin(*given) for twin, given in zip(self.planes, planes, strict=True)]

    def integers(self) -> ValueNetwork:
        """The network of integers that computes nearly the same."""
        return ValueNetwork([cast(ChannelTwin, twin).integers() for twin in self.planes])


class PlaneInputs(NamedTuple):
    """What `ChannelTwin` takes, of n values."""

    values: Tensor
    anchors: Tensor
    rows: Tensor
    columns: Tensor
    levels: Tensor


class ValueOutput(NamedTuple):
    """terms: nats a value; codes: none that a guard could watch."""

    terms: dict[str, Tensor]
    codes: Tensor


class ValueCoderTask(Task):
    """Fit the float twin to the values of a data set, a pure function of it, of the seed and of the
    steps.

    steps: of the coder of codes; few values take fewer.
    """

    is_alone = True

    def __init__(self, tokenizer: Tokenizer, data: Dataset, steps: int) -> None:
        artifact = tokenizer.artifact
        shape = tokenizer.shape
        self.seed = artifact.config.seed
        self.num_planes = shape.channels
        self.size = rows_and_columns(shape.extent)
        self.kept = _Items(data, "train", MAX_KEPT)
        self.held_out = _Items(data, "validation", NUM_VALIDATED * shape.num_values)
        if not len(self.held_out):
            self.held_out = self.kept
        steps = STEPS * steps // self.num_planes
        enough = MAX_EPOCHS * len(self.kept) * shape.num_positions // STEP_VALUES
        steps = min(steps, max(MIN_STEPS, enough))
        self.settings = TrainConfig(
            steps=steps,
            batch_size=STEP_VALUES,
            lr=LR,
            clip_norm=0.0,
            ema_decay=0.0,
            precision="auto",
            validate_every=steps,
            checkpoint_every=1000,
            log_every=50,
            guard="off",
        )
        self.fingerprint = {**data.fingerprint, "content_id": artifact.content_id, "steps": steps}
        self.phases = (
            Phase("values", self._forward, lambda progress: {"nats": 1.0}, self._optimizers),
        )

    @staticmethod
    def why_not(tokenizer: Tokenizer) -> str:
        """Why the values of a tokenizer cannot be held by this coder; empty where they can."""
        if tokenizer.artifact.normalisation.levels != LEVELS - 1:
            return "its values are no numbers of 8 bits"
        if max(rows_and_columns(tokenizer.shape.extent)) > MAX_SIDE:
            return f"a side is above {MAX_SIDE}"
        return ""

    def config(self) -> dict[str, Any]:
        return {"steps": self.settings.steps}

    def build(self) -> ValueTwin:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return ValueTwin(self.num_planes, self.size)

    def title(self, model: nn.Module) -> str:
        return f"the coder of lossless files: values of {len(self.kept)} items"

    def batches(self, start_step: int, rank: int, world_size: int) -> Iterator[list[PlaneInputs]]:
        step = start_step
        while True:
            generator = torch.Generator().manual_seed(derive_seed("values", self.seed, step))
            yield [self._drawn(plane, generator) for plane in range(self.num_planes)]
            step += 1

    def validation_batches(self) -> Iterator[list[PlaneInputs]]:
        rows = torch.arange(self.size[0]).repeat_interleave(self.size[1])
        columns = torch.arange(self.size[1]).repeat(self.size[0])
        for item in range(min(NUM_VALIDATED, len(self.held_out))):
            items = torch.full_like(rows, item)
            planes = []
            for plane in range(self.num_planes):
                planes.append(self.held_out.take(items, plane, rows, columns))
            yield planes

    def num_items(self, batch: list[PlaneInputs]) -> int:
        return 1

    def figures(self, output: ValueOutput, batch: list[PlaneInputs]) -> dict[str, Tensor]:
        return {"bits_per_value": output.terms["nats"].detach() / math.log(2)}

    def lr_factor(self, progress: float) -> float:
        warm = (progress * self.settings.steps + 1) / WARMUP_STEPS
        return min(warm, 0.5 + 0.5 * math.cos(math.pi * progress))

    def _drawn(self, plane: int, generator: torch.Generator) -> PlaneInputs:
        size = (STEP_VALUES,)
        items = torch.randint(len(self.kept), size, generator=generator)
        rows = torch.randint(self.size[0], size, generator=generator)
        columns = torch.randint(self.size[1], size, generator=generator)
        return self.kept.take(items, plane, rows, columns)

    def _forward(
        self, model: nn.Module, batch: list[PlaneInputs], generator: torch.Generator | None
    ) -> ValueOutput:
        device = next(model.parameters()).device
        planes = [PlaneInputs(*(part.to(device) for part in plane)) for plane in batch]
        means = [nats.mean() for nats in model(planes)]
        terms = {"nats": torch.stack(means).mean()}
        return ValueOutput(terms, torch.zeros(0, device=device))

    def _optimizers(self, model: nn.Module) -> list[Optimizer]:
        group = {"params": list(model.parameters()), "peak_lr": LR}
        return [AdamW([group], lr=LR, betas=(0.9, 0.95), weight_decay=1e-3, fused=True)]


class _Items:
    """Items of a split as rows and columns, padded, of which any values are taken with their
    neighbours.
    """

    def __init__(self, data: Dataset, split: str, limit: int) -> None:
        parts: list[Tensor] = []
        size = 0
        for batch in data.split(split, 256):
            plane = rows_and_columns(batch.values.shape[2:])
            values = batch.values.reshape(*batch.values.shape[:2], *plane)
            parts.append(functional.pad(values, (BORDER,) * 4))
            size += values.numel()
            if size >= limit:
                break
        self.padded = torch.zeros(0, 1, 1, 1, dtype=torch.uint8)
        if parts:
            self.padded = torch.cat(parts)

    def __len__(self) -> int:
        return len(self.padded)

    def take(self, items: Tensor, plane: int, rows: Tensor, columns: Tensor) -> PlaneInputs:
        """Values (n,) of a plane, by item, row and column, with what is around them."""
        _, planes, high, wide = self.padded.shape
        start = ((items * planes + plane) * high + rows + BORDER) * wide + columns + BORDER
        # Where neighbours are in the flat values, from their slot on.
        offsets = torch.tensor(neighbours(plane)) @ torch.tensor([high * wide, wide, 1])
        flat = self.padded.view(-1)
        around = flat[start[:, None] + offsets].numpy()
        given, anchors = inputs(around.astype(np.int32), plane)
        return PlaneInputs(
            values=torch.from_numpy(given),
            anchors=torch.from_numpy(anchors),
            rows=rows,
            columns=columns,
            levels=flat[start],
        )
