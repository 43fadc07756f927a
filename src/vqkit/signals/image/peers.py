"""Other codecs of images, at the size of a given file."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from ..base import ByPeer
from . import forms

# The codecs of Pillow that are everywhere, and what they are called.
CODECS = {"JPEG": "JPEG", "WEBP": "WebP", "AVIF": "AVIF"}
WORST, BEST = 1, 100


def of_size(values: Tensor, num_bytes: int) -> list[ByPeer]:
    """Values uint8 (C, H, W) by each codec, in the best quality of which the file is no larger; in
    the worst one where all are larger.
    """
    image = forms.to_image(values)
    # None of these has transparency in grey, and JPEG has none at all.
    shown = image.convert("L" if values.shape[0] < 3 else "RGB")
    found = []
    for kind, name in CODECS.items():
        if kind == "AVIF" and not features.check("avif"):
            continue
        content = _largest(shown, kind, num_bytes)
        with Image.open(io.BytesIO(content)) as decoded:
            back = decoded.convert(image.mode)
        found.append(ByPeer(name, len(content), _like(back, values)))
    return found


def _largest(image: Image.Image, kind: str, num_bytes: int) -> bytes:
    """By halving: files grow with the quality."""
    low, high = WORST, BEST
    best = _saved(image, kind, WORST)
    while low < high:
        middle = (low + high + 1) // 2
        content = _saved(image, kind, middle)
        if len(content) <= num_bytes:
            low, best = middle, content
        else:
            high = middle - 1
    return best


def _saved(image: Image.Image, kind: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    more: dict[str, object] = {"optimize": True} if kind == "JPEG" else {}
    image.save(buffer, kind, quality=quality, **more)
    return buffer.getvalue()


def _like(image: Image.Image, values: Tensor) -> Tensor:
    shown = np.array(image, dtype=np.uint8).reshape(*values.shape[1:], -1)
    return torch.from_numpy(shown).movedim(-1, 0)[: values.shape[0]]
