"""Training an autoencoder on images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..artifact import Artifact
from ..config import Config
from ..data import ImageData, add_noise, derive_seed, split_batches, training_batches
from ..errors import VqkitError
from ..metrics import psnr, to_pixels
from ..model import Autoencoder, Output
from ..model.quantizers import Bottleneck
from .losses import changing_weights, loss_weights, peak_weights
from .progress import Display
from .task import Batch
from .trainer import fit


@dataclass(frozen=True)
class TrainingResult:
    """A finished run: the artifact with averaged weights, its curves and events, and figures about the training."""

    artifact: Artifact
    history: list[dict[str, Any]]
    events: list[dict[str, Any]]
    figures: dict[str, Any]


def train(data: ImageData, config: Config, folder: Path, display: Display | None = None) -> TrainingResult | None:
    """Train an autoencoder on `data` as `config` says; see `fit`. None on ranks other than the first."""
    found = fit(AutoencoderTask(data, config), folder, display)
    if found is None:
        return None
    artifact = Artifact(config, cast(Autoencoder, found.model), data.describe())
    return TrainingResult(artifact, found.history, found.events, found.figures)


class AutoencoderTask:
    """See `Task`. Batches are (images,), or (noisy, images) with data.noise: uint8 (B, C, H, W)."""

    def __init__(self, data: ImageData, config: Config) -> None:
        self.data, self.settings_tree, self.seed, self.settings = data, config, config.seed, config.train
        self.fingerprint = data_fingerprint(data)

    def config(self) -> dict[str, Any]:
        return self.settings_tree.model_dump(mode="json")

    def build(self) -> Autoencoder:
        return build_model(self.data, self.settings_tree)

    def units(self, model: nn.Module) -> Sequence[nn.Module]:
        return cast(nn.Module, model.encoder), cast(nn.Module, model.decoder)

    def quantizer(self, model: nn.Module) -> Bottleneck | None:
        quantizer = cast(Bottleneck, model.quantizer)
        return quantizer if quantizer.is_countable else None

    def title(self, model: nn.Module) -> str:
        bits = cast(Autoencoder, model).bits_per_image(self.data.size)
        return f"{self.data.name}: {len(self.data.splits['train'])} training images; {bits:.0f} bits an image"

    def batches(self, start_step: int, rank: int, world_size: int) -> Iterator[Batch]:
        settings, where = self.settings_tree.data, (start_step, rank, world_size)
        found = training_batches(self.data, settings, self.settings.batch_size, self.seed, *where)
        first = rank * (self.settings.batch_size // world_size)
        for step, (_, images) in enumerate(found, start_step):
            yield self._batch(images, [("noise", self.seed, step, first + row) for row in range(len(images))])

    def validation_batches(self) -> Iterator[Batch]:
        num_workers = self.settings_tree.data.num_workers
        for indices, images in split_batches(self.data, "validation", self.settings.batch_size, num_workers):
            yield self._batch(images, [("validation noise", self.seed, index) for index in indices.tolist()])

    def _batch(self, images: Tensor, names: Sequence[tuple[Any, ...]]) -> Batch:
        """With noise, if any is asked for, from each image's own name alone: alike for any number of ranks."""
        noise = self.settings_tree.data.noise
        if not noise.sigma:
            return (images,)
        return add_noise(images, noise, [derive_seed(*name) for name in names]), images

    def forward(self, model: nn.Module, batch: Batch, generator: torch.Generator | None) -> Output:
        device = next(model.parameters()).device
        parts = [self.data.normalisation.apply(images.to(device, non_blocking=True)) for images in batch]
        x, *target = (part.contiguous(memory_format=torch.channels_last) for part in parts)
        return model(x, generator, *target)

    def weights(self, progress: float) -> dict[str, float]:
        return loss_weights(self.settings_tree.losses, progress)

    def peak_weights(self) -> dict[str, float]:
        return peak_weights(self.settings_tree.losses)

    def changing_weights(self) -> set[str]:
        return changing_weights(self.settings_tree.losses)

    def figures(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        pixels = to_pixels(self.data.normalisation.undo(output.reconstruction.detach()))
        return {"psnr": psnr(pixels, batch[-1].to(pixels.device)).mean()}


def build_model(data: ImageData, config: Config) -> Autoencoder:
    """The untrained model for images of this size and normalisation. VqkitError for settings that contradict."""
    shape = (data.channels, *data.size)
    try:
        return Autoencoder(config.model, shape, config.losses, data.normalisation.std, data.normalisation.mean)
    except ValueError as error:
        raise VqkitError(f"these settings do not go together: {error}") from error


def data_fingerprint(data: ImageData) -> dict[str, Any]:
    """What must be equal for a resumed run to go on with the same images: counts and exact pixel statistics."""
    found = data.describe()
    return {key: found[key] for key in ("images", "size", "channels", "splits", "normalisation")}
