"""Noise: the moments that each kind must have, and independence of batches."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vqkit.signals.image.config import NoiseConfig
from vqkit.signals.image.noise import (
    add_noise,
    gaussian,
    jpeg,
    missing_blocks,
    poisson,
    salt_and_pepper,
    speckle,
)


def flat(level: int, channels: int = 1) -> torch.Tensor:
    return torch.full((channels, 200, 200), level, dtype=torch.uint8)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("add", "amount", "variance"),
    [
        (gaussian, 20, 400),
        (poisson, 50, 100 * 255 / 50),  # counts have the variance of their mean, 100 * 50 / 255
        (speckle, 0.2, (0.2 * 100) ** 2),
    ],
)
def test_mean_and_variance(add, amount, variance):
    found = add(flat(100), amount, generator()).double()
    assert found.mean() == pytest.approx(100, abs=0.5)
    assert found.var() == pytest.approx(variance, rel=0.03)


def test_values_do_not_wrap_around():
    assert gaussian(flat(255), 10, generator()).min() > 200
    assert gaussian(flat(0), 10, generator()).max() < 60


def test_salt_and_pepper_hits_all_channels_of_a_pixel_and_leaves_the_others():
    found = salt_and_pepper(flat(100, 3), 0.2, generator())
    assert (found == found[:1]).all()
    for level in (0, 255):
        assert (found[0] == level).double().mean() == pytest.approx(0.1, abs=0.01)
    assert (found[0] == 100).double().mean() == pytest.approx(0.8, abs=0.01)


def test_jpeg_is_what_a_file_gives():
    image = torch.randint(0, 256, (3, 24, 40), generator=generator(), dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=30)
    assert np.array_equal(
        jpeg(image, 30, generator()).permute(1, 2, 0), np.asarray(Image.open(file))
    )


def test_missing_blocks_are_three_squares_at_most():
    found = missing_blocks(flat(7), 0.1, generator()) == 128
    assert 20 * 20 <= found.sum() <= 3 * 20 * 20


def test_an_image_gets_the_same_noise_in_any_batch():
    images = torch.randint(0, 256, (6, 3, 16, 16), generator=generator(), dtype=torch.uint8)
    settings, seeds = NoiseConfig(sigma=50), [3, 1, 4, 15, 9, 2]
    whole = add_noise(images, settings, seeds)
    assert torch.equal(whole[2:4], add_noise(images[2:4], settings, seeds[2:4]))
    assert not torch.equal(whole, images)


def test_shares_of_clean_and_of_other_kinds():
    images = torch.full((400, 1, 8, 8), 100, dtype=torch.uint8)
    clean = (
        add_noise(images, NoiseConfig(sigma=75, clean=0.25, others=0.0), range(400))
        .eq(images)
        .flatten(1)
        .all(1)
    )
    assert clean.double().mean() == pytest.approx(0.25, abs=0.07)
    assert torch.equal(add_noise(images, NoiseConfig(sigma=75, clean=1.0), range(400)), images)
