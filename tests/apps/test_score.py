"""Surprise maps: every position is red where it lies in the image."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.untrained import untrained
from vqkit.apps.score import Score, score, surprise_map
from vqkit.artifact.model import Model


class Prior:
    """Says that the code in the second row and third column was a surprise, and no other."""

    metrics: dict[str, Any] = {"bits_quantiles": [1.0, 2.0, 9.0, 10.0], "items": 6}

    def condition(self, count, classes, prompts):
        return None

    def code_bits(self, codes, condition):
        bits = (codes * 0).double()
        bits[..., 1, 2] = 8.0
        return bits


@pytest.mark.parametrize("size", [(16, 16), (13, 15)])
def test_a_surprise_is_shown_at_its_pixels_in_pictures_of_any_size(size, monkeypatch):
    model = untrained(
        {"kind": "conv", "width": 16, "num_downsamplings": 2}, {"kind": "vq", "codebook_size": 16}
    )
    monkeypatch.setattr(Model, "wanted_prior", lambda self: Prior())
    values = torch.full((3, *size), 100, dtype=torch.uint8)
    (found,) = score(model, [("x.png", values)])
    assert isinstance(found, Score) and found.bits == 8 and found.covered == (16, 16)
    assert found.key == "x.png" and torch.equal(found.values, values)
    assert found.percentile == 0.5 and found.held_out == 6
    assert found.bits_per_dim == 8 / (3 * size[0] * size[1])
    red = surprise_map(model, found)[..., 0] == 255
    expected = np.zeros(size, bool)
    expected[4:8, 8:12] = True
    assert np.array_equal(red, expected)
