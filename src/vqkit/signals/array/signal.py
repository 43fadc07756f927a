"""Series and volumes as the rest of the package sees them."""

from __future__ import annotations

import math
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import VqkitError
from ...files import read_bounded
from ...model.autoencoder import Backbone, Widths
from ...model.likelihood import by_value
from ...shapes import Shape
from ..base import Signal
from ..paths import named_or_below
from . import display, files
from .config import ArrayConfig, SeriesData, VolumeData
from .files import BadArray, Target
from .network import build_backbone
from .source import ArrayData, Scale, open_arrays

MAX_MASK = 1 << 28
# What files begin with, and the suffix that they are read by; text begins with anything.
MAGIC = {b"\x93NUM": ".npy", b"PAR1": ".parquet"}
# Squared errors that are told apart: 120 dB below the deviations.
LEAST = 1e-12


class ArraySignal(Signal):
    """See `Signal`. Values are float32 (C, *extent), in deviations of the training set from its
    mean, channel by channel; what users give and get is in the units of their files.
    """

    suffix = ".npy"
    quality = "snr"
    quality_in_words = "SNR"
    change_in_words = "deviations"
    suffixes: ClassVar[tuple[str, ...]]
    dims: ClassVar[int]

    def open(
        self,
        source: str | Path,
        settings: Any,
        seed: int,
        data: Mapping[str, Any] | None = None,
        *,
        max_bad: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> ArrayData:
        known = {} if max_bad is None else {"max_bad": max_bad}
        channels = None if data is None else data["channels"]
        target = Target(self.dims, channels, settings)
        extent = self.extent_of(settings)
        return open_arrays(
            source, target, self.suffixes, extent, seed, data=data, progress=progress, **known
        )

    @abstractmethod
    def extent_of(self, settings: Any) -> tuple[int, ...]:
        """The extent of an item of training."""

    def can_be(self, path: Path) -> bool:
        return path.suffix.lower() in self.suffixes

    def find(self, paths: Iterable[str | Path]) -> Iterator[Path]:
        return named_or_below(paths, self.can_be)

    def read(
        self, path: str | Path, data: Mapping[str, Any], settings: Any, *, exact: bool = False
    ) -> Tensor:
        try:
            found = files.read(Path(path), Target(self.dims, data["channels"], settings))
        except BadArray as error:
            raise VqkitError(f"cannot read {path}: {error}") from error
        return torch.from_numpy(Scale.of(data).standardised(found))

    def read_content(self, content: bytes, data: Mapping[str, Any], settings: Any) -> Tensor:
        suffix = MAGIC.get(content[:4], ".csv")
        with tempfile.NamedTemporaryFile(suffix=suffix) as file:
            file.write(content)
            file.flush()
            try:
                found = files.read(Path(file.name), Target(self.dims, data["channels"], settings))
            except BadArray as error:
                raise VqkitError(str(error)) from error
            return torch.from_numpy(Scale.of(data).standardised(found))

    def fitted(
        self, values: Tensor, data: Mapping[str, Any], settings: Any, shape: Shape
    ) -> Tensor:
        inside = tuple(slice(0, side) for side in shape.extent)
        values = values[(slice(None), *inside)]
        behind: list[int] = []
        for side, wanted in zip(reversed(values.shape[1:]), reversed(shape.extent), strict=True):
            behind += [0, wanted - side]
        return F.pad(values, behind)

    def read_mask(self, said: str, extent: tuple[int, ...], data: Mapping[str, Any]) -> Tensor:
        if Path(said).suffix.lower() != ".npy":
            return self._spans(said, extent)
        read_bounded(said, MAX_MASK)
        try:
            found = np.load(said, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise VqkitError(f"{said} is no mask: {error}") from error
        if found.shape != extent:
            raise VqkitError(
                f"{said} has the shape {list(found.shape)}, the {self.item} {list(extent)}"
            )
        return torch.from_numpy(found != 0)

    def _spans(self, said: str, extent: tuple[int, ...]) -> Tensor:
        """Spans along each axis, such as 10-20 or 0-8,4-9,4-9."""
        mask = torch.zeros(extent, dtype=torch.bool)
        try:
            bounds = [tuple(map(int, part.split("-"))) for part in said.split(",")]
            inside = tuple(slice(start, end) for start, end in bounds)
            good = len(inside) == len(extent) and all(start < end for start, end in bounds)
        except (TypeError, ValueError):
            good = False
        if not good or not mask[inside].numel():
            raise VqkitError(
                f"{said!r} is no part of {self.an_item} of {list(extent)}: give the first and the "
                "last position along each axis, such as "
                f"{','.join(['0-8'] * len(extent))}, or an .npy file of that shape"
            )
        mask[inside] = True
        return mask

    def write(self, values: Tensor, data: Mapping[str, Any]) -> bytes:
        return files.write(Scale.of(data).restored(values.numpy()), self._target(data))

    @abstractmethod
    def _target(self, data: Mapping[str, Any]) -> Target:
        """How files are written: as those of training were laid out."""

    # ------------------------------------------------------------------------ forms that users have

    def to_values(
        self, given: Any, data: Mapping[str, Any], settings: Any, *, exact: bool = False
    ) -> list[Tensor]:
        if isinstance(given, str | Path):
            return [self.read(given, data, settings)]
        if isinstance(given, list | tuple):
            return [value for one in given for value in self.to_values(one, data, settings)]
        if not isinstance(given, np.ndarray | Tensor):
            raise ValueError(
                f"{self.an_item} is a path or an array of numbers, not {type(given).__name__}"
            )
        values = torch.as_tensor(given).detach().cpu().float()
        scale = Scale.of(data)
        dims = self.dims
        if not dims <= values.dim() <= dims + 2 or not values.numel():
            raise ValueError(
                f"{self.an_item} has {dims} dimensions, channels before them and a batch before "
                f"these, not {tuple(values.shape)}"
            )
        batch = values.reshape((1,) * (dims + 2 - values.dim()) + tuple(values.shape))
        if batch.shape[1] != data["channels"]:
            raise ValueError(
                f"the model has {data['channels']} channels, the {self.item} {batch.shape[1]}"
            )
        return [torch.from_numpy(scale.standardised(one.numpy())) for one in batch]

    def like(self, values: list[Tensor], given: Any, data: Mapping[str, Any]) -> Any:
        scale = Scale.of(data)
        restored = [scale.restored(one.numpy()) for one in values]
        if isinstance(given, list | tuple):
            return restored
        if isinstance(given, str | Path):
            return restored[0]
        dims = given.ndim if isinstance(given, np.ndarray) else given.dim()
        found = np.stack(restored) if dims == self.dims + 2 else restored[0]
        found = found[0] if dims == self.dims else found
        return torch.from_numpy(found) if isinstance(given, Tensor) else found

    def to_array(self, values: Tensor, data: Mapping[str, Any]) -> np.ndarray:
        scale = Scale.of(data)
        return np.stack([scale.restored(one) for one in values.numpy()])

    # ------------------------------------------------------------------------------ models, figures

    def backbone(
        self,
        config: Any,
        shape: Shape,
        widths: Widths,
        settings: Any,
        *,
        is_causal: bool = False,
    ) -> Backbone:
        if not isinstance(config, ArrayConfig):
            raise VqkitError(
                f"model.network.kind={config.kind} is no network for {self.item}s: set "
                "model.network.kind=array"
            )
        return build_backbone(config, shape, widths)

    def measures(
        self, values: Tensor, original: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """snr: how far the error is below the deviations of the training set, in dB, so that items
        in which hardly anything happens are no harder than others.
        """
        return {"snr": -10 * squared_error(values, original, mask).clamp(min=LEAST).log10()}

    def evaluation_measures(
        self,
        values: Tensor,
        original: Tensor,
        mask: Tensor | None,
        data: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        """With the root mean square error, in deviations."""
        rmse = squared_error(values, original, mask).sqrt()
        return {**self.measures(values, original, mask), "rmse": rmse}

    def rate_per(self, extent: tuple[int, ...], data: Mapping[str, Any]) -> tuple[str, float]:
        return "bits_per_sample", math.prod(extent)

    def ruler(self, data: Mapping[str, Any]) -> tuple[str, float]:
        return "samples", 1.0


class SeriesSignal(ArraySignal):
    name = "series"
    number = 3
    item = "trace"
    suffixes = files.SERIES_SUFFIXES
    dims = 1

    def extent_of(self, settings: SeriesData) -> tuple[int, ...]:
        return (settings.length,)

    def settings_of(self, settings: SeriesData, shape: Shape) -> SeriesData:
        return settings.model_copy(update={"length": shape.extent[0]})

    def _target(self, data: Mapping[str, Any]) -> Target:
        return Target(1, None, SeriesData(layout=data["layout"]))

    def display(self, values: Tensor) -> np.ndarray:
        return display.curves(values)


class VolumeSignal(ArraySignal):
    name = "volume"
    number = 4
    item = "volume"
    suffixes = files.VOLUME_SUFFIXES
    dims = 3

    def extent_of(self, settings: VolumeData) -> tuple[int, ...]:
        return tuple(settings.size)

    def settings_of(self, settings: VolumeData, shape: Shape) -> VolumeData:
        return settings.model_copy(update={"size": tuple(shape.extent)})

    def _target(self, data: Mapping[str, Any]) -> Target:
        return Target(3, None, VolumeData(has_channels=data["has_channels"]))

    def display(self, values: Tensor) -> np.ndarray:
        return display.slices(values)


def squared_error(values: Tensor, original: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, C, *extent) twice -> (B,) float64, the mean over what is real.

    mask: (B, *extent), or (B, C, *extent) where single values are missing.
    """
    squares = (values.double() - original.double()).square()
    if mask is None:
        return squares.flatten(1).mean(1)
    real = by_value(mask.to(values.device), squares).expand_as(squares).double()
    return (squares * real).flatten(1).sum(1) / real.flatten(1).sum(1).clamp(min=1)


SERIES = SeriesSignal()
VOLUME = VolumeSignal()
