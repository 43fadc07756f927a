"""Training an autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...artifact.build import build_model
from ...config.adversary import AdversarySection
from ...data.dataset import Batch, Dataset
from ...errors import VqkitError
from ...model.autoencoder import Autoencoder, Output, channels_last
from ...model.likelihood import by_value
from ...model.quantizers import Bottleneck
from ...settings import Config
from ...signals.base import Signal
from ..adversary import Adversary, Pair
from ..engine import Engine
from ..losses import changing_weights, loss_weights, peak_weights
from ..task import Phase, Task

# Batches that the guard of an adversarial stage measures without a validation split.
WATCHED = 4


class AutoencoderTask(Task):
    """Reconstruct what comes in, or its target where noise was put on it.

    weights: to start from, by name, with codes that stay as they are; None = a new model.
    VqkitError for settings that cannot be had here.
    """

    def __init__(
        self,
        data: Dataset,
        config: Config,
        signal: Signal,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.data = data
        self.weights = weights
        self.all_settings = config
        self.signal = signal
        self.seed = config.seed
        self.settings = config.train
        self.fingerprint = data.fingerprint
        self.phases = (Phase("autoencoder", self._forward, self._weights),)
        self.perceptual = perceptual_distance(config, data, signal)

    def config(self) -> dict[str, Any]:
        return self.all_settings.model_dump(mode="json")

    def build(self) -> Autoencoder:
        model = build_model(self.all_settings, self.data.shape, self.data.normalisation)
        if self.settings.strategy == "fsdp2":
            if any(part.sets_parameters for part in model.quantizer.parts()):
                raise VqkitError(
                    "fsdp2 shards parameters, and this quantizer sets its own from the first "
                    "batch; use train.strategy=ddp, or a codebook of moving averages (update=ema)"
                )
        if self.weights is not None:
            model.load_state_dict(dict(self.weights))
            model.freeze_codes()
        return model

    def adversary(self, model: nn.Module, engine: Engine) -> Adversary | None:
        settings = self.all_settings.adversary
        if not isinstance(settings, AdversarySection):
            return None
        if self.settings.strategy == "fsdp2":
            raise VqkitError(
                "an adversary compares gradients of whole matrices and fsdp2 shards them; use "
                "train.strategy=ddp, or adversary.kind=none"
            )
        decoder = cast(Autoencoder, model).decoder
        return Adversary(
            settings,
            self.signal.discriminator(settings, self.data.shape, self.all_settings.data),
            self.signal,
            decoder,
            self._pair,
            engine,
            self.settings.accumulate,
        )

    def units(self, model: nn.Module) -> Sequence[nn.Module]:
        return cast(nn.Module, model.encoder), cast(nn.Module, model.decoder)

    def quantizer(self, model: nn.Module) -> Bottleneck | None:
        quantizer = cast(Bottleneck, model.quantizer)
        return quantizer if quantizer.is_countable else None

    def title(self, model: nn.Module) -> str:
        bits = cast(Autoencoder, model).bits_in_words(self.data.shape.extent)
        items = f"{len(self.data.splits['train'])} training {self.signal.item}s"
        title = f"{self.data.name}: {items}; {bits} {self.signal.an_item}"
        if self.perceptual is not None:
            title += f"; perceptual distance: {self.perceptual.name}"
        return title

    def batches(self, start_step: int, rank: int, world_size: int) -> Iterator[Batch]:
        return self.data.train(start_step, self.settings.batch_size, self.seed, rank, world_size)

    def validation_batches(self) -> Iterator[Batch]:
        return self.data.validation(self.settings.batch_size, self.seed)

    def watched_batches(self) -> Iterator[Batch]:
        return islice(self.data.split("train", self.settings.batch_size), WATCHED)

    def num_items(self, batch: Batch) -> int:
        return len(batch.values)

    def peak_weights(self) -> dict[str, float]:
        return peak_weights(self.all_settings.losses)

    def changing_weights(self) -> set[str]:
        return changing_weights(self.all_settings.losses)

    def figures(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        values = self.data.normalisation.restore(output.reconstruction.detach())
        wanted = batch.values if batch.target is None else batch.target
        wanted = wanted.to(values.device)
        measures = self.signal.measures(values, wanted, batch.counted)
        if self.all_settings.adversary.kind != "none":
            measures["detail"] = self.signal.detail(values, wanted, batch.mask)
        return {name: each.mean() for name, each in measures.items()}

    def _weights(self, progress: float) -> dict[str, float]:
        return loss_weights(self.all_settings.losses, progress)

    def _forward(self, model: nn.Module, batch: Batch, generator: torch.Generator | None) -> Output:
        device = next(model.parameters()).device
        x = self._standardised(batch.values, device)
        target = None if batch.target is None else self._standardised(batch.target, device)
        mask = None if batch.counted is None else batch.counted.to(device)
        parts = self.settings.accumulate if generator is not None else 1
        output = model(x, generator, target, mask, parts)
        if self.perceptual is None:
            return output
        items = x if target is None else target
        fakes = without_padding(output.reconstruction, items, mask)
        if generator is not None:
            # Batches come in a random order.
            fakes = fakes[: self.signal.perceived]
            items = items[: self.signal.perceived]
        term = self.perceptual.to(device)(fakes, items)
        return output._replace(terms={**output.terms, "perceptual": term})

    def _pair(self, output: Output, batch: Batch) -> Pair:
        """Reconstruction and item, standardised, with the item's values in both where a position is
        padded.
        """
        device = output.reconstruction.device
        wanted = batch.values if batch.target is None else batch.target
        items = self._standardised(wanted, device)
        mask = None if batch.mask is None else batch.mask.to(device)
        return Pair(without_padding(output.reconstruction, items, mask), items, mask)

    def _standardised(self, values: Tensor, device: torch.device) -> Tensor:
        return channels_last(self.data.normalisation.apply(values.to(device, non_blocking=True)))


def without_padding(reconstruction: Tensor, items: Tensor, mask: Tensor | None) -> Tensor:
    """The reconstruction, with the values of the items where the mask (B, *extent), or that of
    single values (B, C, *extent), is False.
    """
    if mask is None:
        return reconstruction
    return reconstruction.where(by_value(mask, items), items)


def perceptual_distance(config: Config, data: Dataset, signal: Signal) -> nn.Module | None:
    """What `losses.perceptual` weighs; None where it is 0. VqkitError for one that is not there."""
    if not config.losses.perceptual.peak:
        return None
    wanted = config.losses.perceptual_distance
    return signal.perceptual_distance(wanted, data.normalisation, config.data)
