"""Where a model runs."""

from __future__ import annotations

import torch

from ..errors import VqkitError


def resolve_device(name: str | torch.device) -> torch.device:
    """auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:N or mps.

    VqkitError for one that is not there.
    """
    if str(name) == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise VqkitError(f"device '{name}' is none of auto, cpu, cuda, cuda:N and mps") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        index = device.index or 0
        if index >= count:
            raise VqkitError(
                f"device '{name}' is not there: PyTorch finds {count} CUDA devices; use cpu or auto"
            )
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise VqkitError("device 'mps' is not there: PyTorch finds no Apple GPU; use cpu or auto")
    if device.type not in ("cpu", "mps"):
        raise VqkitError(f"device '{name}' is none of auto, cpu, cuda, cuda:N and mps")
    return device
