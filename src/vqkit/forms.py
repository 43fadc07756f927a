"""The forms in which images come from users, and the one in which models take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .data import ValueRange
from .data.images import Target, convert

Images: TypeAlias = "Image.Image | Sequence[Image.Image] | np.ndarray | Tensor"


def as_batch(
    images: Images,
    channels: int,
    background: tuple[int, int, int],
    value_range: ValueRange | None = None,
    *,
    exact: bool = False,
) -> Tensor:
    """Any accepted form -> (B, C, H, W), uint8 or float in [0, 255]; see Artifact. ValueError for all others.

    value_range: of PIL images with more than 8 bits a value. exact: uint8, and ValueError also for images that lose
    anything, as far as an image that is loaded still tells.
    """
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, (list, tuple)):
        target = Target(None, channels, background, exact=exact, value_range=value_range)
        arrays = [convert(image, target) for image in images]
        if not arrays:
            raise ValueError("there are no images")
        if len({array.shape for array in arrays}) != 1:
            raise ValueError(f"images must have one size, got {sorted({array.shape[:2] for array in arrays})}")
        images = np.stack(arrays)
    values = as_tensor(images)
    if values.is_floating_point() and values.dim() == 4:
        if exact:
            raise ValueError("lossless files are of uint8 pixels, not of floating-point ones")
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError("floating-point images must lie in [0, 1]")
        pixels = values.float() * 255
    elif values.dtype == torch.uint8 and values.dim() in (2, 3, 4):
        values = values[:, :, None] if values.dim() == 2 else values
        pixels = (values[None] if values.dim() == 3 else values).permute(0, 3, 1, 2)
    else:
        raise ValueError(
            f"images must be uint8 (H, W, C) or float (B, C, H, W), got {values.dtype} {tuple(values.shape)}"
        )
    if not pixels.numel():
        raise ValueError(f"there are no pixels in images of shape {tuple(values.shape)}")
    if pixels.shape[1] != channels:
        raise ValueError(f"the model has {channels} channels, the images have {pixels.shape[1]}")
    return pixels


def as_tensor(images: Any) -> Tensor:
    """The values as a tensor; what NumPy holds read-only (as a view of a PIL image) is copied first."""
    read_only = isinstance(images, np.ndarray) and not images.flags.writeable
    return torch.as_tensor(images.copy() if read_only else images)
