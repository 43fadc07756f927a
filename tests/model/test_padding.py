"""What stands at padded positions changes neither losses nor codes nor gradients, in one dimension
and in two.
"""

import math

import pytest
import torch
from torch import nn

from vqkit.config import LossConfig, TransformConfig
from vqkit.model.autoencoder import Autoencoder, Backbone
from vqkit.model.blocks import CONVOLUTIONS
from vqkit.settings import ModelConfig
from vqkit.shapes import Shape

from .quantizers.test_contract import KINDS

EXTENTS = {1: (24,), 2: (8, 16)}
PADDING = {"nan": math.nan, "infinity": math.inf, "large": -1e30}


def backbone(config, shape, widths):
    """Convolutions that look around themselves, and halve every side."""
    convolution = CONVOLUTIONS[len(shape.extent)]
    dims = len(shape.extent)
    encoder = nn.Sequential(
        convolution(shape.channels, 8, 3, padding=1),
        nn.GELU(),
        convolution(8, widths.encoder, 2, stride=2),
    )
    decoder = nn.Sequential(
        nn.Upsample(scale_factor=2),
        convolution(widths.latents, 8, 3, padding=1),
        nn.GELU(),
        convolution(8, widths.outputs, 1),
    )
    return Backbone(
        encoder, decoder, tile=(2,) * dims, tile_grid=(1,) * dims, reach=2, decoder_reach=1
    )


def in_dimensions(quantizer, dims):
    """A hierarchy or pyramid over grids of so many dimensions, at every depth."""
    if quantizer.kind == "pyramid":
        return quantizer.model_copy(update={"grid_dims": dims})
    top = (
        in_dimensions(quantizer.top, dims)
        if quantizer.top.kind == "hierarchical"
        else quantizer.top
    )
    return quantizer.model_copy(update={"grid_dims": dims, "top": top})


def outcome(kind, dims, distortion, value):
    """Terms, codes and gradients of a training step whose padded positions hold a value."""
    torch.manual_seed(0)
    quantizer = KINDS[kind]
    if quantizer.kind in ("hierarchical", "pyramid"):
        quantizer = in_dimensions(quantizer, dims)
    config = ModelConfig(
        quantizer=quantizer, variational=True, transform=TransformConfig(kind="conv", width=8)
    )
    losses = LossConfig(distortion=distortion, kl=0.1, transform=0.1)
    model = Autoencoder(config, Shape(2, EXTENTS[dims]), losses, (0.3, 0.3), (0.5, 0.5), backbone)
    x = torch.randn(3, 2, *EXTENTS[dims])
    target = torch.randn_like(x)
    mask = torch.ones(3, *EXTENTS[dims], dtype=torch.bool)
    # Whole positions of the grid, and a part of one.
    mask[0, 3:] = False
    mask[1, ..., 5:] = False
    padded = ~mask[:, None].expand_as(x)
    x = x.masked_fill(padded, value)
    target = target.masked_fill(padded, value)
    generator = torch.Generator().manual_seed(1)
    output = model(x, generator, target, mask)
    sum(output.terms.values()).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    state = [value for name, value in model.state_dict().items()]
    codes = model.eval().encode(x, mask)
    return [*output.terms.values(), output.codes, codes, *gradients, *state]


CASES = [(kind, dims, "mse") for kind in KINDS for dims in EXTENTS]
CASES += [
    ("vq-ema", 2, name) for name in ("log_mse", "l1", "huber", "logistic", "logistic_mixture")
]


@pytest.mark.parametrize(("kind", "dims", "distortion"), CASES)
def test_what_padding_holds_changes_nothing(kind, dims, distortion):
    expected = outcome(kind, dims, distortion, 0.0)
    assert all(bool(value.isfinite().all()) for value in expected)
    for name, padding in PADDING.items():
        found = outcome(kind, dims, distortion, padding)
        assert len(found) == len(expected)
        assert all(torch.equal(one, two) for one, two in zip(expected, found, strict=True)), name
