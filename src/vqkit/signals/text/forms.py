"""Forms in which users have text: paths, strings, bytes and arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def to_values(given: Any, read: Callable[[Path], Tensor]) -> list[Tensor]:
    """Items -> uint8 (1, T) each.

    given: a path (`Path`; a string is text itself), a string, bytes, an array or tensor (T,), (1,
    T) or (B, 1, T) of uint8; or a list of these. ValueError, or an error of `read`.
    """
    if isinstance(given, Path):
        return [read(given)]
    if isinstance(given, list | tuple):
        return [value for one in given for value in to_values(one, read)]
    if isinstance(given, str):
        given = given.encode("utf-8", "surrogateescape")
    if isinstance(given, bytes | bytearray):
        given = np.frombuffer(bytes(given), np.uint8)
    if not isinstance(given, np.ndarray | Tensor):
        raise ValueError(
            "text is a string, bytes, a Path or an array of bytes, not " + type(given).__name__
        )
    if isinstance(given, np.ndarray):
        # It may be read-only, which tensors cannot be.
        given = given.copy()
    values = torch.as_tensor(given).detach().cpu()
    if values.dtype != torch.uint8:
        raise ValueError(f"text is an array of uint8, not of {values.dtype}")
    if (
        not 1 <= values.dim() <= 3
        or not values.numel()
        or (values.dim() > 1 and values.shape[-2] != 1)
    ):
        raise ValueError(f"text is (T,), (1, T) or (B, 1, T), not {tuple(values.shape)}")
    return list(values.reshape(-1, 1, values.shape[-1]))


def like(values: list[Tensor], given: Any) -> Any:
    """Bytes uint8 (1, T) of each item in the form that `given` had; of paths, bytes."""
    if isinstance(given, list | tuple):
        return [like([one], kind) for one, kind in zip(values, given, strict=True)]
    if isinstance(given, Tensor | np.ndarray):
        dims = given.ndim if isinstance(given, np.ndarray) else given.dim()
        found = torch.stack(values) if dims == 3 else values[0]
        if dims == 1:
            found = found[0]
        return found if isinstance(given, Tensor) else found.numpy()
    content = values[0].numpy().tobytes()
    if isinstance(given, str):
        # As it was encoded where that is possible; a model may write what is no UTF-8.
        return content.decode("utf-8", "surrogateescape")
    return content
