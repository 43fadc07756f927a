"""A prior over the codes of every quantizer that has some."""

import math

import pytest
import torch

from vqkit.config import PriorNetworkConfig
from vqkit.prior.prior import Drawing, Prior, build_prior_network, code_vectors
from vqkit.settings import ModelConfig, PriorConfig
from vqkit.signals.image.config import PatchConfig

from ..model.quantizers.test_contract import KINDS
from ..untrained import autoencoder

SIZE = (16, 24)
PATCH = PatchConfig(patch_size=4, width=16, encoder_blocks=1, decoder_blocks=1)
DISCRETE = [kind for kind in KINDS if kind != "none"]


@pytest.mark.parametrize("order", ["coarse_first", "delayed"])
@pytest.mark.parametrize("kind", DISCRETE)
def test_codes_of_every_quantizer_are_scored_drawn_and_decoded(kind, order):
    torch.manual_seed(0)
    model = autoencoder(ModelConfig(network=PATCH, quantizer=KINDS[kind]), SIZE).eval()
    config = PriorConfig(
        network=PriorNetworkConfig(width=16, num_heads=2, num_blocks=1, order=order)
    )
    network = build_prior_network(config, model, 0, False).eval()
    network.start_from(code_vectors(model), torch.Generator().manual_seed(0))
    prior = Prior(config, network)
    codes = model.encode(torch.randn(2, 3, *SIZE))
    bits = prior.code_bits(codes)
    assert bits.shape == codes.shape
    for place, size in enumerate(
        model.quantizer.codebook_sizes
    ):  # an untrained network is all but uniform
        assert float(bits[:, place].mean()) == pytest.approx(math.log2(size), abs=0.3)
    for steps in (None, len(model.quantizer.codebook_sizes)):
        drawn = prior.sample(2, Drawing(steps=steps))
        assert drawn.shape == codes.shape and model.decode(drawn, SIZE).shape == (2, 3, *SIZE)
        for place, size in enumerate(model.quantizer.codebook_sizes):
            assert 0 <= int(drawn[:, place].min()) and int(drawn[:, place].max()) < size


@pytest.mark.parametrize("kind", ["pyramid", "pyramid-3"])
def test_a_prior_takes_the_grids_of_a_pyramid_of_all_cells_one_after_the_other(kind):
    """Next-scale order: every code of a grid, of all cells, before the first one of a finer grid;
    and places of one grid share what the prior learns of them.
    """
    model = autoencoder(ModelConfig(network=PATCH, quantizer=KINDS[kind]), SIZE)
    layout = build_prior_network(PriorConfig(), model, 0, False).layout
    sections = model.quantizer.sections
    grids = [number for number, one in enumerate(sections) for _ in range(one.num_codes)]
    assert list(layout.groups) == grids
    for order in (layout.canonical[0], layout.scattered):
        taken = torch.tensor(grids)[layout.places[order]]
        assert torch.equal(taken, taken.sort().values)


@pytest.mark.parametrize("kind", ["hierarchical", "hierarchical-3"])
def test_the_coarse_grid_comes_before_the_fine_one(kind):
    """In both orders of an image: what a fine code is predicted from holds the coarse code at its
    position.
    """
    model = autoencoder(ModelConfig(network=PATCH, quantizer=KINDS[kind]), SIZE)
    layout = build_prior_network(PriorConfig(), model, 0, False).layout
    top = [place for place, size in enumerate(layout.codebook_sizes) if size == 8]
    assert top == [0], "the top grid has a code of each position"
    for order in (layout.canonical[0], layout.scattered):
        assert set(layout.places[order[: layout.num_positions]].tolist()) == {0}
