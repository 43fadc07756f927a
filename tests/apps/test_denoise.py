"""Denoising: tiles against the whole, what the dials mean, choices against brute force; what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.data import camera
from vqkit.rates import WEIGHTS, assign

from tests.coding.test_integer_prior import random_prior
from vqkit.apps import denoise as app
from vqkit.apps.denoise import calibrated, denoise, smoothed
from vqkit.artifact import Artifact
from vqkit.config import from_tree
from vqkit.errors import VqkitError
from vqkit.model import Autoencoder, pieces

STAGE = {"kind": "vq", "codebook_size": 16, "code_dim": 8}
RESIDUAL = {"kind": "residual", "num_stages": 4, "stage": STAGE}
PATCH = {"kind": "patch", "patch_size": 2, "width": 16}


def untrained(network=PATCH, quantizer=RESIDUAL, channels=3, precision="float32", **more) -> Artifact:
    """Random weights, with blocks that do something, and codes as large as latents."""
    torch.manual_seed(0)
    model_tree = {"network": network, "quantizer": quantizer, **more}
    config = from_tree({"model": model_tree, "train": {"precision": precision}}, "test")
    model = Autoencoder(config.model, (channels, 16, 16), config.losses, [0.3] * channels, [0.5] * channels).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "contract.weight" in name or "pointwise.weight" in name:
                value.normal_(std=0.3)
    scale = {"mean": [0.5] * channels, "std": [0.3] * channels}
    return Artifact(config, model, {"channels": channels, "size": [16, 16], "normalisation": scale})


def picture(height=50, width=70, channels=3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def in_small_pieces(monkeypatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 16)
    monkeypatch.setattr(pieces, "NUM_MARGINS", 0)


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
    artifact, image = untrained(network, **more), picture()
    whole = smoothed(artifact, image, None)
    in_small_pieces(monkeypatch)
    assert np.abs(smoothed(artifact, image, None).astype(int) - whole).max() <= 1
    assert whole.std() > 5


@pytest.mark.parametrize(("how", "levels_apart"), [({"continuous": True}, 1), ({"levels": 4}, 4)])  # a code may change
def test_bfloat16_makes_what_float32_makes_and_tiles_too(how, levels_apart, monkeypatch):
    artifact, image = untrained(precision="bfloat16"), picture()
    whole = denoise(artifact, image, **how).pixels.astype(int)
    in_small_pieces(monkeypatch)
    assert np.abs(denoise(artifact, image, **how).pixels - whole).max() <= 1
    exact = denoise(untrained(), image, **how).pixels
    assert 0 < np.abs(exact - whole).mean() < levels_apart


def test_the_margin_is_needed(monkeypatch):
    artifact, image = untrained(), picture()
    whole = smoothed(artifact, image, None)
    in_small_pieces(monkeypatch)
    artifact.model.reach = 0
    assert np.abs(smoothed(artifact, image, None).astype(int) - whole).max() > 1


def test_levels_are_the_first_stages_and_strength_uses_ever_fewer():
    artifact, image = untrained(), picture(16, 16)
    for levels in (1, 3, 4):
        codes = artifact.encode(image)
        codes[:, levels:] = -1
        assert np.array_equal(denoise(artifact, image, levels=levels).pixels, artifact.decode(codes, (16, 16))[0])
    used = [denoise(artifact, image, strength=share).levels for share in np.linspace(0, 1, 9)]
    assert used[0] == 4 and used[-1] == 1 and used == sorted(used, reverse=True)
    assert np.array_equal(denoise(artifact, image, strength=0).pixels, artifact.reconstruct(image))


def test_continuous_does_not_quantise():
    artifact, image = untrained(), picture(16, 16)
    with torch.no_grad():
        x = artifact.standardise(torch.from_numpy(image)[None].permute(0, 3, 1, 2))
        decoded = artifact.model.decode_latents(artifact.model.latents(x), (16, 16))
    expected = artifact.normalisation.undo(decoded)[0].permute(1, 2, 0)  # in [0, 1]
    found = denoise(artifact, image, continuous=True)
    assert found.levels is None
    assert np.abs(found.pixels - (255 * expected).clamp(0, 255).numpy()).max() <= 0.51


def test_a_known_sigma_takes_the_most_levels_that_take_out_nearly_as_much():
    artifact, image = untrained(), picture(16, 16)
    out = np.array([(denoise(artifact, image, levels=k).pixels.astype(float) - image).std() for k in (1, 2, 3, 4)])
    assert denoise(artifact, image, sigma=0).levels == 4
    assert denoise(artifact, image, sigma=255).levels == 1 + int(out.argmax())
    assert denoise(artifact, image, levels=2).sigma == pytest.approx(out[1], rel=1e-4)


@pytest.mark.parametrize(("left", "expected"), [(0.0, 4), (0.6, 2)])
def test_a_known_sigma_is_that_before_pixels_end_at_black_and_white(left, expected, monkeypatch):
    """Four levels give the photograph with a share of its noise; each less takes out detail, below three all noise."""
    clean = np.repeat(camera()[::4, ::4, None], 3, 2)
    noisy = np.clip(clean + 50 * np.random.default_rng(1).standard_normal(clean.shape), 0, 255).astype(np.uint8)
    assert (noisy.astype(float) - clean).std() < 45

    def made(artifact, image, levels, *_):
        base = clean + (left if levels > 2 else 0) * (image.astype(float) - clean)
        return np.clip(gaussian_filter(base, (0.6 * (4 - levels), 0.6 * (4 - levels), 0)), 0, 255).astype(np.uint8)

    monkeypatch.setattr(app, "LOOKED_AT", 128)
    monkeypatch.setattr(app, "smoothed", made)
    assert denoise(untrained(), noisy, sigma=50).levels == expected


def test_hidden_pixels_are_replaced_by_their_neighbours():
    image = torch.arange(25.0).view(1, 1, 5, 5)
    assert app._neighbours(image)[0, 0, 2, 2] == pytest.approx(12)  # of a slope
    image[0, 0, 2, 2] = 1000
    found = app._neighbours(image)[0, 0]
    assert found[2, 2] == pytest.approx(12) and found[2, 1] == pytest.approx(11 + 2 * (1000 - 12) / 12)


def test_what_is_chosen_does_not_know_the_pixels_it_predicts(monkeypatch):
    """A model that repeats its input would be perfect if it could see them."""
    artifact, image = untrained(), picture(16, 16)
    seen = []
    plain = Artifact.standardise
    monkeypatch.setattr(Artifact, "standardise", lambda self, x: seen.append(x.clone()) or plain(self, x))
    assert 1 <= calibrated(artifact, image) <= 4
    changed = [(x[0].permute(1, 2, 0).numpy() != image).any(2) for x in seen]
    assert len(seen) == app.NUM_HIDDEN and all(15 <= hidden.sum() <= 16 for hidden in changed)
    assert sum(changed).max() == 1  # no pixel is hidden twice


def test_help_of_the_prior_is_weighed_where_codes_are_chosen():
    """In the space of the code vectors, which a projection scales, and in float32 whatever is around it."""
    artifact = untrained(quantizer={**RESIDUAL, "latent_dim": 32}, precision="bfloat16")
    artifact = replace(artifact, coder=random_prior((16,) * 4, grid=(8, 8)))
    latents, quantizer = 5 * torch.randn(1, 32, 8, 8), artifact.model.quantizer
    with torch.no_grad():
        tokens = quantizer.project_in(latents.permute(0, 2, 3, 1).reshape(64, 32))
        error = (tokens - quantizer.lookup(quantizer.assign(tokens))).square().sum(1).mean()
        expected = assign(quantizer, artifact.coder, latents, 4, 0.5 * WEIGHTS[-1] * float(error))
        with torch.autocast("cpu", torch.bfloat16):
            found = app._probable(artifact, latents, 4, 0.5)
    assert np.array_equal(found.numpy(), expected)
    assert not np.array_equal(expected, quantizer.encode(latents).numpy())


def test_the_prior_makes_codes_ever_more_probable(artifact):
    if artifact.coder is None:
        pytest.fail("the tiny model has no coder")
    image = np.tile(picture(32, 32), (1, 2, 1))
    with torch.no_grad():
        latents = artifact.model.latents(artifact.standardise(torch.from_numpy(image)[None].permute(0, 3, 1, 2)))
    sizes = []
    for share in (0.0, 0.3, 1.0):
        codes = app._probable(artifact, latents, 1, share)
        assert codes.shape == artifact.model.quantizer.encode(latents).shape
        halves = np.concatenate(np.split(codes.numpy(), 2, axis=3))
        sizes.append(sum(len(part) for item in artifact.coder.encode(halves) for part in item))
    assert sizes[0] >= sizes[1] >= sizes[2] and sizes[0] > sizes[2]
    without = replace(artifact, coder=None)
    assert torch.equal(app._probable(without, latents, 1, 1.0), artifact.model.quantizer.encode(latents))


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
        denoise(untrained(), picture(16, 16), **options)
