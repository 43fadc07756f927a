"""Images in parts: to the code and to the pixel what they are as a whole, in memory that does not
grow.
"""

import copy
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from vqkit.data.normalisation import Normalisation
from vqkit.model import tiling
from vqkit.model.tiling import by_parts

from ..untrained import MULTISCALE, PATCH, RESIDUAL, STAGE, untrained

BITS = {
    "kind": "bsq",
    "bits": 8,
}  # signs: codes of untrained models that differ from place to place
CONV = {"kind": "conv", "width": 16, "num_downsamplings": 2}
KINDS = [
    (PATCH, RESIDUAL, {}),
    (PATCH, BITS, {"transform": {"kind": "conv", "num_blocks": 2}}),
    (PATCH, {"kind": "hierarchical", "top": STAGE, "bottom": STAGE}, {}),
    (PATCH, {"kind": "pyramid", "stage": BITS}, {}),
    (PATCH, {"kind": "none"}, {}),
    (CONV, BITS, {}),
    ({"kind": "mlp", "widths": [32], "grid": [4, 4]}, BITS, {}),
    (MULTISCALE, BITS, {}),
]


def image(height=50, width=70, channels=3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def in_small_parts(monkeypatch, *networks) -> None:
    for network in networks:
        network.part_positions = 16 * 16
    monkeypatch.setattr(tiling, "NUM_MARGINS", 0)


@pytest.mark.parametrize(("network", "quantizer", "more"), KINDS)
def test_parts_in_float64_are_the_whole_doublely(network, quantizer, more, monkeypatch):
    model = untrained(network, quantizer, **more)
    tokenizer, network = model.tokenizer, copy.deepcopy(model.network)
    network.encoder.double()
    network.transform.double()
    in_small_parts(monkeypatch, network)
    sides = [16 * side for side in network.tile]
    x = tokenizer.standardise(torch.from_numpy(image(*sides)).permute(2, 0, 1)[None]).double()
    codes = by_parts(network, network.encode, x, network.tile, network.tile_grid)
    assert torch.equal(codes, network.encode(x)) and len(codes.unique()) > 8
    exact = copy.deepcopy(model.network).double()
    calls = []

    def shown(part):
        calls.append(part)
        return exact.decode(part)

    found = by_parts(network, shown, codes, network.tile_grid, network.tile)
    assert len(calls) > 1 and torch.allclose(found, exact.decode(codes), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("network", "quantizer", "more"), KINDS)
def test_a_model_makes_of_large_images_what_it_makes_of_them_as_a_whole(
    network, quantizer, more, monkeypatch
):
    model, pixels = untrained(network, quantizer, **more), image(75, 183)
    decode = model.tokenizer.decode
    codes, floats = model.encode(pixels), torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    whole, whole_double = (decode(codes, (75, 183), double=double) for double in (False, True))
    in_small_parts(monkeypatch, model.network, model.tokenizer._double)
    is_discrete = model.network.quantizer.is_discrete
    share = 0.999 if is_discrete else 0  # a latent's bits may all change
    assert (model.encode(pixels) == codes).float().mean() >= share
    assert (model.encode(floats) == codes).float().mean() >= share
    assert (decode(codes, (75, 183)).int() - whole.int()).abs().max() <= 1
    assert torch.equal(decode(codes, (75, 183), double=True), whole_double)
    if is_discrete:
        found = model.decompress(model.compress(pixels))
        expected = decode(model.encode(pixels), (75, 183), double=True)[0].permute(1, 2, 0)
        assert np.array_equal(found, expected.numpy())


def test_codes_of_no_whole_tiles_are_refused_in_words():
    model = untrained({"kind": "mlp", "widths": [32], "grid": [4, 4]}, STAGE)
    with pytest.raises(ValueError, match=r"multiple of \(4, 4\)"):
        model.decode(torch.zeros((1, 1, 5, 4), dtype=torch.long))


def test_images_stay_as_they_are_when_they_are_standardised():
    pixels = torch.full((1, 1, 2, 2), 100.0)
    Normalisation((0.5,), (0.5,)).apply(pixels)
    assert (pixels == 100).all()


MEASURED = """
import resource, numpy, torch
from tests.untrained import PATCH, STAGE, untrained
torch.set_num_threads(1)
model, peaks = untrained({**PATCH, "width": 32}, STAGE), []
for side in (384, 768):
    codes = model.encode(numpy.zeros((side, side, 3), numpy.uint8))
    model.tokenizer.decode(codes, double=True)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_with_the_image():
    """Four times the pixels, of which the larger image has 1.8 MB: as a whole it takes 440 MB more
    than the smaller.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100, done.stdout


def test_a_small_image_keeps_its_memory_for_the_next_one():
    """Given back to the system behind every call, some hundred pages would have to be got anew in
    the next.
    """
    model = untrained(PATCH, RESIDUAL)
    calls = 50

    def num_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(calls):
            model.decode(model.encode(image(64, 64)), (64, 64))
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    num_pages()
    assert num_pages() < 10 * calls
