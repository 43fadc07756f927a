"""Sets that are known by name: emoji (shipped with vqkit), fashion-mnist (a Debian package or a
folder), digits.
"""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from ...data.names import NumberedNames
from ...data.splits import digest, pack
from ...errors import VqkitError
from .arrays import array_items, find_idx, read_idx_folder
from .config import DataConfig
from .files import patches
from .stores import Items

NAMES = ("emoji", "fashion-mnist", "digits")
# Those of NAMES that a recipe is named after.
RECIPES = ("emoji", "fashion-mnist")
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_bundled(name: str, config: DataConfig) -> Items:
    """One of NAMES. VqkitError if its files or the package that brings it are not installed."""
    if name == "fashion-mnist":
        return _fashion_mnist(config)
    if name == "emoji":
        return _emoji()
    return _digits()


def _emoji() -> Items:
    """Fluent emoji at 32x32 over white, with captions.

    Drawn by scripts/make_emoji.py, licences in NOTICE.
    """
    folder = resources.files("vqkit") / "signals" / "image" / "builtin"
    table = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
    with (folder / table["sheet"]).open("rb") as file, Image.open(file) as image:
        sheet = np.asarray(image.convert("RGB"))
    side = table["side"]
    cut, _ = patches(sheet, (side, side))
    # The last row of the sheet may not be full.
    cut = cut[: len(table["names"])]
    items = array_items(cut, "emoji", table["names"], "emoji")
    items.keys = pack([digest(key.encode()) for key in table["keys"]])
    items.captions = table["captions"]
    items.groups = table["groups"]
    return items


def _fashion_mnist(config: DataConfig) -> Items:
    return read_idx_folder(fashion_mnist_folder(), config, "fashion-mnist", _CLOTHES)


def fashion_mnist_folder() -> Path:
    """Where its four files lie: below VQKIT_DATA or the cache, else where Debian installs them.
    Raises VqkitError where they are not.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vqkit"
    folders = [Path(os.environ.get("VQKIT_DATA") or cache) / "fashion-mnist", _DEBIAN]
    for folder in folders:
        if folder.is_dir() and find_idx(folder):
            return folder
    raise VqkitError(
        "fashion-mnist is not on this machine: run 'apt-get install dataset-fashion-mnist' "
        "(Debian), or put the four files train-images-idx3-ubyte.gz, train-labels-..., "
        f"t10k-images-..., t10k-labels-... into {folders[0]}"
    )


def _digits() -> Items:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise VqkitError("the digits come with scikit-learn: pip install scikit-learn") from error
    digits = load_digits()
    # 17 levels, 0 to 16.
    images = np.rint(np.asarray(digits.images) * (255 / 16)).astype(np.uint8)
    items = array_items(images, "digits", NumberedNames("digits", len(images)), "digits")
    items.groups = list(map(str, digits.target.tolist()))
    return items
