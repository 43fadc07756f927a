from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from vqkit.config import DataConfig
from vqkit.data import ImageData, open_images
from vqkit.data.splits import SPLITS, digest, pack, split

CONFIG = DataConfig(validation=0.1, test=0.2)


def pictures_of(data: ImageData, name: str) -> list[bytes]:
    """Contents of a split, in its order."""
    return [image.numpy().tobytes() for image in data.read(data.splits[name])]


def test_splits_are_disjoint_complete_and_pure(folder: Path) -> None:
    first, second = (open_images(folder, CONFIG, seed=3) for _ in range(2))
    assert sorted(np.concatenate([first.splits[name] for name in SPLITS]).tolist()) == list(range(400))
    assert [len(first.splits[name]) for name in SPLITS] == [280, 40, 80]
    assert all(first.splits[name].dtype == np.int64 for name in SPLITS)
    for name in SPLITS:
        assert np.array_equal(first.splits[name], second.splits[name])
    other = open_images(folder, CONFIG, seed=4)
    assert set(other.splits["test"]) != set(first.splits["test"])


def test_names_and_order_of_files_do_not_matter(folder: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        shutil.copy(path, tmp_path / f"renamed{(number * 7) % 400}.png")
    data, renamed = open_images(folder, CONFIG, seed=0), open_images(tmp_path, CONFIG, seed=0)
    assert len(renamed) == 400
    for name in SPLITS:
        assert pictures_of(data, name) == pictures_of(renamed, name)


def test_a_new_file_moves_few_others(folder: Path, pictures: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pictures)
    np.save(tmp_path / "b.npy", pictures[:-1])
    large, small = (open_images(tmp_path / name, CONFIG, seed=0) for name in ("a.npy", "b.npy"))
    assert len(set(pictures_of(large, "test")) - set(pictures_of(small, "test"))) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_never_part(pictures: np.ndarray, tmp_path: Path, seed: int) -> None:
    copies = np.repeat(pictures[:60], 3, axis=0)
    np.save(tmp_path / "x.npy", copies)
    data = open_images(tmp_path / "x.npy", CONFIG, seed)
    contents = [set(pictures_of(data, name)) for name in SPLITS]
    assert [len(content) for content in contents] == [42, 6, 12] and len(set.union(*contents)) == 60
    assert sum(len(data.splits[name]) for name in SPLITS) == 180


@pytest.mark.parametrize("seed", range(5))
def test_variants_of_an_emoji_never_part(seed: int) -> None:
    """Checked by captions alone, not by the keys that the split itself uses."""
    data = open_images("emoji", CONFIG, seed)
    assert data.captions is not None and data.groups is not None
    home: dict[str, set[str]] = {}
    for name in SPLITS:
        for index in data.splits[name].tolist():
            if data.groups[index] == "people-body":
                words = data.captions[index].split(":")[0].split()
                base = " ".join(word for word in words if word not in ("man", "woman", "person"))
                home.setdefault(base, set()).add(name)
    assert len(home) > 150 and {base for base, names in home.items() if len(names) > 1} == set()
    for name in SPLITS:  # and the pixels of one split are nowhere else
        others = {picture for other in SPLITS if other != name for picture in pictures_of(data, other)}
        assert others.isdisjoint(pictures_of(data, name))


@pytest.mark.parametrize("count", [3, 10, 101])
@pytest.mark.parametrize("fractions", [(0.05, 0.05), (0.3, 0.3), (0.0, 0.1), (0.1, 0.0), (0.0, 0.0)])
def test_fractions(count: int, fractions: tuple[float, float]) -> None:
    keys = pack([digest(bytes([number])) for number in range(count)])
    found = split(keys, keys, 0, fractions)
    for name, fraction in zip(("validation", "test"), fractions, strict=True):
        assert len(found[name]) == (max(1, round(fraction * count)) if fraction else 0)
    assert len(found["train"]) >= 1
