"""Training a prior on the codes of an artifact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ...artifact.record import Artifact
from ...data.dataset import Dataset
from ...errors import VqkitError
from ...model.quantizers.base import rank as this_rank
from ...model.quantizers.base import ranks
from ...prior.layout import Layout
from ...prior.network import Condition, PriorNetwork
from ...prior.prior import build_prior_network, caption_bytes, code_vectors
from ...settings import PriorConfig
from ..task import Phase
from .codes import CodesTask, Rows, mean_nats


class PriorOutput(NamedTuple):
    """What the prior says of a batch.

    terms: nats a code, `causal` in the canonical order and `any_order` in random ones. codes: (B,
    Q, *grid).
    """

    terms: dict[str, Tensor]
    codes: Tensor


@dataclass(frozen=True)
class Labels:
    """What codes are conditioned on: a row of numbers for each item, and what the numbers mean.

    rows: (N,) int64 class numbers, (N, bytes) uint8 captions, or (N, 0) for nothing. classes: names
    by number, empty without classes. has_captions: whether rows are bytes of captions.
    """

    rows: Tensor
    classes: tuple[str, ...] = ()
    has_captions: bool = False

    @classmethod
    def of(cls, data: Dataset, config: PriorConfig) -> Labels:
        """Those of a data set. VqkitError when it has not got what config.condition wants."""
        wanted = config.condition
        if wanted == "auto" and data.captions:
            wanted = "caption"
        elif wanted == "auto":
            wanted = "class" if data.groups else "none"
        if wanted == "caption":
            if not data.captions:
                raise VqkitError(f"{data.name} has no captions; set condition=class or none")
            length = config.network.caption_bytes
            rows = torch.stack([caption_bytes(text, length) for text in data.captions])
            return cls(rows, has_captions=True)
        if wanted == "class":
            if not data.groups:
                raise VqkitError(f"{data.name} has no classes; set condition=none")
            classes = tuple(sorted(set(data.groups)))
            numbers = {name: number for number, name in enumerate(classes)}
            return cls(torch.tensor([numbers[name] for name in data.groups]), classes)
        return cls(torch.zeros(len(data), 0, dtype=torch.uint8))

    def condition(self, rows: Tensor) -> Condition:
        """Rows of some items -> what the network takes."""
        if self.has_captions:
            return Condition(captions=rows)
        if self.classes:
            return Condition(classes=rows)
        return Condition()

    def dropped(self, rows: Tensor, drop: Tensor) -> Tensor:
        """Rows with those of `drop` (B,) bool replaced by what stands for nothing."""
        if self.has_captions:
            return rows.masked_fill(drop[:, None], 0)
        if self.classes:
            return rows.masked_fill(drop, len(self.classes))
        return rows


class PriorTask(CodesTask):
    """Predict codes from codes: in the canonical order, and in random ones."""

    all_settings: PriorConfig

    def __init__(self, artifact: Artifact, data: Dataset, config: PriorConfig) -> None:
        self.labels = Labels.of(data, config)
        super().__init__(artifact, data, self.labels.rows, config)
        if config.network.order != "coarse_first" and artifact.network.quantizer.num_codebooks == 1:
            raise VqkitError(
                f"network.order={config.network.order} has no effect on codes of a single "
                "codebook: leave it at coarse_first"
            )
        layout = self.build().layout
        assert isinstance(layout, Layout)
        self.canonical = layout.canonical[0]  # (L,)
        self.fingerprint = {**data.fingerprint, "content_id": artifact.content_id}
        self.phases = (Phase("prior", self._forward, self._weights),)

    def build(self) -> PriorNetwork:
        model = self.artifact.network
        labels = self.labels
        network = build_prior_network(
            self.all_settings, model, len(labels.classes), labels.has_captions
        )
        network.start_from(code_vectors(model), torch.Generator().manual_seed(self.seed))
        return network

    def title(self, model: nn.Module) -> str:
        conditions = f"{len(self.labels.classes) or 'no'} classes"
        if self.labels.has_captions:
            conditions = "captions"
        length = cast(PriorNetwork, model).layout.length
        return (
            f"{self.data.name}: {len(self.data.splits['train'])} training items of {length} codes, "
            f"{conditions}"
        )

    def peak_weights(self) -> dict[str, float]:
        return {"causal": 1.0, "any_order": 1.0}

    def figures(self, output: PriorOutput, batch: Rows) -> dict[str, Tensor]:
        named = {"causal": "bits_per_code", "any_order": "bits_per_code_any_order"}
        return {named[name]: term.detach() / math.log(2) for name, term in output.terms.items()}

    def _weights(self, progress: float) -> dict[str, float]:
        share = self.all_settings.random_order
        return {"causal": 1.0 - share, "any_order": share}

    def _forward(
        self, model: nn.Module, batch: Rows, generator: torch.Generator | None
    ) -> PriorOutput:
        device = next(model.parameters()).device
        codes = self._codes(batch.items, device)
        rows = batch.rows.to(device)
        order = self.canonical.to(device).expand(len(rows), -1)
        real = None if batch.items.mask is None else codes.flatten(1) >= 0
        if generator is None:
            nats = model(codes.flatten(1), order, *self.labels.condition(rows))
            return PriorOutput({"causal": mean_nats(nats, real)}, codes)
        drop, random = self._draws(len(rows), order.shape[1], generator)
        mixed = round(len(rows) * self.all_settings.random_order)
        order = torch.cat([order[mixed:], random[:mixed]])
        condition = self.labels.condition(self.labels.dropped(rows, drop))
        nats = model(codes.flatten(1), order, *condition, self.settings.accumulate)
        # The first rows of the batch come in the canonical order, as many as are not mixed.
        num_causal = len(rows) - mixed
        terms = {}
        if num_causal:
            real_part = None if real is None else real[:num_causal]
            terms["causal"] = mean_nats(nats[:num_causal], real_part)
        if mixed:
            real_part = None if real is None else real[num_causal:]
            terms["any_order"] = mean_nats(nats[num_causal:], real_part)
        return PriorOutput(terms, codes)

    def _draws(self, count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which conditions are dropped (B,) bool, and random orders (B, L): this rank's share of
        those of all ranks.
        """
        whole = count * ranks()
        device = generator.device
        chances = torch.rand(whole, generator=generator, device=device)
        drop = chances < self.all_settings.condition_dropout
        order = torch.rand(whole, length, generator=generator, device=device).argsort(1)
        return drop.chunk(ranks())[this_rank()], order.chunk(ranks())[this_rank()]
