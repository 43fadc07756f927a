"""Where bfloat16 pays."""

from __future__ import annotations

import torch


def use_bfloat16(setting: str) -> bool:
    """Whether to run in bfloat16: as set, or for 'auto' where the hardware multiplies it faster
    than float32.
    """
    if setting != "auto":
        return setting == "bfloat16"
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
