"""Sets of images as arrays, as most peers take them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from vqkit.signals.image.source import ImageData

# Images of Fashion-MNIST that quick forms see, of its two parts: training and test.
SHORT = (4000, 500)


def open_set(source: str | Path, seed: int = 0, settings: Any = None) -> ImageData:
    """A source as `vqkit train` opens it. settings: a DataConfig; None = its defaults."""
    from vqkit.signals.image.config import DataConfig
    from vqkit.signals.image.source import open_images

    return open_images(source, settings or DataConfig(), seed)


def arrays(data: ImageData, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """The images of these numbers, uint8 (N, H, W, C)."""
    return np.ascontiguousarray(data.read(ids).values.permute(0, 2, 3, 1).numpy())


def values_of(images: np.ndarray):
    """Images (N, H, W, C) -> values (N, C, H, W), as the apps of vqkit take them."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def shorten_fashion_mnist() -> None:
    """For quick forms: this process, and those that it starts, find Fashion-MNIST with the first
    images of its two parts alone, in a folder that goes when this process ends.
    """
    from vqkit.signals.image.arrays import find_idx, read_idx
    from vqkit.signals.image.bundled import fashion_mnist_folder
    from vqkit.signals.image.config import DataConfig

    parts = find_idx(fashion_mnist_folder())
    assert parts is not None
    root = Path(tempfile.mkdtemp(prefix="vqkit-bench-"))
    atexit.register(shutil.rmtree, root)
    (root / "fashion-mnist").mkdir()
    for count, files in zip(SHORT, parts, strict=True):
        for path, dimensions in zip(files, (3, 1), strict=True):
            assert path is not None
            values = read_idx(path, DataConfig(), num_dims=dimensions)[:count]
            # Two zero bytes, 8 for uint8, the number of dimensions, and their lengths.
            header = bytes((0, 0, 8, dimensions)) + np.array(values.shape, ">i4").tobytes()
            name = path.name.removesuffix(".gz")
            (root / "fashion-mnist" / name).write_bytes(header + values.astype(np.uint8).tobytes())
    os.environ["VQKIT_DATA"] = str(root)
