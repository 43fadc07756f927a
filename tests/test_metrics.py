import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from vqkit import metrics


def test_psnr_by_hand():
    original = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    changed = original.clone()
    changed[1, 0, 0, 0] = 10
    assert metrics.psnr(changed, original).tolist() == pytest.approx([100.0, 10 * math.log10(255**2 / 25)])


def test_to_pixels_rounds_and_clamps():
    assert metrics.to_pixels(torch.tensor([-0.1, 0.5 / 255, 0.6 / 255, 1.2])).tolist() == [0, 0, 1, 255]


def test_ssim_is_that_of_scikit_image_on_real_pictures(emoji):
    images = emoji.read(emoji.splits["test"][:4]).values
    blurred = torch.nn.functional.avg_pool2d(images.float(), 3, 1, 1, count_include_pad=False).round().to(torch.uint8)
    found = metrics.ssim(blurred, images)
    for index in range(4):
        a, b = blurred[index].numpy().astype(float), images[index].numpy().astype(float)
        options = {"data_range": 255, "gaussian_weights": True, "use_sample_covariance": False}
        expected = np.mean([structural_similarity(x, y, **options) for x, y in zip(a, b, strict=True)])
        assert float(found[index]) == pytest.approx(expected, abs=1e-4)


def test_ssim_of_pictures_smaller_than_its_window():
    tiny = torch.randint(0, 255, (2, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert metrics.ssim(tiny, tiny).tolist() == pytest.approx([1.0, 1.0])


def test_usage_and_perplexity_of_hand_made_histograms():
    one, uniform = torch.tensor([[8, 0, 0, 0]]), torch.tensor([[2, 2, 2, 2]])
    assert (metrics.usage(one), metrics.perplexity(one), metrics.entropy_bits(one)) == (0.25, 1.0, 0.0)
    assert metrics.usage(uniform) == 1.0
    assert metrics.perplexity(uniform) == pytest.approx(4.0) and metrics.entropy_bits(uniform) == pytest.approx(2.0)
    both = torch.cat([one, uniform])
    assert metrics.usage(both) == pytest.approx(0.625) and metrics.perplexity(both) == pytest.approx(2.5)


def test_code_counts_per_codebook():
    codes = torch.tensor([[[[0, 1]], [[2, 2]]], [[[0, 0]], [[1, 2]]]])  # (2, 2, 1, 2)
    assert metrics.code_counts(codes, 3).tolist() == [[3, 1, 0], [0, 1, 3]]
    codes[0, 1] = -1  # padding
    assert metrics.code_counts(codes, 3).sum(1).tolist() == [4, int((codes[:, 1] >= 0).sum())]
