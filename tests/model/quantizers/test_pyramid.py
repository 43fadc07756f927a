"""What pyramids promise beyond the contract: residuals from grid to grid, by hand."""

import math

import pytest
import torch

from vqkit.config import FSQConfig, PyramidConfig, ScalarConfig, VQConfig
from vqkit.metrics import code_counts
from vqkit.model.quantizers import PADDING, build_quantizer

STAGE = VQConfig(codebook_size=16, code_dim=4, decay=0.9)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(config, grid=(8, 8), steps=5):
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    for step in range(steps):
        latents = torch.randn(4, quantizer.latent_dim, *grid, generator=generator(step))
        quantizer(latents, generator(step))
    return quantizer.eval()


def by_hand(codebooks):
    """A pyramid over sequences of one channel with these codebooks, one a grid."""
    stage = VQConfig(codebook_size=len(codebooks[0]), code_dim=1, revive_threshold=0.0)
    config = PyramidConfig(num_grids=len(codebooks), stage=stage, grid_dims=1)
    quantizer = build_quantizer(config)
    for stage, codebook in zip(quantizer.stages, codebooks, strict=True):
        with torch.no_grad():
            stage.codebook.copy_(torch.tensor(codebook)[:, None])
            stage.updates.fill_(1)
    return quantizer.eval()


def test_residuals_of_a_sequence_by_hand():
    quantizer = by_hand([[0.0, 8.0], [-2.0, 2.0], [0.0, 1.0]])
    latents = torch.tensor([[[5.0, 7.0, 11.0, 11.0]]])
    # mean 8.5 -> 8; means 6 and 11 less 8 are -2 and 3 -> -2 and 2; rests -1, 1, 1, 1 -> 0, 1, 1, 1
    expected = [1, 0, 1, 0, 1, 1, 1]
    assert quantizer.encode(latents).flatten().tolist() == expected
    result = quantizer(latents)
    assert result.codes.flatten().tolist() == expected
    assert result.quantized.flatten().tolist() == [6.0, 7.0, 11.0, 11.0]
    # squared distances to the codes: 0.25; 0 and 1; 1, 0, 0, 0
    assert float(result.terms["commitment"]) == pytest.approx((0.25 + 0.5 + 0.25) / 3)


def test_padded_positions_have_no_part_in_the_means():
    quantizer = by_hand([[0.0, 8.0], [-2.0, 2.0], [0.0, 1.0]])
    latents = torch.tensor([[[9.0, math.nan, 6.0, 7.0], [math.nan, math.nan, 1.0, 1.0]]])
    mask = torch.tensor([[True, False, True, True], [False, False, True, True]])
    codes = quantizer.encode(latents.movedim(1, 0), mask)
    # means 22/3 and 1 -> 8 and 0; 9, 6.5 and 1 less these -> 2, -2 and 2; rests -1, 0, 1, -1, -1
    assert codes[..., 0].tolist() == [
        [1, 1, 0, 0, -1, 0, 1],
        [0, -1, 1, -1, -1, 0, 0],
    ]
    assert quantizer.decode(codes).flatten().tolist() == [10, 0, 6, 7, 0, 0, 2, 2]


@pytest.mark.parametrize("grid", [(8,), (8, 4), (4, 8, 4)])
@pytest.mark.parametrize("stage", [STAGE, FSQConfig(levels=(5, 5, 5))], ids=["vq", "fsq"])
def test_the_first_grids_alone_are_a_coarser_value(grid, stage):
    """Constant within what a position of the last grid holds, and the finer the nearer."""
    config = PyramidConfig(stage=stage, grid_dims=len(grid))
    quantizer = trained(config, grid)
    latents = torch.randn(3, quantizer.latent_dim, *grid, generator=generator(9))
    codes = quantizer.encode(latents)
    bounded = quantizer._bounded(latents, None)
    assert quantizer.prefixes[-1] == quantizer.num_codebooks
    errors = []
    for number, count in enumerate(quantizer.prefixes):
        cut = codes.clone()
        cut[:, count:] = PADDING
        value = quantizer.decode(cut)
        factor = 4 // 2**number
        for axis in range(2, value.dim()):
            parts = value.unflatten(axis, (-1, factor))
            assert torch.equal(parts, parts.narrow(axis + 1, 0, 1).expand_as(parts))
        errors.append(float((value - bounded).square().mean()))
    assert errors[0] > errors[1] > errors[2]


def test_grids_may_be_left_out_of_some_cells_alone():
    quantizer = trained(PyramidConfig(stage=STAGE))
    codes = quantizer.encode(torch.randn(1, 4, 8, 8, generator=generator(3)))
    mixed = codes.clone()
    mixed[0, 5:, 0, 1] = PADDING
    mixed[0, 1:, 1, 0] = PADDING
    whole = quantizer.decode(codes)
    some = quantizer.decode(mixed)
    for count, rows, columns in ((21, 0, 0), (5, 0, 1), (1, 1, 0), (21, 1, 1)):
        cut = codes.clone()
        cut[:, count:] = PADDING
        cell = (..., slice(4 * rows, 4 * rows + 4), slice(4 * columns, 4 * columns + 4))
        assert torch.equal(some[cell], quantizer.decode(cut)[cell])
    assert not torch.equal(some, whole)
    # By the gap in the middle, a finer code without its coarser one, and half of a cell's grid.
    for missing in (slice(1, 5), slice(1, 2), slice(0, 1)):
        wrong = codes.clone()
        wrong[0, missing, 0, 0] = PADDING
        with pytest.raises(ValueError, match="codebook"):
            quantizer.decode(wrong)
    # All finest positions of one quarter of a cell, beside those of the others.
    wrong = codes.clone()
    wrong[0, [5, 6, 9, 10], 0, 0] = PADDING
    with pytest.raises(ValueError, match="finer positions are all -1"):
        quantizer.decode(wrong)


def test_the_gradient_is_that_of_the_identity():
    quantizer = trained(PyramidConfig(stage=STAGE))
    latents = torch.randn(2, 4, 8, 8, generator=generator(1)).requires_grad_()
    weights = torch.randn(2, 4, 8, 8, generator=generator(2))
    (quantizer(latents).quantized * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_dropout_leaves_out_the_finest_grids_and_what_they_would_learn():
    torch.manual_seed(0)
    quantizer = build_quantizer(PyramidConfig(stage=STAGE, quantizer_dropout=1.0))
    depths = []
    for step in range(40):
        before = [int(stage.updates) for stage in quantizer.stages]
        result = quantizer(torch.randn(4, 4, 8, 8, generator=generator(step)), generator(step))
        present = (result.codes >= 0).flatten(2).all(2).all(0)
        depth = quantizer.prefixes.index(int(present.sum())) + 1
        assert bool(present[: quantizer.prefixes[depth - 1]].all())
        moved = [int(stage.updates) for stage in quantizer.stages]
        assert moved == [count + (number < depth) for number, count in enumerate(before)]
        depths.append(depth)
    assert {1, 2, 3} == set(depths)


def test_bits_of_grids_add_up_for_a_position_of_the_finest():
    config = PyramidConfig(num_grids=2, stage=ScalarConfig(channels=3))
    quantizer = trained(config)
    latents = torch.randn(2, 3, 8, 8, generator=generator(4))
    found = float(quantizer(latents).terms["rate"])
    coarse = latents.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    first = quantizer.stages[0](coarse)
    rest = latents - first.quantized.repeat_interleave(2, 2).repeat_interleave(2, 3)
    second = quantizer.stages[1](rest)
    expected = float(first.terms["rate"]) / 4 + float(second.terms["rate"])
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stage", [STAGE, FSQConfig(levels=(3, 3))], ids=["vq", "fsq"])
@pytest.mark.parametrize("section", [0, 1, 2])
def test_distances_are_to_what_each_code_would_make_of_its_positions(section, stage):
    """Differences of squared errors over all positions of a token, by decoding every code."""
    quantizer = trained(PyramidConfig(stage=stage, grid_dims=1), (16,))
    latents = torch.randn(1, quantizer.latent_dim, 16, generator=generator(5))
    codes = quantizer.encode(latents)
    side = 2**section
    tokens = quantizer.tokens(latents, section)
    # The token of the last position of the last cell, and the codes of the positions that hold it.
    before = [codes[0, :1, -1], codes[0, 2:3, -1]][:section]
    chosen = torch.cat([torch.zeros(0, dtype=torch.long), *before])[None]
    with torch.no_grad():
        found = quantizer.distances(tokens[-1:], chosen)[0]
    positions = slice(16 - 4 // side, 16)
    target = quantizer._bounded(latents, None)[..., positions]
    errors = []
    for code in range(len(found)):
        tried = codes.clone()
        place = quantizer.prefixes[section] - 1
        tried[:, quantizer.prefixes[section] :] = PADDING
        tried[0, place, -1] = code
        errors.append((quantizer.decode(tried)[..., positions] - target).square().sum())
    apart = torch.stack(errors) - found
    assert torch.allclose(apart, apart[:1].expand_as(apart), atol=1e-3)


def test_places_without_detail_cost_few_bits():
    """Half of every item is flat in each cell: with a rate its finer codes are all but sure."""
    torch.manual_seed(0)
    stage = VQConfig(codebook_size=32, code_dim=4, rate=0.2, revive_threshold=0.0, decay=0.9)
    quantizer = build_quantizer(PyramidConfig(stage=stage))

    def latents(seed):
        drawn = torch.randn(16, 4, 8, 8, generator=generator(seed))
        flat = torch.randn(16, 4, 2, 1, generator=generator(seed + 1000))
        drawn[..., :4] = flat.repeat_interleave(4, 2).repeat_interleave(4, 3)
        return drawn

    for step in range(60):
        quantizer(latents(step), generator(step))
    codes = quantizer.eval().encode(latents(500))
    counts = quantizer.per_codebook(code_counts(codes, quantizer.codebook_size))
    finest = counts[-1] / counts[-1].sum()
    bits = -finest.log2()[codes[:, 5:]]
    flat = float(bits[..., 0].mean())
    detailed = float(bits[..., 1].mean())
    assert flat < 1.5 and detailed > 3 * flat


def test_a_codebook_serves_all_positions_of_its_grid():
    quantizer = build_quantizer(PyramidConfig(num_grids=2, stage=STAGE))
    assert quantizer.places() == [[0], [1, 2, 3, 4]]
    assert [tuple(section) for section in quantizer.sections] == [(0, 1, 1), (1, 4, 2)]
