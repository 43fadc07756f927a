"""Patches from several sizes of an image, flat ones among them; images without interpolation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqkit.signals.image.augment import draw, random_crop
from vqkit.signals.image.config import AugmentConfig, DataConfig
from vqkit.signals.image.cutting import are_flat
from vqkit.signals.image.files import fit_image, reduced
from vqkit.signals.image.source import ImageData, open_images

PATCHES = DataConfig(
    fit="patches", image_size=(16, 16), channels=3, num_scales=3, validation=0.2, test=0.2
)


def noise(number: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """Noise of 130x100, the first beside it of 300x260 pixels (height x width)."""
    for number in range(5):
        pixels = noise(number, *((300, 260) if number == 0 else (130, 100)))
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def values(data: ImageData) -> np.ndarray:  # (N, H, W, C)
    return data.read(range(len(data))).values.permute(0, 2, 3, 1).numpy()


def test_patches_of_a_smaller_size_are_means_of_squares(five: Path) -> None:
    data = open_images(five, PATCHES, seed=0)
    # At full size 18 * 16 of the first and 8 * 6 of each other, whose halves have a short side of
    # 50 pixels, fewer than four patches; of the first a half, 9 * 8, and a quarter, 4 * 4.
    assert len(data) == 18 * 16 + 4 * 8 * 6 + 9 * 8 + 4 * 4
    names = list(data.names)
    assert sum(":1/" in name for name in names) == 9 * 8 + 4 * 4
    found = values(data)
    pixels = noise(0, 300, 260)
    assert np.array_equal(found[names.index("0.png:32,16")], pixels[32:48, 16:32])
    half = pixels.reshape(150, 2, 130, 2, 3).mean((1, 3))
    assert np.abs(found[names.index("0.png:1/2:32,16")] - half[32:48, 16:32]).max() <= 0.5
    quarter = pixels.reshape(75, 4, 65, 4, 3).mean((1, 3))
    assert np.abs(found[names.index("0.png:1/4:48,0")] - quarter[48:64, :16]).max() <= 0.5


def test_all_patches_of_an_image_are_in_one_split(five: Path) -> None:
    data = open_images(five, PATCHES, seed=0)
    owners = {
        split: {data.names[index].split(":")[0] for index in ids}
        for split, ids in data.splits.items()
    }
    assert sum(map(len, owners.values())) == 5
    counts = {split: len(names) for split, names in owners.items()}
    assert data.describe()["cut_from"] == counts == {"train": 3, "validation": 1, "test": 1}


def test_colours_under_transparent_pixels_do_not_show_in_a_smaller_size() -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (200, 100, 50, 255)
    pixels[1, 1] = (255, 255, 255, 0)
    # Eight bits of colours that were multiplied by an alpha of 1/4 are less exact by two levels.
    assert np.abs(reduced(pixels, 2).astype(int) - (200, 100, 50, 64)).max() <= 2
    # What is left at the edges is dropped.
    assert reduced(np.zeros((7, 5, 1), np.uint8), 3).shape == (2, 1, 1)


def test_flat_is_a_difference_of_neighbours_below_one_level() -> None:
    # Rows that rise by 2 and by 1 levels: mean differences, down and across, of 1 and 1/2.
    ramps = [np.broadcast_to(step * np.arange(8)[:, None], (8, 8)) for step in (2, 1)]
    patches = np.stack([*ramps, np.full((8, 8), 77)]).astype(np.uint8)[..., None]
    assert are_flat(patches).tolist() == [False, True, True]


@pytest.mark.parametrize(("most", "flat"), [(1.0, 64), (0.5, 16), (0.2, 4), (0.0, 0)])
def test_flat_patches_are_a_share_at_most(most: float, flat: int, tmp_path: Path) -> None:
    for number in range(3):
        # Of 80 patches 16 are noise and 64 are sky.
        pixels = noise(number, 160, 128)
        pixels[32:] = 200 + number
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    # One that is flat all over still occurs.
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "night.png")
    config = PATCHES.model_copy(update={"max_flat": most, "num_scales": 1})
    data = open_images(tmp_path, config, seed=0)
    found = [name for name in data.names if name.startswith("0.png")]
    in_noise = [name for name in found if int(name.split(":")[1].split(",")[0]) < 32]
    assert (len(in_noise), len(found) - len(in_noise)) == (16, flat)
    num_dark = sum(name.startswith("night.png") for name in data.names)
    assert num_dark == (16 if most == 1 else 1)
    again = open_images(tmp_path, config, seed=0)
    assert list(again.names) == list(data.names) and np.array_equal(values(again), values(data))


def test_nearest_makes_no_new_colours() -> None:
    random = np.random.default_rng(0)
    palette = np.array([[0, 0, 0], [250, 10, 30], [20, 200, 120]], np.uint8)
    art = Image.fromarray(palette[random.integers(0, 3, (23, 31))])
    for fit in ("crop", "resize", "patches"):
        for size in ((16, 16), (64, 40)):
            made = np.asarray(fit_image(art, size, fit, "nearest")).reshape(-1, 3)
            assert {tuple(pixel) for pixel in made} <= {tuple(pixel) for pixel in palette}
            smooth = np.asarray(fit_image(art, size, fit)).reshape(-1, 3)
            # Patches are cut without scaling, where they fit.
            is_scaled = fit != "patches" or size > (23, 31)
            assert (len(np.unique(smooth, axis=0)) > 3) == is_scaled
    images = torch.from_numpy(palette[random.integers(0, 3, (6, 24, 24))]).permute(0, 3, 1, 2)
    drawn = draw(6, AugmentConfig(crop=0.5), torch.Generator().manual_seed(0))
    assert drawn.crop is not None
    cropped = random_crop(images, drawn.crop, "nearest").permute(0, 2, 3, 1).reshape(-1, 3)
    assert len(cropped.unique(dim=0)) == 3
    blurred = random_crop(images, drawn.crop).permute(0, 2, 3, 1).reshape(-1, 3)
    assert len(blurred.unique(dim=0)) > 3


def test_sets_of_pixel_art_keep_their_colours_from_file_to_batch(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    palette = np.array([0, 90, 255], np.uint8)
    for number in range(12):
        shape = (20 + number, 24)
        Image.fromarray(palette[random.integers(0, 3, shape)]).save(tmp_path / f"{number}.png")
        # A JPEG file may be decoded at a fraction of its size, which blurs.
        flat = np.repeat(palette[random.integers(0, 3, (4, 4))], 64, 0).repeat(64, 1)
        Image.fromarray(flat).save(tmp_path / f"{number}.jpg", quality=100)
    settings = DataConfig(
        image_size=(16, 16),
        channels=1,
        interpolation="nearest",
        augment=AugmentConfig(crop=0.6, shift=2, flip=True),
    )
    data = open_images(tmp_path, settings, seed=0)
    seen = next(data.train(0, 22, 0)).values.unique().tolist()
    assert all(min(abs(value - 0), abs(value - 90), abs(value - 255)) <= 1 for value in seen)
