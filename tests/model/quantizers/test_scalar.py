"""Scalar codes: rounding, what bits cost, and stages that divide each other's cells."""

import math

import pytest
import torch

from vqkit.config import (
    HierarchicalConfig,
    LossConfig,
    ProductConfig,
    ResidualConfig,
    ScalarConfig,
    VQConfig,
)
from vqkit.model.autoencoder import Autoencoder
from vqkit.model.quantizers import build_quantizer
from vqkit.model.quantizers.scalar import FLOOR
from vqkit.settings import ModelConfig
from vqkit.shapes import Shape
from vqkit.signals.image.config import PatchConfig
from vqkit.signals.image.networks import build_backbone


def tokens(count=500, channels=3, spread=4.0):
    return spread * torch.randn(count, channels, generator=torch.Generator().manual_seed(0))


def with_shares(quantizer, shares):
    """Every channel takes its codes that often."""
    quantizer.ema_count.copy_(torch.tensor(shares).expand_as(quantizer.ema_count))
    return quantizer.eval()


def test_without_a_price_codes_are_the_nearest_multiple_within_the_levels():
    quantizer = build_quantizer(ScalarConfig(channels=3, step=0.8, levels=9, rate=0.0)).eval()
    given = tokens()
    every = (torch.arange(9) - 4) * 0.8
    nearest = (given[:, :, None] - every).abs().argmin(2)
    assert torch.equal(quantizer.assign(given), nearest)
    assert torch.equal(quantizer.lookup(nearest), every[nearest])


def test_a_token_takes_the_cheaper_of_the_two_codes_around_it():
    """Of squared distance in steps + rate * bits, over the two codes around each token."""
    shares = [0.05, 0.1, 0.7, 0.1, 0.05]
    config = ScalarConfig(channels=3, step=0.5, levels=5, rate=0.2)
    quantizer = with_shares(build_quantizer(config), shares)
    given = tokens(spread=0.6)
    bits = -torch.log2(torch.tensor(shares) + FLOOR)
    places = (given / 0.5 + 2).clamp(0, 4)
    apart = (places[:, :, None] - torch.arange(5)).abs()
    costs = (apart.square() + 0.2 * bits).where(apart <= 1, math.inf)
    assert torch.equal(quantizer.assign(given), costs.argmin(2))
    # Half way between two codes it is the one that is taken more often.
    assert quantizer.assign(torch.full((1, 3), 0.25)).tolist() == [[2, 2, 2]]


def test_the_rate_is_the_bits_of_a_position_and_a_line_between_codes():
    shares = [0.125, 0.5, 0.25]
    config = ScalarConfig(channels=2, step=1.0, levels=3)
    quantizer = with_shares(build_quantizer(config), shares)
    low, middle, high = (-math.log2(share + FLOOR) for share in shares)
    at_codes = quantizer.quantize(torch.tensor([[-1.0, 0.0], [1.0, 5.0]])).terms["rate"]
    assert float(at_codes) == pytest.approx(((low + middle) + (high + high)) / 2, abs=1e-5)
    given = torch.tensor([[0.25, -0.5]], requires_grad=True)
    between = quantizer.quantize(given).terms["rate"]
    expected = (0.75 * middle + 0.25 * high) + (middle + low) / 2
    assert float(between.detach()) == pytest.approx(expected, abs=1e-5)
    (slope,) = torch.autograd.grad(between, given)
    assert slope[0].tolist() == pytest.approx([high - middle, middle - low], abs=1e-5)


def test_the_moving_average_counts_what_channels_take():
    config = ScalarConfig(channels=2, step=1.0, levels=5, rate=0.0)
    quantizer = build_quantizer(config).train()
    given = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    for _ in range(400):
        quantizer.quantize(given)
    expected = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 0.5, 0.5]])
    assert torch.allclose(quantizer.ema_count, expected, atol=1e-3)


def test_stages_of_a_row_divide_cells_in_three():
    """Without a price three stages are one rounding to a ninth of the step."""
    stage = ScalarConfig(channels=3, step=0.9, levels=63, rate=0.0)
    row = build_quantizer(ResidualConfig(num_stages=3, stage=stage)).eval()
    given = tokens().double().float()
    fine = (given / 0.1).round() * 0.1
    found = row.lookup(row.assign(given))
    near_a_border = ((given / 0.1) % 1 - 0.5).abs() < 1e-3
    assert torch.allclose(found.where(~near_a_border, 0), fine.where(~near_a_border, 0), atol=1e-5)
    later = row.assign(given)[:, 3:] - 31
    assert int(later.abs().max()) == 1


def test_bits_of_stages_add_up():
    stage = ScalarConfig(channels=3, step=0.9, levels=9)
    row = build_quantizer(ResidualConfig(num_stages=2, stage=stage)).eval()
    given = tokens()
    first = row.stages[0].quantize(given)
    second = row.stages[1].quantize((given - first.values) * 3)
    total = first.terms["rate"] + second.terms["rate"]
    assert float(row.quantize(given).terms["rate"]) == pytest.approx(float(total), rel=1e-6)


def test_a_higher_price_gives_fewer_bits_in_the_last_section_alone():
    stage = ScalarConfig(channels=3, step=0.9, levels=9, rate=0.1)
    row = build_quantizer(ResidualConfig(num_stages=2, stage=stage)).eval()
    given = tokens()
    own = row.assign(given)
    assert torch.equal(row.assign_at(given, 2, 0.1), own)
    dear = row.assign_at(given, 2, 1.0)
    assert torch.equal(dear[:, :3], own[:, :3])
    assert int((dear[:, 3:] != 4).sum()) < int((own[:, 3:] != 4).sum())
    assert torch.equal(row.assign_at(given, 1, 0.1), own[:, :3])


def costs_by_hand(quantizer, codes):
    """Bits of codes (B, C, *grid), one after the other."""
    found = []
    for item in codes.tolist():
        total = 0.0
        for shares, row in zip(quantizer.ema_count.tolist(), item, strict=True):
            for code in torch.tensor(row).flatten().tolist():
                total += 0.0 if code < 0 else -math.log2(shares[code] + FLOOR)
        found.append(total)
    return found


def test_bits_of_codes_are_those_of_their_shares_in_every_composite():
    shares = [0.05, 0.1, 0.7, 0.1, 0.05]
    stage = ScalarConfig(channels=3, step=0.5, levels=5)
    codes = torch.randint(5, (2, 6, 3, 4), generator=torch.Generator().manual_seed(0))
    single = with_shares(build_quantizer(stage), shares)
    expected = costs_by_hand(single, codes[:, :3])
    assert single.bits(codes[:, :3]).tolist() == pytest.approx(expected)
    both = torch.tensor(expected) + torch.tensor(costs_by_hand(single, codes[:, 3:]))
    for config in (
        ResidualConfig(num_stages=2, stage=stage),
        ProductConfig(num_groups=2, group=stage),
    ):
        quantizer = build_quantizer(config)
        for part in quantizer.children():
            for one in part.children():
                with_shares(one, shares)
        assert quantizer.bits(codes).tolist() == pytest.approx(both.tolist())
    shorter = codes.clone()
    shorter[:, 3:] = -1
    row = build_quantizer(ResidualConfig(num_stages=2, stage=stage))
    for one in row.stages:
        with_shares(one, shares)
    assert row.bits(shorter).tolist() == pytest.approx(expected)
    hierarchy = build_quantizer(HierarchicalConfig(top=stage, bottom=stage))
    with_shares(hierarchy.top, shares)
    with_shares(hierarchy.bottom, shares)
    many = torch.randint(5, (2, 15, 3, 4), generator=torch.Generator().manual_seed(0))
    # Four codes of each channel below lie in the channels of a cell; which comes where is the same
    # for every share that all channels have.
    whole = [-math.log2(shares[code] + FLOOR) for code in many[0].flatten().tolist()]
    assert float(hierarchy.bits(many)[0]) == pytest.approx(sum(whole))


def test_bits_of_codebooks_have_a_fixed_length():
    quantizer = build_quantizer(ResidualConfig(num_stages=2, stage=VQConfig(codebook_size=8)))
    assert quantizer.bits(torch.zeros(3, 2, 4, 5, dtype=torch.long)).tolist() == [120.0] * 3


def gained_model(max_gain, kind="scalar"):
    stage = ScalarConfig(channels=5, step=0.5)
    quantizer = {
        "scalar": stage,
        "residual": ResidualConfig(num_stages=2, stage=stage),
        "product": ProductConfig(num_groups=2, group=stage),
        "hierarchical": HierarchicalConfig(top=stage, bottom=stage),
    }[kind]
    network = PatchConfig(width=8, encoder_blocks=0, decoder_blocks=1)
    return Autoencoder(
        ModelConfig(network=network, quantizer=quantizer, max_gain=max_gain),
        Shape(3, (8, 8)),
        LossConfig(),
        [1.0] * 3,
        [0.0] * 3,
        build_backbone,
    )


@pytest.mark.parametrize("kind", ["scalar", "residual", "product", "hierarchical"])
def test_training_draws_gains_up_to_the_largest_and_its_inverse(kind):
    model = gained_model(1.75, kind)
    seen = []
    model.quantizer.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latents = model.latents(x)
        for seed in range(200):
            model(x, torch.Generator().manual_seed(seed))
    ratios = torch.stack([(one / latents).median() for one in seen])
    assert 1 / 1.75 - 1e-4 <= float(ratios.min()) < 0.6 and 1.7 < float(ratios.max()) <= 1.7501
    # Each octave as often: half of them are below 1.
    assert 70 < int((ratios < 1).sum()) < 130
    seen.clear()
    model.eval()(x)
    model.encode(x)
    assert all(torch.equal(one, latents) for one in seen)


def test_what_the_decoder_learns_from_a_gain_is_what_a_file_gives_it():
    model = gained_model(3.0).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(5)
    output = model(x, generator)
    gain = 3.0 ** (2 * float(torch.rand((), generator=torch.Generator().manual_seed(5))) - 1)
    assert torch.equal(output.codes, model.encode(x, gain=gain))
    shown = model.decode(output.codes, (8, 8), gain)
    assert torch.allclose(output.reconstruction, shown, atol=1e-5)


def test_a_largest_gain_of_one_draws_nothing():
    model = gained_model(1.0)
    x = torch.randn(2, 3, 8, 8)
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    model(x, generator)
    assert torch.equal(generator.get_state(), before)


def test_a_model_pays_by_the_value_and_padding_costs_nothing():
    stage = ScalarConfig(channels=5, step=0.5)
    network = PatchConfig(width=8, encoder_blocks=0, decoder_blocks=1)
    config = ModelConfig(network=network, quantizer=stage)
    model = Autoencoder(
        config, Shape(3, (8, 8)), LossConfig(), [1.0] * 3, [0.0] * 3, build_backbone
    ).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    position = model.quantizer(model.latents(x)).terms["rate"]
    # 4 positions for 192 values.
    whole = float(model(x).terms["rate"].detach())
    assert whole == pytest.approx(float(position.detach()) * 4 / 192, rel=1e-6)
    mask = torch.ones(2, 8, 8, dtype=torch.bool)
    mask[1] = False
    alone = float(model(x[:1]).terms["rate"].detach())
    masked = float(model(x, mask=mask).terms["rate"].detach())
    assert masked == pytest.approx(alone, rel=1e-5)


def test_a_middle_is_asked_for():
    with pytest.raises(ValueError, match="odd"):
        ScalarConfig(levels=8)
