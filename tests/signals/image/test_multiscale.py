"""The multi-scale network: the cosine transform that it starts from, and what it asks for."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from vqkit.model.autoencoder import Widths
from vqkit.shapes import Shape
from vqkit.signals.image import cosine
from vqkit.signals.image.config import MultiscaleConfig
from vqkit.signals.image.cosine import border_filter, cosine_basis
from vqkit.signals.image.networks import build_backbone


def test_the_basis_is_the_cosine_transform_over_colours_rows_and_columns():
    basis = cosine_basis(3, 4, 48)
    square = np.random.default_rng(0).normal(size=(3, 4, 4))
    found = basis.numpy() @ square.reshape(-1)
    expected = dctn(square, norm="ortho").reshape(-1)
    assert np.allclose(np.sort(found), np.sort(expected), atol=1e-5)
    assert torch.allclose(basis @ basis.T, torch.eye(48), atol=1e-5)
    # The mean of all comes first, and differences of colours after two frequencies of lightness.
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    assert [
        int(abs(row).argmax()) // 16
        for row in (dctn(v.reshape(3, 4, 4).numpy(), norm="ortho").reshape(-1) for v in basis[:5])
    ] == [0, 0, 0, 0, 1]


def test_more_vectors_than_there_are_are_zeros():
    basis = cosine_basis(1, 2, 6)
    assert basis.shape == (6, 4) and not bool(basis[4:].any())


@pytest.mark.parametrize("factor, blocks", [(2, (1,)), (8, (1, 1)), (16, (0, 1, 2))])
def test_untrained_it_is_the_cosine_transform_and_back(factor, blocks):
    config = MultiscaleConfig(
        downsampling_factor=factor, width=16, encoder_blocks=blocks, decoder_blocks=blocks
    )
    count = 3 * factor**2
    backbone = build_backbone(config, Shape(3, (32, 32)), Widths(count, count, 3))
    x = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    latents = backbone.encoder(x)
    assert latents.shape == (2, count, 32 // factor, 48 // factor)
    assert torch.allclose(backbone.decoder(latents), x, atol=1e-4)
    # Without the border filter it is the cosine transform square by square.
    backbone.encoder.border.copy_(torch.eye(factor))
    found = backbone.encoder(x)[1, :, 0, 1].detach()
    square = x[1, :, :factor, factor : 2 * factor].numpy()
    expected = dctn(square, norm="ortho").reshape(-1)
    assert np.allclose(np.sort(found), np.sort(expected), atol=1e-4)


@pytest.mark.parametrize("side", [2, 4, 16])
def test_the_border_filter_keeps_constants_and_is_orthogonal_unless_stretched(side, monkeypatch):
    matrix = border_filter(side)
    ones = torch.ones(side, dtype=torch.float64)
    assert torch.allclose(matrix @ ones, ones)
    assert float(torch.linalg.det(matrix).abs()) == pytest.approx(cosine.STRETCH)
    monkeypatch.setattr(cosine, "STRETCH", 1.0)
    matrix = border_filter(side)
    identity = torch.eye(side, dtype=torch.float64)
    assert torch.allclose(matrix @ matrix.T, identity)
    # Two places have nothing but their difference to be stretched.
    assert torch.allclose(matrix, identity) == (side == 2)


def test_means_of_squares_decode_without_steps_at_their_borders():
    config = MultiscaleConfig(width=16, encoder_blocks=(1,), decoder_blocks=(1,))
    backbone = build_backbone(config, Shape(1, (32, 32)), Widths(8, 8, 1))
    latents = torch.zeros(1, 8, 6, 6)
    latents[:, 0] = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        image = backbone.decoder(latents)[0, 0]
    for steps in (image.diff(dim=1).abs().mean(0), image.diff(dim=0).abs().mean(1)):
        # Behind the last place of a square, and one place before and after: without the filter all
        # steps are at the borders.
        before, at, after = (steps[place::16] for place in (14, 15, 16))
        assert float((at / (before[:5] + after)).max()) < 0.52


@pytest.mark.parametrize("blocks", [(1, 1, 2), (3, 0), (1,)])
def test_a_place_depends_on_squares_within_reach_and_on_no_others(blocks):
    config = MultiscaleConfig(width=16, encoder_blocks=blocks, decoder_blocks=blocks)
    backbone = build_backbone(config, Shape(1, (32, 32)), Widths(4, 4, 1))
    torch.manual_seed(0)
    for network in (backbone.encoder, backbone.decoder):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    side = 2 * backbone.reach + 3
    middle = side // 2
    latents = torch.randn(1, 4, side, side, requires_grad=True)
    square = slice(16 * middle, 16 * middle + 16)
    backbone.decoder(latents)[0, 0, square, square].square().sum().backward()
    seen = latents.grad.abs().sum((0, 1)).nonzero() - middle
    assert int(seen.abs().max()) == backbone.decoder_reach
    image = torch.randn(1, 1, 16 * side, 16 * side, requires_grad=True)
    backbone.encoder(image)[0, :, middle, middle].square().sum().backward()
    seen = image.grad[0, 0].nonzero() // 16 - middle
    assert int(seen.abs().max()) == backbone.reach - backbone.decoder_reach


def test_what_it_learns_is_added_at_every_level():
    """Each level has its part in the gradient, and the output depends on all of them."""
    config = MultiscaleConfig(
        downsampling_factor=8, width=16, encoder_blocks=(1, 1), decoder_blocks=(1, 1)
    )
    backbone = build_backbone(config, Shape(3, (16, 16)), Widths(12, 12, 3))
    torch.manual_seed(0)
    for network in (backbone.encoder, backbone.decoder):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    backbone.decoder(backbone.encoder(x)).square().mean().backward()
    for network in (backbone.encoder, backbone.decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.any()), name


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"downsampling_factor": 2, "encoder_blocks": (1, 1, 1)}, "downsampling_factor"),
        ({"width": 15}, "multiple"),
        ({"encoder_blocks": (0,), "decoder_blocks": (0,)}, "residual block"),
    ],
)
def test_settings_that_make_no_network_are_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        MultiscaleConfig(**wrong)
