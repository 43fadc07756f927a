"""The same emoji by two artists, from the npm packages emoji-datasource-twitter and
emoji-datasource-google 16.0.0.

They are no part of this project (the images have licences of their own: CC BY 4.0 and Apache 2.0):
`npm pack` gets them, and the folder that both were unpacked in, twitter/ and google/, is what
`load` reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.image_sets import arrays, open_set

ARTISTS = "twitter", "google"
SIDE = 32
# Ends of the training and the validation split; the rest is for the figures.
SHARES = (0.7, 0.85)
SPLIT_SEED = 16


@dataclass(frozen=True)
class Artists:
    """images uint8 (2, N, 32, 32, 3): emoji n by both; groups (N,) of `names`; splits: name ->
    numbers of emoji.
    """

    images: np.ndarray
    groups: np.ndarray
    names: list[str]
    splits: dict[str, np.ndarray]


def load(folder: Path) -> Artists:
    """Emoji that both have drawn, without the parts (skin tones, hair) that are no emoji of their
    own.
    """
    table = json.loads((folder / ARTISTS[0] / "emoji.json").read_text(encoding="utf-8"))
    entries = [entry for entry in table if entry["category"] != "Component"]
    files = [
        [folder / artist / "img" / artist / "64" / entry["image"] for artist in ARTISTS]
        for entry in entries
    ]
    there = [number for number, pair in enumerate(files) if all(file.exists() for file in pair)]
    images = np.stack(
        [[_image(files[number][artist]) for number in there] for artist in range(len(ARTISTS))]
    )
    categories = [entries[number]["category"] for number in there]
    return _split(images, categories)


def made_up(count: int) -> Artists:
    """For quick forms, which have no second artist: `count` of the built-in emoji, of all groups,
    and the same in inverted colours.
    """
    data = open_set("emoji")
    assert data.groups is not None
    chosen = np.linspace(0, len(data) - 1, count).astype(int).tolist()
    images = arrays(data, chosen)
    return _split(np.stack([images, 255 - images]), [data.groups[number] for number in chosen])


def _split(images: np.ndarray, categories: list[str]) -> Artists:
    names = sorted(set(categories))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(categories))
    ends = [round(share * len(order)) for share in SHARES]
    splits = dict(zip(("train", "val", "test"), np.split(order, ends), strict=True))
    return Artists(
        images, np.array([names.index(category) for category in categories]), names, splits
    )


def _image(file: Path) -> np.ndarray:
    """Over white, averaged down."""
    with Image.open(file) as found:
        drawn = found.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
        return np.asarray(flat.resize((SIDE, SIDE), Image.Resampling.BOX))
