"""The forms in which images come from users, and the way back to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .files import Target, convert, load_image
from .modes import MODES


def to_values(given: Any, target: Target) -> list[Tensor]:
    """Images in any form -> values (C, H, W) each, uint8, or float in [0, 255] for floating-point
    images.

    Forms: a path; a PIL image; a uint8 array or tensor (H, W), (H, W, C) or (B, H, W, C); a
    floating-point one (B, C, H, W) in [0, 1]; a list of any of these. ValueError or VqkitError in
    one sentence for all others, and with target.exact for images that lose anything, as far as one
    that is loaded still tells.
    """
    if isinstance(given, str | Path):
        pixels = load_image(
            given, target.channels, target.background, target.value_range, exact=target.exact
        )
        return [channels_first(pixels)]
    if isinstance(given, Image.Image):
        if not (given.width and given.height):
            raise ValueError(
                f"there are no pixels in an image of {given.width}x{given.height} (width x height)"
            )
        return [channels_first(convert(given, target))]
    if isinstance(given, list | tuple):
        values: list[Tensor] = []
        for one in given:
            values += to_values(one, target)
        if not values:
            raise ValueError("there are no images")
        return values
    if not isinstance(given, np.ndarray | Tensor):
        raise ValueError(
            "images are paths, PIL images, arrays, tensors or lists of them, not "
            f"{type(given).__name__}"
        )
    return _from_tensor(as_tensor(given), target)


def like(values: Sequence[Tensor], given: Any) -> Any:
    """Values (C, H, W) of each image, uint8, in the form that `given` had.

    Of a path, a PIL image.
    """
    if isinstance(given, str | Path | Image.Image):
        return to_image(values[0])
    if isinstance(given, list | tuple):
        found = []
        start = 0
        for one in given:
            count = _count(one)
            found.append(like(values[start : start + count], one))
            start += count
        return found
    original = as_tensor(given)
    stacked = torch.stack(list(values))
    if original.is_floating_point():
        result = (stacked.float() / 255).to(original.dtype)
    else:
        result = stacked.permute(0, 2, 3, 1).contiguous()
        if original.dim() < 4:
            result = result[0]
        if original.dim() == 2 and result.shape[2] == 1:
            result = result[:, :, 0]
    if isinstance(given, Tensor):
        return result
    return result.numpy()


def to_image(values: Tensor) -> Image.Image:
    """Values (C, H, W) uint8 as a PIL image."""
    pixels = values.permute(1, 2, 0).contiguous().numpy()
    if pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return Image.fromarray(pixels)


def to_array(values: Tensor) -> np.ndarray:
    """Values (B, C, H, W) uint8 -> (B, H, W, C)."""
    return values.permute(0, 2, 3, 1).contiguous().numpy()


def as_tensor(given: np.ndarray | Tensor) -> Tensor:
    """The values as a tensor.

    What NumPy holds read-only (as a view of a PIL image) is copied first.
    """
    if isinstance(given, np.ndarray) and not given.flags.writeable:
        return torch.from_numpy(given.copy())
    return torch.as_tensor(given)


def _from_tensor(values: Tensor, target: Target) -> list[Tensor]:
    if values.is_floating_point() and values.dim() == 4:
        return list(_from_floats(values, target))
    if values.dtype != torch.uint8 or values.dim() not in (2, 3, 4):
        raise ValueError(
            f"images must be uint8 (H, W, C) or float (B, C, H, W), got {values.dtype} "
            f"{tuple(values.shape)}"
        )
    pixels = values
    if pixels.dim() == 2:
        pixels = pixels[:, :, None]
    if pixels.dim() == 3:
        pixels = pixels[None]
    if not pixels.numel():
        raise ValueError(f"there are no pixels in images of shape {tuple(values.shape)}")
    channels = pixels.shape[3]
    if channels not in MODES:
        raise ValueError(
            f"uint8 images are (H, W, C) with 1 to 4 channels, got {tuple(values.shape)}"
        )
    if channels == target.channels:
        return list(pixels.permute(0, 3, 1, 2))
    return [channels_first(convert(to_image(one.permute(2, 0, 1)), target)) for one in pixels]


def _from_floats(values: Tensor, target: Target) -> Tensor:
    """(B, C, H, W) in [0, 1] -> float32 in [0, 255]."""
    if target.exact:
        raise ValueError("lossless files are of uint8 pixels, not of floating-point ones")
    if not values.numel():
        raise ValueError(f"there are no pixels in images of shape {tuple(values.shape)}")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError("floating-point images must lie in [0, 1]")
    if values.shape[1] == 1 and target.channels == 3:
        values = values.expand(-1, 3, -1, -1)
    if values.shape[1] != target.channels:
        raise ValueError(
            f"the model has {target.channels} channels, the images have {values.shape[1]}"
        )
    return values.float() * 255


def channels_first(pixels: np.ndarray) -> Tensor:
    """(H, W, C) -> (C, H, W)."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _count(given: Any) -> int:
    """Images in one form."""
    if isinstance(given, list | tuple):
        return sum(map(_count, given))
    if isinstance(given, np.ndarray | Tensor) and given.ndim == 4:
        return len(given)
    return 1
