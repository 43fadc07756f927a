"""Quality of images, against hand computation and scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from vqkit.data.normalisation import Normalisation
from vqkit.signals.image import measures


def test_psnr_by_hand():
    original = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    changed = original.clone()
    changed[1, 0, 0, 0] = 10
    assert measures.psnr(changed, original).tolist() == pytest.approx(
        [100.0, 10 * math.log10(255**2 / 25)]
    )


def test_large_images_are_compared_a_few_rows_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    original, changed = (
        torch.from_numpy(rng.integers(0, 256, (2, 3, 11, 7), np.uint8)) for _ in "ab"
    )
    mse = (changed.double() - original.double()).square().flatten(1).mean(1)
    for together in (1, 50, 1 << 22):
        monkeypatch.setattr(measures, "VALUES_TOGETHER", together)
        found = measures.psnr(changed, original)
        assert torch.allclose(found.double(), 10 * torch.log10(255**2 / mse), atol=1e-4)


def test_restored_values_are_rounded_and_clamped():
    standardised = torch.tensor([-0.1, 0.5 / 255, 0.6 / 255, 1.2]).view(1, 1, 1, 4)
    assert Normalisation((0.0,), (1.0,)).restore(standardised).flatten().tolist() == [0, 0, 1, 255]


def test_ssim_is_that_of_scikit_image_on_real_pictures(emoji):
    images = emoji.read(emoji.splits["test"][:4]).values
    blurred = (
        torch.nn.functional.avg_pool2d(images.float(), 3, 1, 1, count_include_pad=False)
        .round()
        .to(torch.uint8)
    )
    found = measures.ssim(blurred, images)
    for index in range(4):
        a, b = blurred[index].numpy().astype(float), images[index].numpy().astype(float)
        options = {"data_range": 255, "gaussian_weights": True, "use_sample_covariance": False}
        expected = np.mean(
            [structural_similarity(x, y, **options) for x, y in zip(a, b, strict=True)]
        )
        assert float(found[index]) == pytest.approx(expected, abs=1e-4)


def test_ssim_of_pictures_smaller_than_its_window():
    tiny = torch.randint(0, 255, (2, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    assert measures.ssim(tiny, tiny).tolist() == pytest.approx([1.0, 1.0])
