"""Images with their codes, held in memory: what everything on the page is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...artifact import Artifact
from ...data import ImageData, split_batches

BATCH_SIZE = 128
MAX_BYTES = 1 << 28
"""of pixels, and of codes, that are held at once"""


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
    artifact: Artifact, data: ImageData, split: str, num: int, progress: Callable[[float], None] = lambda share: None
) -> Sample:
    """The first images of a split (its order is random), `num` or as many as MAX_BYTES hold; none of an empty split."""
    model, (height, width) = artifact.model, data.size
    rows, columns = model.grid(data.size)
    each = max(data.channels * height * width, 8 * model.quantizer.num_codebooks * rows * columns)
    num = min(num, len(data.splits[split]), max(1, MAX_BYTES // each))
    indices: list[np.ndarray] = [np.zeros(0, np.int64)]
    images, codes = [torch.zeros(0, data.channels, height, width, dtype=torch.uint8)], list[Tensor]()
    codes.append(torch.zeros(0, model.quantizer.num_codebooks, rows, columns, dtype=torch.long))
    found = 0
    for chosen, pixels in split_batches(data, split, BATCH_SIZE) if num else ():
        indices.append(np.asarray(chosen)[: num - found])
        images.append(pixels[: num - found])
        codes.append(model.encode(artifact.standardise(images[-1])))
        found += len(images[-1])
        progress(found / num)
        if found >= num:
            break
    return Sample(np.concatenate(indices), torch.cat(images), torch.cat(codes))


def decoded(artifact: Artifact, codes: Tensor) -> Tensor:
    """Codes (B, Q, h, w) -> uint8 images (B, C, H, W) of the size of training."""
    return torch.from_numpy(artifact.decode(codes, artifact.size)).permute(0, 3, 1, 2)


def shrunk(pixels: Tensor, side: int) -> np.ndarray:
    """(..., C, H, W), 0 to 255 -> uint8 (..., H, W, C), no side longer than `side`; smaller by averaging."""
    height, width = pixels.shape[-2:]
    flat = pixels.reshape(-1, *pixels.shape[-3:]).float()
    scale = max(height, width) / side
    if scale > 1:
        flat = F.adaptive_avg_pool2d(flat, (max(1, round(height / scale)), max(1, round(width / scale))))
    whole = flat.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return whole.reshape(*pixels.shape[:-3], *whole.shape[1:]).contiguous().numpy()
