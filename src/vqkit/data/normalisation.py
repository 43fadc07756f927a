"""Per-channel standardisation of uint8 images, and the exact measurement of its constants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..errors import VqkitError


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, in pixel units where 0 is black and 1 is white."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) uint8 -> (B, C, H, W) float32
        """Standardised images: mean 0 and deviation 1 over the set that was measured."""
        scale = torch.tensor([1 / (255 * std) for std in self.std], device=images.device)
        shift = torch.tensor([-mean / std for mean, std in zip(self.mean, self.std, strict=True)], device=images.device)
        return images.to(torch.float32, copy=True).mul_(scale.view(-1, 1, 1)).add_(shift.view(-1, 1, 1))

    def undo(self, standardised: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, C, H, W) float32
        """Back to pixel units [0, 1]; not clamped, as a model may overshoot and a loss may want to know."""
        std = torch.tensor(self.std, device=standardised.device).view(-1, 1, 1)
        mean = torch.tensor(self.mean, device=standardised.device).view(-1, 1, 1)
        return standardised.to(torch.float32) * std + mean

    def to_dict(self) -> dict[str, list[float]]:
        """For JSON; `from_dict` reads it back unchanged."""
        return {key: list(values) for key, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Normalisation:
        """From `to_dict`. VqkitError if a key is missing or the two lists differ in length."""
        try:
            made = cls(tuple(float(x) for x in tree["mean"]), tuple(float(x) for x in tree["std"]))
        except (KeyError, TypeError, ValueError) as error:
            raise VqkitError("normalisation must hold two lists of numbers, mean and std") from error
        if len(made.mean) != len(made.std) or not made.mean or min(made.std) <= 0:
            raise VqkitError("normalisation must hold as many means as positive deviations, one per channel")
        return made


def measure(batches: Iterable[torch.Tensor], channels: int) -> Normalisation:
    """Constants of all pixels of uint8 batches (B, C, H, W), exact and independent of how they are cut into batches.

    A channel that never changes gets deviation 1, so that it becomes all zeros. VqkitError if none changes.
    """
    counts = torch.zeros(channels, 256, dtype=torch.float64)  # whole numbers below 2**53: sums are exact
    for images in batches:
        for channel in range(channels):
            counts[channel] += torch.bincount(images[:, channel].flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts / counts.sum(1, keepdim=True)
    mean = (shares * values).sum(1)
    std = (shares * (values - mean[:, None]).square()).sum(1).sqrt()
    constant = (counts > 0).sum(1) <= 1
    if bool(constant.all()):
        raise VqkitError("the training images are constant: every pixel of every image has the same value")
    return Normalisation(tuple(mean.tolist()), tuple(torch.where(constant, 1.0, std).tolist()))
