import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vqkit.apps.evaluate_prior import nearest_items, nearness, without_context
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.signal import IMAGE
from vqkit.signals.image.source import open_images

SIDE = 8


def blurred(values):
    """What a weak decoder gives: the mean of each image, everywhere."""
    return values.double().mean((1, 2, 3), keepdim=True).round().byte().expand_as(values)


BLURRING = SimpleNamespace(tokenizer=SimpleNamespace(reconstruct=blurred), signal=IMAGE)


def noise(count, seed):
    """Grey images (count, H, W, C)."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 1), dtype=np.uint8)


def values(pixels):
    """(N, H, W, C) -> (N, C, H, W)"""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@pytest.fixture
def data(tmp_path):
    """400 grey images of noise: 200 to train on, 100 each held out for validation and test."""
    np.save(tmp_path / "noise.npy", noise(400, 0))
    settings = DataConfig(image_size=(SIDE, SIDE), channels=1, validation=0.25, test=0.25)
    return open_images(tmp_path / "noise.npy", settings, seed=0)


def test_decoded_pictures_of_unseen_images_are_not_taken_for_copies(data):
    """Of their own kind about 1 % come so near; images as they are stay so far away that all would
    be copies.
    """
    found = nearness(BLURRING, data, blurred(values(noise(300, 1))))
    assert (
        len(found.reconstructed_distances)
        == len(found.held_out_distances)
        == len(data.splits["validation"])
        > 80
    )
    assert np.mean(found.distances < np.quantile(found.reconstructed_distances, 0.01)) < 0.05
    assert np.mean(found.distances < np.quantile(found.held_out_distances, 0.01)) > 0.95


def test_codes_without_context_cost_what_training_frequencies_say():
    known = torch.tensor(
        [[3, 1, 0, 0], [0, 0, 0, 0]]
    )  # of 3 and 2 codes; one more each: 4/7 2/7 1/7, and 1/2 1/2
    counts = torch.tensor([[0, 1, 1, 0], [5, 0, 0, 0]])
    first = -(math.log2(2 / 7) + math.log2(1 / 7)) / 2
    assert without_context(known, counts, (3, 2)) == pytest.approx((first + 1) / 2)


def test_a_few_pictures_are_not_cheap_because_they_use_few_codes():
    """Uniform codes are worth log2 K bits, in a large split and in a small one; the own entropy of
    8 is 3 at most.
    """
    rng = np.random.default_rng(0)
    known, large, small = (
        torch.from_numpy(np.bincount(rng.integers(0, 256, number), minlength=256))[None]
        for number in (10**5, 10**5, 8)
    )
    assert without_context(known, large, (256,)) == pytest.approx(8, abs=0.01)
    assert without_context(known, small, (256,)) == pytest.approx(8, abs=0.15)


def test_distances_of_held_out_images_are_of_the_models_reconstructions(model, emoji):
    held_out = emoji.read(emoji.splits["validation"]).values
    found = nearness(model, emoji, held_out[:3])
    assert np.array_equal(found.held_out_distances, nearest_items(emoji, held_out)[1])
    assert np.array_equal(found.distances, found.held_out_distances[:3])
    expected = nearest_items(emoji, model.tokenizer.reconstruct(held_out))[1]
    assert np.array_equal(found.reconstructed_distances, expected)
    assert found.nearest.shape == (3, 3, 32, 32)


def test_without_held_out_images_there_is_no_yardstick(tmp_path):
    np.save(tmp_path / "noise.npy", noise(20, 0))
    settings = DataConfig(image_size=(SIDE, SIDE), channels=1, validation=0.0, test=0.0)
    data = open_images(tmp_path / "noise.npy", settings, seed=0)
    found = nearness(BLURRING, data, values(noise(2, 0)))
    assert not len(found.reconstructed_distances) and not len(found.held_out_distances)
    assert found.distances.tolist() == [0, 0]


def test_a_held_out_file_that_broke_while_it_was_streamed_is_left_out(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(
            tmp_path / f"{number:02}.png"
        )
    data = open_images(tmp_path, DataConfig(max_memory_mb=1, validation=0.3, test=0.0), seed=0)
    assert not data.in_memory
    (tmp_path / data.names[data.splits["validation"][0]]).write_bytes(b"broken")
    found = nearness(BLURRING, data, torch.zeros(1, 3, 128, 128, dtype=torch.uint8))
    assert len(found.held_out_distances) == len(data.splits["validation"]) - 1


def test_blank_images_are_no_copies_of_each_other(tmp_path):
    pixels = noise(200, 0)
    # Every second one is even, in 100 shades, no two alike.
    pixels[::2] = np.arange(100, dtype=np.uint8)[:, None, None, None]
    np.save(tmp_path / "half.npy", pixels)
    settings = DataConfig(image_size=(SIDE, SIDE), channels=1, validation=0.3, test=0.0)
    data = open_images(tmp_path / "half.npy", settings, seed=0)
    found = nearness(BLURRING, data, values(noise(2, 1)))
    varied = [index for index in data.splits["validation"] if index % 2]
    assert 0 < len(varied) < len(data.splits["validation"])
    assert len(found.held_out_distances) == len(varied) and found.held_out_distances.min() > 10
