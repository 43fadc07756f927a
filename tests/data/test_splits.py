from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from vqkit.data.splits import NEAR_BITS, SPLITS, digest, near, pack, split, tie
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import ImageData, open_images

CONFIG = DataConfig(validation=0.1, test=0.2)


def pictures_of(data: ImageData, name: str) -> list[bytes]:
    """Contents of a split, in its order."""
    return [image.numpy().tobytes() for image in data.read(data.splits[name]).values]


def test_splits_are_disjoint_complete_and_pure(folder: Path) -> None:
    first, second = (open_images(folder, CONFIG, seed=3) for _ in range(2))
    assert sorted(np.concatenate([first.splits[name] for name in SPLITS]).tolist()) == list(
        range(400)
    )
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
        others = {
            picture for other in SPLITS if other != name for picture in pictures_of(data, other)
        }
        assert others.isdisjoint(pictures_of(data, name))


@pytest.mark.parametrize("count", [3, 10, 101])
@pytest.mark.parametrize(
    "fractions", [(0.05, 0.05), (0.3, 0.3), (0.0, 0.1), (0.1, 0.0), (0.0, 0.0)]
)
def test_fractions(count: int, fractions: tuple[float, float]) -> None:
    keys = pack([digest(bytes([number])) for number in range(count)])
    found = split(keys, keys, 0, fractions)
    for name, fraction in zip(("validation", "test"), fractions, strict=True):
        assert len(found[name]) == (max(1, round(fraction * count)) if fraction else 0)
    assert len(found["train"]) >= 1


# ---------------------------------------------------------------------------- the same pixels twice


def encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def with_text(image: Image.Image) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "another")
    return encoded(image, "png", pnginfo=text)


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    return encoded(image.transpose(Image.Transpose.ROTATE_180), "png", exif=exif)


def jpeg(image: Image.Image) -> bytes:
    return encoded(image, "jpeg", quality=90)


def commented(image: Image.Image) -> bytes:
    content = jpeg(image)
    return content[:2] + b"\xff\xfe\x00\x05abc" + content[2:]


def from_jpeg(image: Image.Image) -> bytes:
    return encoded(Image.open(io.BytesIO(jpeg(image))), "png", compress_level=1)


Encoder = Callable[[Image.Image], bytes]
PNG: Encoder = lambda image: encoded(image, "png", compress_level=1)  # noqa: E731
TWINS: dict[str, tuple[Encoder, Encoder]] = {
    "text": (PNG, with_text),
    "bmp": (PNG, lambda image: encoded(image, "bmp")),
    "tiff": (PNG, lambda image: encoded(image, "tiff", compression="tiff_lzw")),
    "orientation": (PNG, turned),
    "alpha": (PNG, lambda image: PNG(image.convert("RGBA"))),
    "grey": (
        lambda image: PNG(image.convert("L")),
        lambda image: PNG(image.convert("L").convert("RGB")),
    ),
    "comment": (jpeg, commented),
    "jpeg as png": (jpeg, from_jpeg),
}


@pytest.mark.parametrize("way", ["memory", "stream", "patches"])
@pytest.mark.parametrize("side", [64, 560])
def test_equal_pixels_never_part(pictures: np.ndarray, tmp_path: Path, side: int, way: str) -> None:
    """Two files that show the same lie in one split, whatever their format, metadata and
    names are.
    """
    for number, pixels in enumerate(pictures[:24]):
        image = Image.fromarray(pixels).resize((side, side))
        for place, encode in enumerate(list(TWINS.values())[number % len(TWINS)]):
            (tmp_path / f"{place}-{number * 7 % 24:02}-{number:02}.png").write_bytes(encode(image))
    size = {"memory": 24, "stream": 100, "patches": 48}[way]
    config = DataConfig(
        image_size=(size, size),
        channels=3,
        fit="patches" if way == "patches" else "crop",
        max_memory_mb=1 if way == "stream" else 1024,
        validation=0.3,
        test=0.3,
    )
    for seed in range(2):
        data = open_images(tmp_path, config, seed)
        assert data.in_memory == (way != "stream")
        home: dict[str, set[str]] = {}
        for name in SPLITS:
            for index in data.splits[name].tolist():
                home.setdefault(
                    data.names[index][-6:-4] if way != "patches" else data.names[index][5:7], set()
                ).add(name)
        assert len(home) == 24 and all(len(names) == 1 for names in home.values())
    if way != "patches":
        assert "24 images have the pixels of another one" in " ".join(data.notes)


def test_splits_of_files_do_not_depend_on_size_and_memory(folder: Path) -> None:
    """Models of several sizes can be compared on one test split."""
    configs = [
        DataConfig(image_size=(16, 16), validation=0.2, test=0.2),
        DataConfig(image_size=(48, 48), channels=1, fit="resize", validation=0.2, test=0.2),
        DataConfig(image_size=(64, 64), max_memory_mb=1, validation=0.2, test=0.2),
    ]
    first, *others = [open_images(folder, config, seed=1) for config in configs]
    for other in others:
        assert all(np.array_equal(first.splits[name], other.splits[name]) for name in SPLITS)


@pytest.mark.parametrize("source", ["folder", "array"])
def test_near_duplicates(photos: Path, pictures: np.ndarray, tmp_path: Path, source: str) -> None:
    """The same photograph, smaller or compressed harder, stays in one split if that is wanted."""
    photo = Image.open(photos / "astronaut.png").convert("RGB").resize((200, 200))
    variants = [photo, photo.resize((150, 150)).resize((200, 200))]
    variants += [
        Image.open(io.BytesIO(encoded(photo, "jpeg", quality=quality))) for quality in (30, 60, 90)
    ]
    images = [np.asarray(image) for image in variants]
    images += [np.asarray(Image.fromarray(pixels).resize((200, 200))) for pixels in pictures[:12]]
    path = tmp_path / "x.npy"
    if source == "array":
        np.save(path, np.stack(images))
    else:
        path = tmp_path
        for number, pixels in enumerate(images):
            Image.fromarray(pixels).save(tmp_path / f"{number:02}.png", compress_level=1)
    apart = 0
    for seed in range(4):
        config = DataConfig(near_duplicates=True, image_size=(32, 32), validation=0.3, test=0.3)
        data = open_images(path, config, seed)
        assert len({name for name in SPLITS for index in data.splits[name] if index < 5}) == 1
        assert "4 images look like another one" in " ".join(data.notes)
        plain = open_images(path, config.model_copy(update={"near_duplicates": False}), seed)
        apart += len({name for name in SPLITS for index in plain.splits[name] if index < 5}) > 1
    assert apart > 0


def test_near_finds_all_pairs_within_the_distance() -> None:
    """Against a comparison of all pairs and its connected components."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 1 << 63, 60, dtype=np.uint64)
    looks = [hashes]
    for bits in range(1, NEAR_BITS + 3):
        flips = [
            np.bitwise_or.reduce(np.uint64(1) << random.permutation(64)[:bits].astype(np.uint64))
            for _ in hashes
        ]
        looks.append(hashes ^ np.array(flips, dtype=np.uint64))
    everything = np.concatenate(looks)
    close = np.bitwise_count(everything[:, None] ^ everything[None]) <= NEAR_BITS
    reached = close
    while not np.array_equal(reached, wider := reached @ close):
        reached = wider
    label = near(everything)
    assert np.array_equal(label[:, None] == label[None], reached)


def test_tied_keys_by_hand() -> None:
    keys = pack([digest(bytes([number])) for number in (0, 1, 2, 3, 1)])
    tied = tie(keys, [np.array([0, 0, 1, 2, 3]), np.array([5, 6, 7, 7, 8])])
    together = [tied[index].tobytes() for index in range(5)]
    assert (
        together[0] == together[1] == together[4]
        and together[2] == together[3]
        and together[0] != together[2]
    )
    assert together[0] == min(keys[0].tobytes(), keys[1].tobytes())
    assert np.array_equal(tie(keys, []), keys)
