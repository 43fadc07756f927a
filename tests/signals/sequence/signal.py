"""Sequences of bytes, one a file, of any length: the smallest signal there can be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data.indexed import Found, IndexedDataset
from ...data.normalisation import Normalisation, measure
from ...data.splits import digest, pack, split
from ...errors import VqkitError
from ...files import read_bounded
from ...model.autoencoder import Backbone, Widths
from ...model.blocks import DepthwiseResidual
from ...shapes import Shape
from ..base import Signal
from .config import DataConfig, StrideConfig

MAX_LENGTH = 1 << 16


class Sequences(IndexedDataset):
    """Files of a folder. items: one uint8 array a file."""

    in_memory = True

    def __init__(self, name: str, paths: list[Path], length: int) -> None:
        super().__init__(name, [path.name for path in paths], Shape(1, (length,)))
        self.items = [read_file(path)[:length] for path in paths]

    def read_good(self, ids: np.ndarray) -> Found:
        values = torch.zeros(len(ids), 1, *self.shape.extent, dtype=torch.uint8)
        mask = torch.zeros(len(ids), *self.shape.extent, dtype=torch.bool)
        for row, index in enumerate(ids.tolist()):
            item = self.items[index]
            values[row, 0, : len(item)] = torch.from_numpy(item)
            mask[row, : len(item)] = True
        return Found(ids, values, mask, [])

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "images": len(self),
            "size": list(self.shape.extent),
            "channels": 1,
            "splits": {name: len(ids) for name, ids in self.splits.items()},
            "normalisation": self.normalisation.to_dict(),
        }


class SequenceSignal(Signal):
    name = "sequence"
    number = 7
    item = "sequence"
    suffix = ".seq"

    def open(
        self,
        source: str | Path,
        settings: DataConfig,
        seed: int,
        data: Mapping[str, Any] | None = None,
        *,
        max_bad: float | None = None,
        progress: Any = None,
    ) -> Sequences:
        found = Sequences(str(source), list(self.find([source])), settings.length)
        if not found.items:
            raise VqkitError(f"{source} holds no sequences")
        keys = pack([digest(item.tobytes()) for item in found.items])
        found.splits = split(keys, keys, seed, (settings.validation, settings.test))
        train = (
            torch.from_numpy(found.items[index])[None, None] for index in found.splits["train"]
        )
        known = None if data is None else Normalisation.from_dict(data["normalisation"])
        found.normalisation = known or measure(train, 1)
        return found

    def settings_of(self, settings: DataConfig, shape: Shape) -> DataConfig:
        return settings.model_copy(update={"length": shape.extent[0]})

    def find(self, paths: Iterable[str | Path]) -> Iterator[Path]:
        for path in map(Path, paths):
            yield from sorted(path.glob("*.seq")) if path.is_dir() else [path]

    def read(self, path: Path, data: Any, settings: Any, *, exact: bool = False) -> Tensor:
        return torch.from_numpy(read_file(path))[None]

    def read_content(self, content: bytes, data: Any, settings: Any) -> Tensor:
        return torch.from_numpy(np.frombuffer(content, np.uint8).copy())[None]

    def fitted(self, values: Tensor, data: Any, settings: Any, shape: Shape) -> Tensor:
        item = values[:, : shape.extent[0]]
        return nn.functional.pad(item, (0, shape.extent[0] - item.shape[1]))

    def read_mask(self, said: str, extent: Any, data: Any) -> Tensor:
        return torch.from_numpy(read_file(Path(said))) > 0

    def write(self, values: Tensor, data: Any) -> bytes:
        return values.numpy().tobytes()

    def to_values(
        self, given: Any, data: Any, settings: Any, *, exact: bool = False
    ) -> list[Tensor]:
        return [
            torch.as_tensor(one)[None] for one in (given if isinstance(given, list) else [given])
        ]

    def like(self, values: list[Tensor], given: Any, data: Any) -> Any:
        found = [one[0].numpy() for one in values]
        return found if isinstance(given, list) else found[0]

    def to_array(self, values: Tensor, data: Any) -> np.ndarray:
        return values[:, 0].numpy()

    def backbone(
        self,
        config: StrideConfig,
        shape: Shape,
        widths: Widths,
        settings: DataConfig,
        *,
        is_causal: bool = False,
    ) -> Backbone:
        into = nn.Conv1d(shape.channels, config.width, config.stride, config.stride)
        back = nn.ConvTranspose1d(config.width, widths.outputs, config.stride, config.stride)
        encoder = nn.Sequential(
            into, Residual(config.width), nn.Conv1d(config.width, widths.encoder, 1)
        )
        decoder = nn.Sequential(
            nn.Conv1d(widths.latents, config.width, 1), Residual(config.width), back
        )
        return Backbone(
            encoder, decoder, tile=(config.stride,), tile_grid=(1,), reach=2, decoder_reach=1
        )

    def measures(
        self, values: Tensor, original: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        error = (values.float() - original.float()).square().mean(1)
        real = torch.ones_like(error) if mask is None else mask.float()
        mse = (error * real).sum(1) / real.sum(1)
        return {"psnr": 10 * (255**2 / mse.clamp(min=1e-9)).log10()}

    def rate_per(self, extent: tuple[int, ...], data: Any) -> tuple[str, float]:
        return "bits_per_sample", math.prod(extent)

    def display(self, values: Tensor) -> np.ndarray:
        """A bar chart: (B, 1, T) -> (B, 64, T, 1)."""
        height = 255 - torch.arange(64).view(1, 64, 1, 1) * 4
        return torch.where(values[:, 0, None, :, None] > height, 0, 255).to(torch.uint8).numpy()


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = DepthwiseResidual(width, 2, dims=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.movedim(1, -1)).movedim(-1, 1)


def read_file(path: Path) -> np.ndarray:  # (T,) uint8
    data = read_bounded(path, MAX_LENGTH)
    if not data:
        raise VqkitError(f"{path} is empty")
    return np.frombuffer(data, np.uint8).copy()


SEQUENCE = SequenceSignal()
