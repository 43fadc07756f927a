"""Sets of images as arrays, as most peers take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from vqkit.signals.image.source import ImageData


def open_set(source: str | Path, seed: int = 0, settings: Any = None) -> ImageData:
    """A source as `vqkit train` opens it. settings: a DataConfig; None = its defaults."""
    from vqkit.settings import DataConfig
    from vqkit.signals.image.source import open_images

    return open_images(source, settings or DataConfig(), seed)


def arrays(data: ImageData, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """The images of these numbers, uint8 (N, H, W, C)."""
    return np.ascontiguousarray(data.read(ids).values.permute(0, 2, 3, 1).numpy())


def values_of(images: np.ndarray):
    """Images (N, H, W, C) -> values (N, C, H, W), as the apps of vqkit take them."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
