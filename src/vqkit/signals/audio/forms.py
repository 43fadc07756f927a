"""Forms in which users have recordings: paths, arrays and tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .files import FULL


def to_values(
    given: Any, channels: int, read: Callable[[str | Path], Tensor], *, exact: bool
) -> list[Tensor]:
    """Items -> int16 (C, T) each.

    given: a path; an array or tensor (T,), (C, T) or (B, C, T), of int16 or of floats from -1 to 1
    at the model's rate; or a list of these. exact: floats are refused. ValueError, or an error of
    `read`.
    """
    if isinstance(given, str | Path):
        return [read(given)]
    if isinstance(given, list | tuple):
        return [value for one in given for value in to_values(one, channels, read, exact=exact)]
    if not isinstance(given, np.ndarray | Tensor):
        raise ValueError(
            f"a recording is a path or an array of samples, not {type(given).__name__}"
        )
    samples = torch.as_tensor(given).detach().cpu()
    if not 1 <= samples.dim() <= 3 or not samples.numel():
        raise ValueError(f"a recording is (T,), (C, T) or (B, C, T), not {tuple(samples.shape)}")
    batch = samples.reshape((1,) * (3 - samples.dim()) + tuple(samples.shape))
    return [_fitted(one, channels, exact=exact) for one in batch]


def like(values: list[Tensor], given: Any) -> Any:
    """Samples int16 (C, T) of each item in the form that `given` had; of paths, arrays."""
    if isinstance(given, list | tuple):
        return [one.numpy() for one in values]
    if isinstance(given, str | Path):
        return values[0].numpy()
    dims = given.ndim if isinstance(given, np.ndarray) else given.dim()
    found = torch.stack(values) if dims == 3 else values[0]
    if dims == 1:
        found = found[0]
    is_float = torch.as_tensor(given).is_floating_point()
    if is_float:
        found = found.float() / FULL
    return found if isinstance(given, Tensor) else found.numpy()


def _fitted(samples: Tensor, channels: int, *, exact: bool) -> Tensor:  # (any, T) -> (C, T) int16
    if samples.dtype != torch.int16:
        if not samples.is_floating_point():
            raise ValueError(f"samples are int16 or floats from -1 to 1, not {samples.dtype}")
        if exact:
            raise ValueError("samples of float would be rounded to 16 bits: give int16")
        if not bool(samples.isfinite().all()):
            raise ValueError("a sample is no number")
        scaled = (samples.float() * FULL).round()
        samples = scaled.clamp(-FULL, FULL - 1).to(torch.int16)
    if len(samples) == channels:
        return samples
    if exact or len(samples) not in (1, 2):
        raise ValueError(f"the model has {channels} channel(s), the recording {len(samples)}")
    if channels == 1:
        return samples.float().mean(0, keepdim=True).round().to(torch.int16)
    return samples.expand(channels, -1).contiguous()
