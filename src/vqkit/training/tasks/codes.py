"""What trainings of priors share: items of a set, whose codes are found as they come."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ...artifact.record import Artifact
from ...data.dataset import Batch, Dataset
from ...model.autoencoder import channels_last
from ...prior.network import PriorNetwork
from ...settings import PairConfig, PriorConfig
from ..task import Task

# Validation items of one pass: more would cost a tenth of short runs.
MAX_VALIDATED = 1024
# Codes that are kept at most, of four bytes each.
MAX_KEPT = 1 << 26


class Rows(NamedTuple):
    """Items, and for each the row of what belongs to it."""

    items: Batch
    rows: Tensor


class CodesTask(Task):
    """Predict codes of the items of a set, beside each of which there is a row of a table.

    rows: (N, ...) of all items: labels, or codes of other items. all_settings: of the run.
    """

    all_settings: PriorConfig | PairConfig

    def __init__(
        self, artifact: Artifact, data: Dataset, rows: Tensor, config: PriorConfig | PairConfig
    ) -> None:
        """VqkitError for settings of `augment` that the signal does not have."""
        self.artifact = artifact
        self.data = data.for_codes(config.augment)
        self.rows = rows
        self.seed = config.seed
        self.settings = config.train
        self.all_settings = config
        # The autoencoder on the device of training: a copy of its own, the artifact stays where it
        # is.
        self._encoder = artifact.network
        # Codes of items that come again as they are, by number.
        self._kept: dict[int, Tensor] = {}

    def config(self) -> dict[str, Any]:
        return self.all_settings.model_dump(mode="json")

    def units(self, model: nn.Module) -> Sequence[nn.Module]:
        return list(cast(PriorNetwork, model).blocks)

    def batches(self, start_step: int, rank: int, world_size: int) -> Iterator[Rows]:
        size = self.settings.batch_size
        return map(self._with_rows, self.data.train(start_step, size, self.seed, rank, world_size))

    def validation_batches(self) -> Iterator[Rows]:
        size = self.settings.batch_size
        batches = self.data.split("validation", size)
        return map(self._with_rows, islice(batches, -(-MAX_VALIDATED // size)))

    def num_items(self, batch: Rows) -> int:
        return len(batch.rows)

    def _with_rows(self, items: Batch) -> Rows:
        return Rows(items, self.rows[torch.from_numpy(items.ids)])

    def _codes(self, items: Batch, device: torch.device) -> Tensor:
        """Codes (B, Q, *grid); padding where an item has no positions.

        Where items come again as they are, they are kept: of recordings, to find them is a quarter
        of a step.
        """
        if not self.data.is_unchanged:
            return self._found(items, device)
        ids = items.ids.tolist()
        if not all(index in self._kept for index in ids):
            codes = self._found(items, device)
            if codes[0].numel() * (len(self._kept) + len(ids)) > MAX_KEPT:
                return codes
            self._kept.update(zip(ids, codes.int().cpu(), strict=True))
        return torch.stack([self._kept[index] for index in ids]).long().to(device)

    @torch.no_grad()
    def _found(self, items: Batch, device: torch.device) -> Tensor:
        if next(self._encoder.parameters()).device != device:
            self._encoder = copy.deepcopy(self.artifact.network).to(device)
        values = items.values.to(device)
        mask = None if items.mask is None else items.mask.to(device)
        return self._encoder.encode(channels_last(self.artifact.normalisation.apply(values)), mask)


def mean_nats(nats: Tensor, real: Tensor | None) -> Tensor:
    """Mean of nats (B, L) over the codes that are no padding."""
    if real is None:
        return nats.mean()
    return nats.sum() / real.sum()
