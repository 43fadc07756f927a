"""CIEDE2000 against the table that was published with it, and against scikit-image."""

import math

import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab

from vqkit.apps.evaluate import evaluate, open_for
from vqkit.signals.image import measures
from vqkit.signals.image.colour import ciede2000, lab
from vqkit.signals.image.signal import IMAGE

# Sharma, Wu and Dalal 2005, table 1: L, a, b of two colours and what is between them.
TABLE = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


def test_the_published_pairs_both_ways():
    rows = torch.tensor(
        [[float(word) for word in line.split()] for line in TABLE.split("\n")[1:-1]]
    )
    rows = rows.double()
    assert len(rows) == 34
    for one, other in ((rows[:, :3], rows[:, 3:6]), (rows[:, 3:6], rows[:, :3])):
        np.testing.assert_allclose(ciede2000(one, other), rows[:, 6], atol=6e-5)


def test_colours_of_bytes_are_those_of_scikit_image():
    """Of all greys, of the corners, and of random pairs."""
    generator = np.random.default_rng(0)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    corners = np.stack(np.meshgrid(*[[0, 255]] * 3), -1).reshape(-1, 3).astype(np.uint8)
    random = generator.integers(0, 256, (5000, 3), np.uint8)
    one = np.concatenate([greys, corners, random])
    expected = rgb2lab(one)
    found = lab(torch.from_numpy(one))
    # Where colours are dark it has the slope 7.787 in place of 841 / 108.
    np.testing.assert_allclose(found, expected, atol=2e-4)
    other = generator.permutation(expected)
    np.testing.assert_allclose(
        ciede2000(found, torch.from_numpy(other)), deltaE_ciede2000(expected, other), atol=2e-4
    )


def test_a_colour_is_nothing_away_from_itself():
    colours = lab(torch.randint(0, 256, (500, 3), generator=torch.Generator().manual_seed(0)))
    assert ciede2000(colours, colours).tolist() == [0.0] * 500


def split(image):
    """Blocks of 8x8 of an array (H, W, 3), one after the other: (blocks, 8, 8, 3)."""
    rows = [image[top : top + 8] for top in range(0, image.shape[0] - 7, 8)]
    return np.stack(
        [row[:, left : left + 8] for row in rows for left in range(0, row.shape[1] - 7, 8)]
    )


def test_smooth_areas_of_a_photograph_are_those_of_numpy_and_scikit_image(photo):
    from PIL import Image

    # No multiple of 8 on either side.
    image = np.asarray(Image.open(photo).convert("RGB"))[:205, :301]
    changed = np.clip(image.astype(int) + [6, -3, 2], 0, 255).astype(np.uint8)
    is_smooth = split(image).astype(float).std((1, 2)).max(1) < 4
    assert 10 < is_smooth.sum() < is_smooth.size - 10
    far = deltaE_ciede2000(rgb2lab(split(image)), rgb2lab(split(changed))).mean((1, 2))
    values, original = (torch.tensor(one).permute(2, 0, 1) for one in (changed, image))
    np.testing.assert_allclose(measures.smooth_errors(values, original), far[is_smooth], atol=2e-4)
    found = measures.colour_error(values[None], original[None])
    assert found.tolist() == pytest.approx([far[is_smooth].mean()], abs=2e-4)


def test_what_is_rough_is_not_looked_at_and_an_image_of_it_has_no_figure():
    original = torch.full((2, 3, 8, 16), 128, dtype=torch.uint8)
    # A deviation of 5 levels in one channel: right half of the first image, all of the second.
    original[0, 2, :, 8::2] = 138
    original[1, 2, :, ::2] = 138
    values = original.clone()
    values[:, :, :, 8:] = 0
    assert measures.colour_error(values, original)[0] == 0
    assert math.isnan(measures.colour_error(values, original)[1])
    tiny = torch.zeros(1, 3, 7, 30, dtype=torch.uint8)
    assert math.isnan(measures.colour_error(tiny, tiny)[0])


def test_what_nobody_sees_is_no_error():
    """Colours under transparent pixels."""
    opaque = torch.randint(0, 256, (1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    original = opaque.to(torch.uint8)
    original[:, 3] = 0
    values = original.clone()
    values[:, :3] = 77
    assert measures.colour_error(values, original).tolist() == [0.0]
    # Half opaque red on white beside opaque pink: the same but for rounding.
    red = torch.tensor([255, 0, 0, 128], dtype=torch.uint8).view(1, 4, 1, 1).expand(1, 4, 8, 8)
    pink = torch.tensor([255, 127, 127, 255], dtype=torch.uint8).view(1, 4, 1, 1).expand(1, 4, 8, 8)
    assert measures.colour_error(pink, red).item() < 0.01


def test_figures_of_a_split_are_over_images_with_smooth_areas(model, tmp_path):
    """None for a split without any; grey images have no figure of colour at all."""
    noise = torch.randint(0, 256, (3, 32, 32, 3), generator=torch.Generator().manual_seed(0))
    sky = torch.full((1, 32, 32, 3), 200)
    for images in (noise, torch.cat([noise, sky])):
        np.save(tmp_path / "images.npy", images.to(torch.uint8).numpy())
        data = open_for(model, tmp_path / "images.npy", "all")
        found = evaluate(model, data, "all").metrics["ciede2000"]
        assert (found is None) == (len(images) == 3)
    alone = model.tokenizer.reconstruct(sky.to(torch.uint8).permute(0, 3, 1, 2))
    original = sky.to(torch.uint8).permute(0, 3, 1, 2)
    assert found == pytest.approx(measures.colour_error(alone, original).item(), rel=1e-4)
    grey = torch.full((1, 1, 32, 32), 200, dtype=torch.uint8)
    assert set(IMAGE.evaluation_measures(grey, grey, None, {})) == {"psnr", "ssim"}
