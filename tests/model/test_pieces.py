"""Images in pieces: to the code and to the pixel what they are as a whole, in memory that does not grow."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.apps.test_denoise import PATCH, RESIDUAL, STAGE, in_small_pieces, picture, untrained
from vqkit.data import Normalisation
from vqkit.model.pieces import by_pieces

BITS = {"kind": "bsq", "bits": 8}  # signs: codes of untrained models that differ from place to place
CONV = {"kind": "conv", "width": 16, "num_downsamplings": 2}
KINDS = [
    (PATCH, RESIDUAL, {}),
    (PATCH, BITS, {"transform": {"kind": "conv", "num_blocks": 2}}),
    (PATCH, {"kind": "hierarchical", "top": STAGE, "bottom": STAGE}, {}),
    (PATCH, {"kind": "none"}, {}),
    (CONV, BITS, {}),
    ({"kind": "mlp", "widths": [32], "grid": [4, 4]}, BITS, {}),
]


@pytest.mark.parametrize(("network", "quantizer", "more"), KINDS)
def test_pieces_in_float64_are_the_whole_exactly(network, quantizer, more, monkeypatch):
    artifact = untrained(network, quantizer, **more)
    model = copy.deepcopy(artifact.model)
    model.encoder.double()
    model.transform.double()
    in_small_pieces(monkeypatch)
    sides = [16 * side for side in model.tile]
    x = artifact.standardise(torch.from_numpy(picture(*sides)).permute(2, 0, 1)[None]).double()
    codes = by_pieces(model, model.encode, x, model.tile, model.tile_grid)
    assert torch.equal(codes, model.encode(x)) and len(codes.unique()) > 8
    whole = artifact._exact.decode(codes)
    calls = []

    def shown(part):
        calls.append(part)
        return artifact._exact.decode(part)

    found = by_pieces(model, shown, codes, model.tile_grid, model.tile)
    assert len(calls) > 1 and torch.allclose(found, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("network", "quantizer", "more"), KINDS)
def test_an_artifact_makes_of_large_pictures_what_it_makes_of_them_as_a_whole(network, quantizer, more, monkeypatch):
    artifact, image = untrained(network, quantizer, **more), picture(75, 183)
    codes, floats = artifact.encode(image), torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    shown = [artifact.decode(codes, (75, 183), exact=exact) for exact in (False, True)]
    in_small_pieces(monkeypatch)
    share = 0.999 if artifact.model.quantizer.is_discrete else 0  # a latent's bits may all change
    assert (artifact.encode(image) == codes).float().mean() >= share
    assert (artifact.encode(floats) == codes).float().mean() >= share
    assert np.abs(artifact.decode(codes, (75, 183)).astype(int) - shown[0]).max() <= 1
    assert np.array_equal(artifact.decode(codes, (75, 183), exact=True), shown[1])
    if artifact.model.quantizer.is_discrete:
        found = artifact.decompress(artifact.compress(image))
        assert (found == artifact.decode(artifact.encode(image), (75, 183), exact=True)).all()


def test_codes_of_no_whole_tiles_are_refused_in_words():
    artifact = untrained({"kind": "mlp", "widths": [32], "grid": [4, 4]}, STAGE)
    with pytest.raises(ValueError, match="multiples of 4 and 4"):
        artifact.decode(torch.zeros((1, 1, 5, 4), dtype=torch.long))


def test_images_stay_as_they_are_when_they_are_standardised():
    pixels = torch.full((1, 1, 2, 2), 100.0)
    Normalisation((0.5,), (0.5,)).apply(pixels)
    assert (pixels == 100).all()


MEASURED = """
import resource, numpy, torch
from tests.apps.test_denoise import PATCH, STAGE, untrained
torch.set_num_threads(1)
artifact, peaks = untrained({**PATCH, "width": 32}, STAGE), []
for side in (384, 768):
    artifact.decode(artifact.encode(numpy.zeros((side, side, 3), numpy.uint8)), exact=True)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_image():
    """Four times the pixels, of which the larger image has 1.8 MB: as a whole it takes 440 MB more than the smaller."""
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100, done.stdout
