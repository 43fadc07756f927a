"""Items with their codes, held in memory: what everything on the page is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...artifact.model import Model
from ...data.dataset import Batch, Dataset
from ...model.tiling import crop

BATCH_SIZE = 128
# Values of the items that are encoded together, if these are several.
BATCH_VALUES = 1 << 20
# Bytes of values, and of codes, that are held at once.
MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class Sample:
    """indices: (N,) int64 in the data. values: (N, C, *extent), as they come from files. codes:
    (N, Q, *grid) int64, -1 where nothing is real. extents: (N, dimensions) int64, of each item
    without the padding behind it.
    """

    indices: np.ndarray
    values: Tensor
    codes: Tensor
    extents: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def first(self, num: int) -> Sample:
        """The first items alone."""
        kept = slice(num)
        return Sample(self.indices[kept], self.values[kept], self.codes[kept], self.extents[kept])

    @property
    def is_whole(self) -> np.ndarray:
        """Which items (N,) have no padding."""
        return (self.extents == self.values.shape[2:]).all(1)

    @property
    def mask(self) -> Tensor | None:
        """(N, *extent) bool, True where a position is real; None = everywhere."""
        if self.is_whole.all():
            return None
        real = torch.ones(len(self), *self.values.shape[2:], dtype=torch.bool)
        for axis, size in enumerate(real.shape[1:]):
            inside = torch.arange(size) < torch.from_numpy(self.extents[:, axis, None])
            between = [1] * (real.dim() - 1)
            between[axis] = size
            real &= inside.view(len(self), *between)
        return real

    def item(self, index: int) -> Tensor:
        """One item without padding, (1, C, *its extent)."""
        return crop(self.values[[index]], self.extents[index].tolist())

    def codes_of(self, model: Model, index: int) -> Tensor:
        """The codes (1, Q, *its grid) of one item without padding."""
        return crop(self.codes[[index]], model.network.grid(self.extents[index].tolist()))


def open_data(
    model: Model, source: str | Path, progress: Callable[[float], None] | None = None
) -> Any:
    """The items of `source` in the splits of the model, as `explain` looks at them."""
    settings = model.signal.settings_of(model.config.data, model.shape)
    settings = model.signal.explained(settings, model.data)
    return model.signal.open(source, settings, model.config.seed, model.data, progress=progress)


@torch.no_grad()
def gather(
    model: Model,
    data: Dataset,
    split: str,
    num: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Sample:
    """The first items of a split (its order is random), `num` or as many as MAX_BYTES hold.

    None of an empty split.
    """
    quantizer = model.network.quantizer
    shape = data.shape
    grid = model.network.grid(shape.extent)
    num_codes = quantizer.num_codebooks * int(np.prod(grid))
    num = min(
        num, len(data.splits[split]), max(1, MAX_BYTES // max(shape.num_values, 8 * num_codes))
    )
    together = max(1, min(BATCH_SIZE, BATCH_VALUES // shape.num_values))
    indices: list[np.ndarray] = [np.zeros(0, np.int64)]
    values: list[Tensor] = []
    codes = [torch.zeros(0, quantizer.num_codebooks, *grid, dtype=torch.long)]
    extents = [np.zeros((0, len(shape.extent)), np.int64)]
    found = 0
    for batch in data.split(split, together) if num else ():
        kept = slice(num - found)
        mask = None if batch.mask is None else batch.mask[kept]
        values.append(batch.values[kept])
        indices.append(batch.ids[kept])
        codes.append(model.tokenizer.encode(values[-1], mask))
        extents.append(_extents(batch)[kept])
        found += len(values[-1])
        progress(found / num)
        if found >= num:
            break
    return Sample(
        np.concatenate(indices),
        torch.cat(values) if values else torch.zeros(0, shape.channels, *shape.extent),
        torch.cat(codes),
        np.concatenate(extents),
    )


def _extents(batch: Batch) -> np.ndarray:
    """Of the items of a batch (B, dimensions), whose padding lies behind them."""
    sides = batch.values.shape[2:]
    if batch.mask is None:
        return np.tile(np.array(sides, np.int64), (len(batch.values), 1))
    found = []
    for axis in range(len(sides)):
        others = [dim for dim in range(1, batch.mask.dim()) if dim != axis + 1]
        is_real = batch.mask.any(dim=others) if others else batch.mask
        found.append(is_real.sum(1).numpy())
    return np.stack(found, 1)


def decoded(model: Model, codes: Tensor, extent: Sequence[int] | None = None) -> Tensor:
    """Codes (B, Q, *grid) -> values (B, C, *extent), of the extent of training unless said."""
    return model.tokenizer.decode(codes, extent or model.shape.extent)


def shown_of(model: Model, values: Tensor, side: int) -> np.ndarray:
    """Items (B, C, *extent) as images for the page, uint8 (B, H, W, C).

    No side is longer than `side` where an image is the item itself; what is drawn of other items
    keeps its size.
    """
    images = model.signal.display(values)
    if not model.signal.is_aligned:
        return images
    return shrunk(torch.from_numpy(images).movedim(-1, -3), side)


def shrunk(images: Tensor, side: int) -> np.ndarray:
    """(..., C, H, W), 0 to 255 -> uint8 (..., H, W, C), no side longer than `side`.

    Smaller by averaging.
    """
    high, wide = images.shape[-2:]
    flat = images.reshape(-1, *images.shape[-3:]).float()
    scale = max(high, wide) / side
    if scale > 1:
        flat = F.adaptive_avg_pool2d(
            flat, (max(1, round(high / scale)), max(1, round(wide / scale)))
        )
    whole = flat.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return whole.reshape(*images.shape[:-3], *whole.shape[1:]).contiguous().numpy()
