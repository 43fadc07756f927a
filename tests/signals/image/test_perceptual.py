"""The feature distance, on a small network in place of the one that a package brings."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vqkit.config import load
from vqkit.data.normalisation import Normalisation
from vqkit.errors import VqkitError
from vqkit.settings import Config
from vqkit.signals.image import perceptual
from vqkit.signals.image.signal import IMAGE
from vqkit.training.tasks.autoencoder import perceptual_distance


def network() -> SimpleNamespace:
    torch.manual_seed(0)
    blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(9))
    return SimpleNamespace(
        _conv_stem=nn.Conv2d(3, 4, 3, stride=2, padding=1), _bn0=nn.Identity(), _blocks=blocks
    )


def distance(channels: int) -> perceptual.FeatureDistance:
    normalisation = Normalisation((0.4,) * channels, (0.2,) * channels)
    return perceptual.FeatureDistance(normalisation, network())


def test_the_distance_is_that_of_unit_features_averaged_over_positions_and_taps():
    measured = distance(3)
    first = torch.randn(2, 3, 32, 32)
    second = torch.randn(2, 3, 32, 32)
    expected = []
    sides = []
    for x in (first, second):
        pixels = x * 0.2 + 0.4
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        y = measured.stem((pixels - mean) / std)
        taps = []
        for index, block in enumerate(measured.blocks):
            y = block(y)
            if index in perceptual.TAPS:
                taps.append(torch.nn.functional.normalize(y, dim=1))
        sides.append(taps)
    for one, other in zip(*sides, strict=True):
        expected.append((one - other).square().sum(1).mean())
    torch.testing.assert_close(
        measured(first, second), torch.stack(expected).mean(), rtol=1e-4, atol=1e-6
    )
    assert float(measured(first, first)) == 0.0


def test_grey_is_seen_as_rgb_and_alpha_not_at_all():
    grey = torch.randn(2, 1, 32, 32)
    other = torch.randn(2, 1, 32, 32)
    of_grey = distance(1)(grey, other)
    of_rgb = distance(3)(grey.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1))
    torch.testing.assert_close(of_grey, of_rgb)
    rgba = torch.randn(2, 4, 32, 32)
    changed = rgba.clone()
    changed[:, 3] += 1
    assert float(distance(4)(rgba, changed)) == 0.0


def test_the_reconstruction_gets_a_gradient_and_the_network_none():
    measured = distance(3)
    x = torch.randn(1, 3, 16, 8, requires_grad=True)
    measured(x, torch.zeros_like(x)).backward()
    assert float(x.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in measured.parameters())


def test_features_that_are_not_installed_are_an_error_and_auto_takes_bands(emoji, monkeypatch):
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    weighed = ["losses.perceptual=1"]
    config = load("emoji", [*weighed, "losses.perceptual_distance=features"], Config)
    with pytest.raises(VqkitError, match=r"pip install 'vqkit\[perceptual\]'"):
        perceptual_distance(config, emoji, IMAGE)
    assert perceptual_distance(load("emoji", weighed, Config), emoji, IMAGE).name == "bands"
    assert perceptual_distance(load("emoji", [], Config), emoji, IMAGE) is None
    with pytest.raises(VqkitError, match=r"losses.perceptual above 0"):
        load("emoji", ["losses.perceptual_distance=bands"], Config)
