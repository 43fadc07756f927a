"""Grey photographs: patches of Debian's wallpapers to train on, and those in scikit-image's wheel
to test with.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.debian_packages import unpacked

PACKAGES = {"mate-backgrounds": "mate/nature/*.jpg", "ukui-wallpapers": "*.*"}
PATCH = 32
# By which the wallpapers are made smaller: at full size they are blurred, or show their
# compression.
SCALES = (2, 4)
# Deviation in levels; patches with less are sky and wall, most of what there is, and teach little.
FLATTEST = 4.0
# Patches of one image and scale.
MOST = 2000
TESTS = ("astronaut brick camera cat clock coffee coins grass gravel moon page rocket text").split()
SIDE = 256


def training_patches(file: Path) -> Path:
    """`file`, uint8 (N, 32, 32), made from the packages if it is not there; nothing is
    installed.
    """
    if file.exists():
        return file
    found = []
    random = np.random.default_rng(0)
    for package, pattern in PACKAGES.items():
        with unpacked(package) as folder:
            for path in sorted((folder / "usr/share/backgrounds").glob(pattern)):
                if path.suffix in (".jpg", ".png") and not path.is_symlink():
                    found += [_patches(path, scale, random) for scale in SCALES]
    np.save(file, np.concatenate(found))
    return file


def _patches(path: Path, scale: int, random: np.random.Generator) -> np.ndarray:
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L").reduce(scale))
    rows = grey.shape[0] // PATCH
    columns = grey.shape[1] // PATCH
    cut = (
        grey[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH).swapaxes(1, 2)
    )
    cut = cut.reshape(-1, PATCH, PATCH)
    cut = cut[cut.std((1, 2)) >= FLATTEST]
    return cut[random.permutation(len(cut))[:MOST]]


def test_images() -> torch.Tensor:
    """uint8 (13, 1, 256, 256): the short side of each made 256, and its middle."""
    from skimage import data

    found = []
    for name in TESTS:
        image = Image.fromarray(getattr(data, name)()).convert("L")
        short = min(image.size)
        left = (image.width - short) // 2
        top = (image.height - short) // 2
        square = image.crop((left, top, left + short, top + short))
        found.append(np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
    return torch.from_numpy(np.stack(found))[:, None]
