"""Denoising: tiles against the whole, what the dials mean, choices against brute force; what is
refused.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.data import camera

from tests.coding.test_integer_prior import random_prior
from tests.untrained import PATCH, RESIDUAL, untrained
from vqkit.apps import denoise as app
from vqkit.apps.denoise import calibrated, denoise, smoothed
from vqkit.artifact.model import Model
from vqkit.artifact.operating_points import WEIGHTS, assign
from vqkit.artifact.tokenizer import Tokenizer
from vqkit.errors import VqkitError
from vqkit.model import tiling
from vqkit.model.tiling import Reach


def noise(height=50, width=70, channels=3) -> torch.Tensor:
    """Values (C, H, W)."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def in_small_parts(monkeypatch, model: Model) -> None:
    """Parts of 8x8 tiles, with margins beside them."""
    model.network.part_positions = 16 * 16
    monkeypatch.setattr(tiling, "NUM_MARGINS", 0)


def difference(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one.int() - other.int()).abs()


def with_coders(model: Model, **coders) -> Model:
    artifact = model.artifact
    return Model(replace(artifact, coders=replace(artifact.coders, **coders)), model.device)


@pytest.mark.parametrize(
    ("network", "more"),
    [
        (PATCH, {}),
        (PATCH, {"transform": {"kind": "conv", "num_blocks": 2}}),
        ({"kind": "conv", "width": 16, "num_downsamplings": 2}, {}),
        ({"kind": "mlp", "widths": [32], "grid": [4, 4]}, {}),
    ],
)
def test_tiles_make_what_the_whole_makes(network, more, monkeypatch):
    model = untrained(network, **more)
    image = noise()
    whole = smoothed(model, image, None)
    in_small_parts(monkeypatch, model)
    assert difference(smoothed(model, image, None), whole).max() <= 1
    assert whole.float().std() > 5


@pytest.mark.parametrize(
    ("how", "levels_apart"), [({"continuous": True}, 1), ({"levels": 4}, 4)]
)  # a code may change
def test_bfloat16_makes_what_float32_makes_and_tiles_too(how, levels_apart, monkeypatch):
    model = untrained(precision="bfloat16")
    image = noise()
    whole = denoise(model, image, **how).values
    in_small_parts(monkeypatch, model)
    assert difference(denoise(model, image, **how).values, whole).max() <= 1
    exact = denoise(untrained(), image, **how).values
    assert 0 < difference(exact, whole).float().mean() < levels_apart


def test_the_margin_is_needed(monkeypatch):
    model = untrained()
    image = noise()
    whole = smoothed(model, image, None)
    in_small_parts(monkeypatch, model)
    model.network.reach = Reach(0, 0)
    assert difference(smoothed(model, image, None), whole).max() > 1


def test_levels_are_the_first_stages_and_strength_uses_ever_fewer():
    model = untrained()
    image = noise(16, 16)
    for levels in (1, 3, 4):
        codes = model.tokenizer.encode(image[None])
        codes[:, levels:] = -1
        expected = model.tokenizer.decode(codes, (16, 16))[0]
        assert torch.equal(denoise(model, image, levels=levels).values, expected)
    used = [denoise(model, image, strength=share).levels for share in np.linspace(0, 1, 9)]
    assert used[0] == 4 and used[-1] == 1 and used == sorted(used, reverse=True)
    assert torch.equal(
        denoise(model, image, strength=0).values, model.tokenizer.reconstruct(image[None])[0]
    )


def test_continuous_does_not_quantise():
    model = untrained()
    image = noise(16, 16)
    tokenizer = model.tokenizer
    with torch.no_grad():
        x = tokenizer.standardise(image[None])
        decoded = model.network.decode_latents(model.network.latents(x), (16, 16))
    expected = tokenizer.normalisation.undo(decoded)[0]  # in [0, 1]
    found = denoise(model, image, continuous=True)
    assert found.levels is None
    assert (found.values - (255 * expected).clamp(0, 255)).abs().max() <= 0.51


def test_a_known_sigma_takes_the_most_levels_that_take_out_nearly_as_much():
    model = untrained()
    image = noise(16, 16)
    made = [denoise(model, image, levels=levels).values for levels in (1, 2, 3, 4)]
    out = np.array([(one.numpy().astype(float) - image.numpy()).std() for one in made])
    assert denoise(model, image, sigma=0).levels == 4
    assert denoise(model, image, sigma=255).levels == 1 + int(out.argmax())
    assert denoise(model, image, levels=2).sigma == pytest.approx(out[1], rel=1e-4)


@pytest.mark.parametrize(("left", "expected"), [(0.0, 4), (0.6, 2)])
def test_a_known_sigma_is_that_before_pixels_end_at_black_and_white(left, expected, monkeypatch):
    """Four levels give the photograph with a share of its noise; each less takes out detail, below
    three all noise.
    """
    clean = np.repeat(camera()[None, ::4, ::4], 3, 0)
    noise_of_fifty = 50 * np.random.default_rng(1).standard_normal(
        clean.shape[1:] + (3,)
    ).transpose(2, 0, 1)
    noisy = np.clip(clean + noise_of_fifty, 0, 255).astype(np.uint8)
    assert (noisy.astype(float) - clean).std() < 45

    def made(model, values, levels, *_):
        base = clean + (left if levels > 2 else 0) * (values.numpy().astype(float) - clean)
        blurred = gaussian_filter(base, (0, 0.6 * (4 - levels), 0.6 * (4 - levels)))
        return torch.from_numpy(np.clip(blurred, 0, 255).astype(np.uint8))

    monkeypatch.setattr(app, "MIDDLE", 128)
    monkeypatch.setattr(app, "smoothed", made)
    assert denoise(untrained(), torch.from_numpy(noisy), sigma=50).levels == expected


def test_hidden_pixels_are_replaced_by_their_neighbours():
    image = torch.arange(25.0).view(1, 1, 5, 5)
    assert app._neighbours(image)[0, 0, 2, 2] == pytest.approx(12)  # of a slope
    image[0, 0, 2, 2] = 1000
    found = app._neighbours(image)[0, 0]
    assert found[2, 2] == pytest.approx(12) and found[2, 1] == pytest.approx(
        11 + 2 * (1000 - 12) / 12
    )


def test_what_is_chosen_does_not_know_the_pixels_it_predicts(monkeypatch):
    """A model that repeats its input would be perfect if it could see them."""
    model = untrained()
    image = noise(16, 16)
    seen = []
    plain = Tokenizer.standardise
    monkeypatch.setattr(
        Tokenizer, "standardise", lambda self, x: seen.append(x.clone()) or plain(self, x)
    )
    assert 1 <= calibrated(model, image) <= 4
    changed = [(x[0] != image).any(0) for x in seen]
    assert len(seen) == app.NUM_HIDDEN and all(15 <= hidden.sum() <= 16 for hidden in changed)
    assert sum(hidden.int() for hidden in changed).max() == 1  # no pixel is hidden twice


def test_help_of_the_prior_is_weighed_where_codes_are_chosen():
    """In the space of the code vectors, which a projection scales, and in float32 whatever is
    around it.
    """
    plain = untrained(quantizer={**RESIDUAL, "latent_dim": 32}, precision="bfloat16")
    coder = random_prior((16,) * 4, grid=(8, 8))
    model = with_coders(plain, codes=coder)
    latents = 5 * torch.randn(1, 32, 8, 8)
    quantizer = model.network.quantizer
    with torch.no_grad():
        tokens = quantizer.project_in(latents.permute(0, 2, 3, 1).reshape(64, 32))
        error = (tokens - quantizer.lookup(quantizer.assign(tokens))).square().sum(1).mean()
        expected = assign(quantizer, coder, latents, 4, 0.5 * WEIGHTS[-1] * float(error))
        with torch.autocast("cpu", torch.bfloat16):
            found = app._probable(model, latents, 4, 0.5)
    assert np.array_equal(found.numpy(), expected)
    assert not np.array_equal(expected, quantizer.encode(latents).numpy())


def test_the_prior_makes_codes_ever_more_probable(model):
    coder = model.artifact.coders.codes
    if coder is None:
        pytest.fail("the tiny model has no coder")
    image = noise(32, 32).repeat(1, 1, 2)
    with torch.no_grad():
        latents = model.network.latents(model.tokenizer.standardise(image[None]))
    sizes = []
    for share in (0.0, 0.3, 1.0):
        codes = app._probable(model, latents, 1, share)
        assert codes.shape == model.network.quantizer.encode(latents).shape
        halves = np.concatenate(np.split(codes.numpy(), 2, axis=3))
        sizes.append(sum(len(part) for item in coder.encode(halves) for part in item))
    assert sizes[0] >= sizes[1] >= sizes[2] and sizes[0] > sizes[2]
    without = with_coders(model, codes=None)
    assert torch.equal(
        app._probable(without, latents, 1, 1.0), model.network.quantizer.encode(latents)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 1.5}, "between 0"),
        ({"levels": 5}, "this model has 4"),
        ({"levels": 0}, "this model has 4"),
        ({"sigma": -1.0}, "between 0 and 255"),
        ({"sigma": float("nan")}, "between 0 and 255"),
        ({"strength": 0.5, "levels": 2}, "one of"),
    ],
)
def test_numbers_that_make_no_sense(options, message):
    with pytest.raises(VqkitError, match=message):
        denoise(untrained(), noise(16, 16), **options)
