"""Training a prior on the codes of an artifact."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..artifact import Artifact
from ..config import PriorConfig
from ..data import ImageData, split_batches, training_batches
from ..errors import VqkitError
from ..model.prior import Condition, Prior, PriorNetwork, build_prior_network, caption_bytes, code_vectors
from ..model.quantizers.base import rank as this_rank
from ..model.quantizers.base import ranks
from .images import data_fingerprint
from .progress import Display
from .task import Batch
from .trainer import fit

MAX_VALIDATED = 1024
"""validation images of one look: more would cost a tenth of short runs"""


@dataclass(frozen=True)
class PriorResult:
    """A finished run: the prior with averaged weights, its curves and events, and figures about the training."""

    prior: Prior
    history: list[dict[str, Any]]
    events: list[dict[str, Any]]
    figures: dict[str, Any]


class PriorOutput(NamedTuple):
    """terms: nats a code, `causal` in the canonical order and `any_order` in random ones; codes (B, Q, h, w)."""

    terms: dict[str, Tensor]
    codes: Tensor


def train_prior(
    artifact: Artifact, data: ImageData, config: PriorConfig, folder: Path, display: Display | None = None
) -> PriorResult | None:
    """Train a prior on the codes that `artifact` gives `data`; see `fit`. None on ranks other than the first."""
    task = PriorTask(artifact, data, config)
    found = fit(task, folder, display)
    if found is None:
        return None
    prior = Prior(config, cast(PriorNetwork, found.model), task.labels.classes)
    return PriorResult(prior, found.history, found.events, found.figures)


class Labels:
    """What a prior is told about each image: rows of numbers, and what they mean.

    classes: names by number, empty without classes. has_captions: whether rows are bytes of captions.
    Errors: VqkitError when the data has not got what config.condition wants.
    """

    def __init__(self, data: ImageData, config: PriorConfig) -> None:
        wanted = config.condition
        if wanted == "auto":
            wanted = "caption" if data.captions else "class" if data.groups else "none"
        self.classes: tuple[str, ...] = ()
        self.has_captions = wanted == "caption"
        count = len(data)
        if wanted == "caption":
            if not data.captions:
                raise VqkitError(f"{data.name} has no captions; set condition=class or none")
            length = config.network.caption_bytes
            self.rows = torch.stack([caption_bytes(text, length) for text in data.captions])
        elif wanted == "class":
            if not data.groups:
                raise VqkitError(f"{data.name} has no classes; set condition=none")
            self.classes = tuple(sorted(set(data.groups)))
            numbers = {name: number for number, name in enumerate(self.classes)}
            self.rows = torch.tensor([numbers[name] for name in data.groups])
        else:
            self.rows = torch.zeros(count, 0, dtype=torch.uint8)

    def condition(self, rows: Tensor) -> Condition:
        """Rows of some images -> what the network takes."""
        if self.has_captions:
            return Condition(captions=rows)
        return Condition(classes=rows) if self.classes else Condition()

    def dropped(self, rows: Tensor, drop: Tensor) -> Tensor:
        """Rows with those of `drop` (B,) bool replaced by what stands for nothing."""
        if self.has_captions:
            return rows.masked_fill(drop[:, None], 0)
        return rows.masked_fill(drop, len(self.classes)) if self.classes else rows


class PriorTask:
    """See `Task`. Batches are images, uint8 (B, C, H, W), and rows of labels; they become codes on the way."""

    def __init__(self, artifact: Artifact, data: ImageData, config: PriorConfig) -> None:
        self.artifact, self.data, self.settings_tree = artifact, data, config
        self.seed, self.settings = config.seed, config.train
        self.labels = Labels(data, config)
        self.canonical = self.build().layout.canonical[0]  # (L,)
        self.fingerprint = {**data_fingerprint(data), "content_id": artifact.content_id}

    def config(self) -> dict[str, Any]:
        return self.settings_tree.model_dump(mode="json")

    def build(self) -> PriorNetwork:
        labels, model = self.labels, self.artifact.model
        network = build_prior_network(
            self.settings_tree, model, self.artifact.size, len(labels.classes), labels.has_captions
        )
        network.start_from(code_vectors(model), torch.Generator().manual_seed(self.seed))
        return network

    def units(self, model: nn.Module) -> Sequence[nn.Module]:
        return list(cast(PriorNetwork, model).blocks)

    def quantizer(self, model: nn.Module) -> None:
        return None

    def title(self, model: nn.Module) -> str:
        told = "captions" if self.labels.has_captions else f"{len(self.labels.classes) or 'no'} classes"
        length = cast(PriorNetwork, model).layout.length
        return f"{self.data.name}: {len(self.data.splits['train'])} training images of {length} codes, {told}"

    def batches(self, start_step: int, rank: int, world_size: int) -> Iterator[Batch]:
        settings = self.artifact.config.data.model_copy(update={"augment": self.settings_tree.augment})
        where = start_step, rank, world_size
        for indices, images in training_batches(self.data, settings, self.settings.batch_size, self.seed, *where):
            yield images, self.labels.rows[torch.from_numpy(np.asarray(indices))]

    def validation_batches(self) -> Iterator[Batch]:
        seen = 0
        for indices, images in split_batches(self.data, "validation", self.settings.batch_size):
            yield images, self.labels.rows[torch.from_numpy(np.asarray(indices))]
            seen += len(images)
            if seen >= MAX_VALIDATED:
                break

    def forward(self, model: nn.Module, batch: Batch, generator: torch.Generator | None) -> PriorOutput:
        images, rows = batch
        device = next(model.parameters()).device
        self.artifact.model.to(device)
        with torch.no_grad():
            codes = self.artifact.model.encode(self.artifact.standardise(images.to(device)))
        rows = rows.to(device)
        order = self.canonical.to(device).expand(len(images), -1)
        if generator is None:
            nats = model(codes.flatten(1), order, *self.labels.condition(rows))
            return PriorOutput({"causal": nats.mean()}, codes)
        drop, random = self._draws(len(images), order.shape[1], generator)
        mixed = round(len(images) * self.settings_tree.random_order)
        order = torch.cat([order[mixed:], random[:mixed]])
        nats = model(codes.flatten(1), order, *self.labels.condition(self.labels.dropped(rows, drop)))
        parts = {"causal": nats[: len(images) - mixed], "any_order": nats[len(images) - mixed :]}
        return PriorOutput({name: part.mean() for name, part in parts.items() if len(part)}, codes)

    def _draws(self, count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which conditions are dropped (B,) bool, and random orders (B, L): this rank's share of those of all ranks."""
        whole = count * ranks()
        device = generator.device
        drop = torch.rand(whole, generator=generator, device=device) < self.settings_tree.condition_dropout
        order = torch.rand(whole, length, generator=generator, device=device).argsort(1)
        return drop.chunk(ranks())[this_rank()], order.chunk(ranks())[this_rank()]

    def weights(self, progress: float) -> dict[str, float]:
        return {"causal": 1.0 - self.settings_tree.random_order, "any_order": self.settings_tree.random_order}

    def peak_weights(self) -> dict[str, float]:
        return {"causal": 1.0, "any_order": 1.0}

    def changing_weights(self) -> set[str]:
        return set()

    def figures(self, output: PriorOutput, batch: Batch) -> dict[str, Tensor]:
        named = {"causal": "bits_per_code", "any_order": "bits_per_code_any_order"}
        return {named[name]: term.detach() / math.log(2) for name, term in output.terms.items()}
