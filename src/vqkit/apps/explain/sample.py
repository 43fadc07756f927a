"""Images with their codes, held in memory: what everything on the page is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...artifact.model import Model
from ...data.dataset import Dataset

BATCH_SIZE = 128
# Bytes of pixels, and of codes, that are held at once.
MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class Sample:
    """indices: (N,) int64 in the data. images: (N, C, H, W) uint8. codes: (N, Q, h, w) int64."""

    indices: np.ndarray
    images: Tensor
    codes: Tensor

    def __len__(self) -> int:
        return len(self.indices)


@torch.no_grad()
def gather(
    model: Model,
    data: Dataset,
    split: str,
    num: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Sample:
    """The first images of a split (its order is random), `num` or as many as MAX_BYTES hold.

    None of an empty split.
    """
    quantizer = model.network.quantizer
    grid = model.network.grid(data.shape.extent)
    each = max(data.shape.num_values, 8 * quantizer.num_codebooks * grid[0] * grid[1])
    num = min(num, len(data.splits[split]), max(1, MAX_BYTES // each))
    indices: list[np.ndarray] = [np.zeros(0, np.int64)]
    images = [torch.zeros(0, data.shape.channels, *data.shape.extent, dtype=torch.uint8)]
    codes = [torch.zeros(0, quantizer.num_codebooks, *grid, dtype=torch.long)]
    found = 0
    for batch in data.split(split, BATCH_SIZE) if num else ():
        indices.append(batch.ids[: num - found])
        images.append(batch.values[: num - found])
        codes.append(model.tokenizer.encode(images[-1]))
        found += len(images[-1])
        progress(found / num)
        if found >= num:
            break
    return Sample(np.concatenate(indices), torch.cat(images), torch.cat(codes))


def decoded(model: Model, codes: Tensor) -> Tensor:
    """Codes (B, Q, h, w) -> uint8 images (B, C, H, W) of the size of training."""
    return model.tokenizer.decode(codes, model.shape.extent)


def shrunk(pixels: Tensor, side: int) -> np.ndarray:
    """(..., C, H, W), 0 to 255 -> uint8 (..., H, W, C), no side longer than `side`.

    Smaller by averaging.
    """
    high, wide = pixels.shape[-2:]
    flat = pixels.reshape(-1, *pixels.shape[-3:]).float()
    scale = max(high, wide) / side
    if scale > 1:
        flat = F.adaptive_avg_pool2d(
            flat, (max(1, round(high / scale)), max(1, round(wide / scale)))
        )
    whole = flat.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return whole.reshape(*pixels.shape[:-3], *whole.shape[1:]).contiguous().numpy()
