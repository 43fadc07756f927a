"""Training an autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...artifact.build import build_model
from ...data.dataset import Batch, Dataset
from ...model.autoencoder import Autoencoder, Output, channels_last
from ...model.quantizers import Bottleneck
from ...settings import Config
from ...signals.base import Signal
from ..losses import changing_weights, loss_weights, peak_weights
from ..task import Phase, Task


class AutoencoderTask(Task):
    """Reconstruct what comes in, or its target where noise was put on it."""

    def __init__(self, data: Dataset, config: Config, signal: Signal) -> None:
        self.data = data
        self.all_settings = config
        self.signal = signal
        self.seed = config.seed
        self.settings = config.train
        self.fingerprint = data.fingerprint
        self.phases = (Phase("autoencoder", self._forward, self._weights),)

    def config(self) -> dict[str, Any]:
        return self.all_settings.model_dump(mode="json")

    def build(self) -> Autoencoder:
        return build_model(self.all_settings, self.data.shape, self.data.normalisation)

    def units(self, model: nn.Module) -> Sequence[nn.Module]:
        return cast(nn.Module, model.encoder), cast(nn.Module, model.decoder)

    def quantizer(self, model: nn.Module) -> Bottleneck | None:
        quantizer = cast(Bottleneck, model.quantizer)
        return quantizer if quantizer.is_countable else None

    def title(self, model: nn.Module) -> str:
        bits = cast(Autoencoder, model).num_bits(self.data.shape.extent)
        items = f"{len(self.data.splits['train'])} training {self.signal.item}s"
        return f"{self.data.name}: {items}; {bits:.0f} bits {self.signal.an_item}"

    def batches(self, start_step: int, rank: int, world_size: int) -> Iterator[Batch]:
        return self.data.train(start_step, self.settings.batch_size, self.seed, rank, world_size)

    def validation_batches(self) -> Iterator[Batch]:
        return self.data.validation(self.settings.batch_size, self.seed)

    def num_items(self, batch: Batch) -> int:
        return len(batch.values)

    def peak_weights(self) -> dict[str, float]:
        return peak_weights(self.all_settings.losses)

    def changing_weights(self) -> set[str]:
        return changing_weights(self.all_settings.losses)

    def figures(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        values = self.data.normalisation.restore(output.reconstruction.detach())
        wanted = batch.values if batch.target is None else batch.target
        measures = self.signal.measures(values, wanted.to(values.device), batch.mask)
        return {name: each.mean() for name, each in measures.items()}

    def _weights(self, progress: float) -> dict[str, float]:
        return loss_weights(self.all_settings.losses, progress)

    def _forward(self, model: nn.Module, batch: Batch, generator: torch.Generator | None) -> Output:
        device = next(model.parameters()).device
        x = self._standardised(batch.values, device)
        target = None if batch.target is None else self._standardised(batch.target, device)
        mask = None if batch.mask is None else batch.mask.to(device)
        parts = self.settings.accumulate if generator is not None else 1
        return model(x, generator, target, mask, parts)

    def _standardised(self, values: Tensor, device: torch.device) -> Tensor:
        return channels_last(self.data.normalisation.apply(values.to(device, non_blocking=True)))
