"""Surprise maps: every position is red where it lies in the picture."""

from typing import Any

import numpy as np
import pytest

from tests.apps.test_denoise import untrained
from vqkit.apps.score import Score, score, surprise_map
from vqkit.artifact import Artifact


class Prior:
    """Says that the code in the second row and third column was a surprise, and no other."""

    metrics: dict[str, Any] = {"bits_quantiles": [1.0, 2.0, 9.0, 10.0], "images": 6}

    def told(self, count, classes, prompts):
        return None

    def code_bits(self, codes, condition):
        bits = (codes * 0).double()
        bits[..., 1, 2] = 8.0
        return bits


@pytest.mark.parametrize("size", [(16, 16), (13, 15)])
def test_a_surprise_is_shown_at_its_pixels_in_pictures_of_any_size(size, tmp_path, monkeypatch):
    from PIL import Image

    artifact = untrained({"kind": "conv", "width": 16, "num_downsamplings": 2}, {"kind": "vq", "codebook_size": 16})
    artifact.data["size"] = list(size)
    monkeypatch.setattr(Artifact, "wanted_prior", lambda self: Prior())
    Image.new("RGB", size[::-1], (100, 100, 100)).save(tmp_path / "x.png")
    (found,) = score(artifact, [tmp_path / "x.png"])
    assert isinstance(found, Score) and found.bits == 8 and found.covered == (16, 16)
    assert found.percentile == 0.5 and found.held_out == 6
    red = surprise_map(found)[..., 0] == 255
    expected = np.zeros(size, bool)
    expected[4:8, 8:12] = True
    assert np.array_equal(red, expected)
