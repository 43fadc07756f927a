"""Per-channel standardisation of values, whose constants are measured exactly for 8-bit ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import VqkitError

# Largest value of 8 bits, which stands for 1 in the units of mean and deviation.
BYTE = 255


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel (C,), in units where `levels` is 1.

    levels: the largest of the whole numbers from 0 that values are; None = they are floats, taken
    as they are. is_signed: whole numbers of 16 bits from -levels to levels - 1 instead.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: int | None = BYTE
    is_signed: bool = False

    def apply(self, values: Tensor) -> Tensor:  # (B, C, *extent) -> (B, C, *extent) float32
        """Standardised values: mean 0 and deviation 1 over the set that was measured."""
        top = self.levels or 1
        scale = [1 / (top * std) for std in self.std]
        shift = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        standardised = values.to(torch.float32, copy=True)
        return standardised.mul_(_channelwise(scale, values)).add_(_channelwise(shift, values))

    def undo(self, standardised: Tensor) -> Tensor:  # (B, C, *extent) -> (B, C, *extent) float32
        """Back to units where `levels` is 1.

        Not clamped, as a model may overshoot and a loss may want to know.
        """
        values = standardised.to(torch.float32)
        return values * _channelwise(self.std, values) + _channelwise(self.mean, values)

    def restore(self, standardised: Tensor) -> Tensor:
        """Back to values as files hold them: rounded and clamped to whole numbers where these
        are.
        """
        values = self.undo(standardised)
        if self.levels is None:
            return values
        scaled = (values * float(self.levels)).round_()
        if self.is_signed:
            return scaled.clamp_(-self.levels, self.levels - 1).to(torch.int16)
        return scaled.clamp_(0, self.levels).to(torch.uint8)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it back unchanged.

        Values of 8 bits are the rule, which is not written.
        """
        constants: dict[str, Any] = {"mean": list(self.mean), "std": list(self.std)}
        if self.levels != BYTE:
            constants["levels"] = self.levels
        if self.is_signed:
            constants["is_signed"] = True
        return constants

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Normalisation:
        """From `to_dict`. VqkitError if a key is missing or the two lists differ in length."""
        try:
            levels = tree.get("levels", BYTE)
            made = cls(
                mean=tuple(float(x) for x in tree["mean"]),
                std=tuple(float(x) for x in tree["std"]),
                levels=None if levels is None else int(levels),
                is_signed=bool(tree.get("is_signed", False)),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise VqkitError(
                "normalisation must hold two lists of numbers, mean and std"
            ) from error
        if len(made.mean) != len(made.std) or not made.mean or min(made.std) <= 0:
            raise VqkitError(
                "normalisation must hold as many means as positive deviations, one per channel"
            )
        return made


def _channelwise(numbers: Sequence[float], like: Tensor) -> Tensor:
    """One number a channel (C,), to go with values (B, C, *extent)."""
    return torch.tensor(numbers, device=like.device).view(-1, *(1,) * (like.dim() - 2))


def measure(batches: Iterable[torch.Tensor], channels: int) -> Normalisation:
    """Constants of all pixels of uint8 batches (B, C, H, W), exact and independent of how they are
    cut into batches.

    A channel that never changes gets deviation 1, so that it becomes all zeros. VqkitError if none
    changes.
    """
    # Whole numbers below 2^53: sums of them are exact.
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for items in batches:
        for channel in range(channels):
            counts[channel] += torch.bincount(items[:, channel].flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts / counts.sum(1, keepdim=True)
    mean = (shares * values).sum(1)
    std = (shares * (values - mean[:, None]).square()).sum(1).sqrt()
    constant = (counts > 0).sum(1) <= 1
    if bool(constant.all()):
        raise VqkitError("the training items are constant: every value of every item is the same")
    return Normalisation(tuple(mean.tolist()), tuple(torch.where(constant, 1.0, std).tolist()))
