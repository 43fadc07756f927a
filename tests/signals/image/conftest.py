"""Real images for the data tests: the emoji of vqkit and the photographs inside the scikit-image
wheel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from vqkit.signals.image.source import ImageData


@pytest.fixture(scope="session")
def photos() -> Path:
    """Folder of the images in the scikit-image wheel: astronaut, coffee and camera are there
    without a download.
    """
    return Path(skimage.__file__).parent / "data"


@pytest.fixture(scope="session")
def astronaut(photos: Path) -> Image.Image:
    with Image.open(photos / "astronaut.png") as image:
        return image.convert("RGB").resize((64, 64))


@pytest.fixture(scope="session")
def pictures(emoji: ImageData) -> np.ndarray:  # (400, 32, 32, 3)
    """400 different emoji in a fixed order."""
    assert emoji.pixels is not None
    everything = emoji.pixels.permute(0, 2, 3, 1).numpy()
    _, first = np.unique(everything.reshape(len(everything), -1), axis=0, return_index=True)
    return everything[np.sort(first)][::8][:400]


@pytest.fixture(scope="session")
def folder(pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 400 emoji as PNG files in two subfolders; more than 1 MiB once decoded.

    Tests must not change it.
    """
    root = tmp_path_factory.mktemp("images")
    for part in ("a", "b"):
        (root / part).mkdir()
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(root / "ab"[number % 2] / f"{number:03}.png", compress_level=1)
    return root
