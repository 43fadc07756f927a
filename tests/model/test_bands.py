"""Laplacian bands, the distance and the figure that are made of them."""

import pytest
import torch
from torch.nn import functional as F

from vqkit.model.bands import BandDistance, detail, halved, laplacian_bands


@pytest.mark.parametrize("extent", [(37,), (16, 20), (9, 16, 10)])
def test_bands_and_what_is_left_over_add_up_to_the_item(extent):
    x = torch.randn(2, 3, *extent)
    bands = laplacian_bands(x, 2)
    coarse = x
    for _ in bands:
        coarse = halved(coarse)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(extent)]
    for band in reversed(bands):
        coarse = band + F.interpolate(coarse, band.shape[2:], mode=mode, align_corners=False)
    torch.testing.assert_close(coarse, x)


def test_halving_an_even_side_takes_means_of_pairs():
    x = torch.arange(8.0).view(1, 1, 8)
    assert halved(x).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]


def test_bands_end_where_items_get_too_small():
    assert laplacian_bands(torch.randn(1, 1, 7, 32), 4) == []
    assert len(laplacian_bands(torch.randn(1, 1, 8, 32), 4)) == 1
    assert len(laplacian_bands(torch.randn(1, 1, 32, 32), 4)) == 3


def test_the_distance_is_zero_for_equal_items_only_and_sees_texture_wherever_it_lies():
    generator = torch.Generator().manual_seed(0)
    texture = torch.randn(4, 1, 32, 32, generator=generator)
    other_texture = torch.randn(4, 1, 32, 32, generator=generator)
    smooth = torch.zeros_like(texture)
    distance = BandDistance()
    assert float(distance(texture, texture)) == pytest.approx(0.0, abs=1e-6)
    # By mean squares another texture is twice as far as none at all; here less so.
    ratio = F.mse_loss(other_texture, texture) / F.mse_loss(smooth, texture)
    seen = distance(other_texture, texture) / distance(smooth, texture)
    assert float(ratio) > 1.9 and float(seen) < 0.75 * float(ratio)


@pytest.mark.parametrize("extent", [(4,), (3, 5), (1, 1)])
def test_the_distance_of_items_without_a_band_is_finite_and_has_a_gradient(extent):
    x = torch.randn(2, 1, *extent, requires_grad=True)
    value = BandDistance()(x, torch.zeros_like(x))
    value.backward()
    assert value.isfinite() and float(x.grad.abs().sum()) > 0


def test_detail_is_the_energy_of_the_finest_band_in_decibel():
    generator = torch.Generator().manual_seed(0)
    original = torch.randint(0, 256, (3, 3, 16, 16), generator=generator).float()
    assert detail(original, original).tolist() == [0.0] * 3
    halfway = (original - 128) / 2 + 128
    # A quarter of the energy.
    torch.testing.assert_close(
        detail(halfway, original), torch.full((3,), -6.02), atol=0.01, rtol=0
    )
    blurred = F.interpolate(halved(original), (16, 16), mode="bilinear")
    assert (detail(blurred, original) < -3).all()
    assert (detail(2 * original, original) > 0).all()
    assert detail(torch.zeros(2, 1, 3, 3), torch.ones(2, 1, 3, 3)).tolist() == [0.0, 0.0]
