"""The contract over every bottleneck, and each against a reference."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqkit.config import (
    BSQConfig,
    FSQConfig,
    GaussianCodebookConfig,
    HierarchicalConfig,
    LFQConfig,
    NoneConfig,
    ProductConfig,
    PyramidConfig,
    ResidualConfig,
    SimVQConfig,
    VQConfig,
)
from vqkit.config.quantizers import FAMILIES, num_codebooks
from vqkit.model.quantizers import PADDING, build_quantizer
from vqkit.model.quantizers.continuous import bits_float, float_bits

KINDS = {
    "none": NoneConfig(code_dim=6),
    "vq-ema": VQConfig(codebook_size=32, code_dim=6),
    "vq-gradient": VQConfig(codebook_size=32, code_dim=6, update="gradient"),
    "vq-cosine": VQConfig(codebook_size=32, code_dim=6, distance="cosine"),
    "vq-cosine-gradient": VQConfig(
        codebook_size=32, code_dim=6, distance="cosine", update="gradient"
    ),
    "vq-projected": VQConfig(codebook_size=32, code_dim=3, latent_dim=10),
    "vq-rotation": VQConfig(codebook_size=32, code_dim=6, estimator="rotation"),
    "vq-gumbel": VQConfig(codebook_size=32, code_dim=6, estimator="gumbel"),
    "vq-map": VQConfig(codebook_size=32, code_dim=6, neighbourhood=2.0),
    "vq-rate": VQConfig(codebook_size=32, code_dim=6, rate=0.1),
    "vq-rate-gradient": VQConfig(
        codebook_size=32, code_dim=6, rate=0.1, distance="cosine", update="gradient"
    ),
    "fsq": FSQConfig(levels=(8, 5, 4)),
    "fsq-projected": FSQConfig(levels=(8, 5, 4), latent_dim=10),
    "simvq": SimVQConfig(codebook_size=32, code_dim=6),
    "simvq-projected": SimVQConfig(codebook_size=32, code_dim=3, latent_dim=10),
    "lfq": LFQConfig(bits=6),
    "lfq-projected": LFQConfig(bits=6, latent_dim=10),
    "bsq": BSQConfig(bits=6),
    "bsq-projected": BSQConfig(bits=6, latent_dim=10),
    "gaussian-bins": GaussianCodebookConfig(levels=(8, 5, 4)),
    "gaussian-bins-projected": GaussianCodebookConfig(levels=(8, 5, 4), latent_dim=10),
    "gaussian-draws": GaussianCodebookConfig(layout="draws", codebook_size=32, code_dim=6),
    "gaussian-draws-projected": GaussianCodebookConfig(
        layout="draws", codebook_size=32, code_dim=3, latent_dim=10
    ),
    "residual-vq": ResidualConfig(num_stages=3, stage=VQConfig(codebook_size=32, code_dim=6)),
    "residual-vq-gradient": ResidualConfig(
        num_stages=3, stage=VQConfig(codebook_size=32, code_dim=6, update="gradient"), latent_dim=9
    ),
    "residual-shared": ResidualConfig(
        num_stages=3, stage=VQConfig(codebook_size=32, code_dim=6), shared_codebook=True
    ),
    "residual-fsq": ResidualConfig(num_stages=2, stage=FSQConfig(levels=(5, 5, 5))),
    "residual-cosine": ResidualConfig(
        num_stages=2, stage=VQConfig(codebook_size=32, code_dim=6, distance="cosine")
    ),
    "product-vq": ProductConfig(num_groups=3, group=VQConfig(codebook_size=16, code_dim=4)),
    "product-shared": ProductConfig(
        num_groups=3, group=VQConfig(codebook_size=16, code_dim=4), shared_codebook=True
    ),
    "product-fsq": ProductConfig(num_groups=2, group=FSQConfig(levels=(5, 4)), latent_dim=7),
    "product-residual": ProductConfig(
        num_groups=2,
        group=ResidualConfig(num_stages=2, stage=VQConfig(codebook_size=16, code_dim=4)),
    ),
    "hierarchical": HierarchicalConfig(
        top=VQConfig(codebook_size=8, code_dim=4),
        bottom=VQConfig(codebook_size=16, code_dim=4),
        latent_dim=6,
    ),
    "hierarchical-3": HierarchicalConfig(
        top=HierarchicalConfig(
            top=VQConfig(codebook_size=8, code_dim=4), bottom=FSQConfig(levels=(3, 3)), latent_dim=6
        ),
        bottom=ResidualConfig(num_stages=2, stage=VQConfig(codebook_size=16, code_dim=4)),
        latent_dim=6,
    ),
    "pyramid": PyramidConfig(
        num_grids=2, stage=VQConfig(codebook_size=16, code_dim=4, rate=0.1), latent_dim=6
    ),
    "pyramid-3": PyramidConfig(stage=VQConfig(codebook_size=8, code_dim=4)),
    "pyramid-bsq": PyramidConfig(num_grids=2, stage=BSQConfig(bits=4)),
}


def every_family() -> dict:
    """Every family that there is, alone and in every composite: a new one is found without a line
    here.
    """
    found = {}
    for section in FAMILIES:
        fields = section.model_fields
        family = section(codebook_size=32) if section in (VQConfig, SimVQConfig) else section()
        name = f"any-{fields['kind'].default}"
        found[name] = family
        found[f"{name}-projected"] = section(
            **{**family.model_dump(exclude_defaults=True), "latent_dim": 10}
        )
        found[f"residual-{name}"] = ResidualConfig(num_stages=2, stage=family)
        found[f"product-{name}"] = ProductConfig(num_groups=2, group=family)
        found[f"hierarchical-{name}"] = HierarchicalConfig(top=family, bottom=family, latent_dim=6)
        found[f"pyramid-{name}"] = PyramidConfig(num_grids=2, stage=family)
    return found


# What the contract is tested over.
ALL = KINDS | every_family()


IN_CELLS = ("hierarchical", "pyramid")


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith(IN_CELLS)])
def test_the_bound_of_a_cell_counts_what_is_built(name):
    assert num_codebooks(ALL[name]) == build_quantizer(ALL[name]).num_codebooks


@pytest.fixture(params=ALL)
def quantizer(request):
    torch.manual_seed(0)
    return build_quantizer(ALL[request.param])


def latents_for(quantizer, batch=3, grid=(4, 5), seed=1):
    grid = [side * quantizer.grid_multiple for side in grid]
    return torch.randn(
        batch, quantizer.latent_dim, *grid, generator=torch.Generator().manual_seed(seed)
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("grid", [(7,), (4, 5), (2, 3, 4), (1, 1)])
@pytest.mark.parametrize("kind", ALL)
def test_shapes_and_ranges_at_any_number_of_dimensions(kind, grid):
    quantizer = build_quantizer(at_dimensions(ALL[kind], len(grid)))
    latents = latents_for(quantizer, grid=grid)
    result = quantizer(latents, generator())
    assert result.quantized.shape == latents.shape
    assert result.codes.shape == (3, quantizer.num_codebooks, *grid)
    assert result.codes.dtype == torch.int64
    for row, size in zip(result.codes.movedim(1, 0), quantizer.codebook_sizes, strict=True):
        assert 0 <= int(row.min()) and int(row.max()) < size
    assert result.loss.shape == () and all(term.shape == () for term in result.terms.values())
    assert quantizer.bits_per_position == pytest.approx(
        sum(map(math.log2, quantizer.codebook_sizes))
    )
    assert [part.codebook_size for part in quantizer.parts()] == list(
        quantizer.codebook_sizes
    ) or kind == "none"


def at_dimensions(config, dims):
    """The config with every hierarchy and pyramid in it set to grids of this many dimensions."""
    if config.kind == "pyramid":
        return config.model_copy(update={"grid_dims": dims})
    if config.kind != "hierarchical":
        return config
    return config.model_copy(update={"grid_dims": dims, "top": at_dimensions(config.top, dims)})


def test_decode_of_encode_is_the_eval_forward_to_the_bit(quantizer):
    quantizer(latents_for(quantizer), generator())
    quantizer.eval()
    latents = latents_for(quantizer, seed=2)
    result = quantizer(latents)
    codes = quantizer.encode(latents)
    assert torch.equal(codes, result.codes)
    assert torch.equal(quantizer.decode(codes), result.quantized)


def test_no_cell_of_the_grid_sees_another(quantizer):
    """How far a model looks around is what its networks do."""
    quantizer.eval()
    latents = latents_for(quantizer)
    side = quantizer.grid_multiple
    changed = latents.clone()
    changed[..., 2 * side :, :] += 1.0
    codes = quantizer.encode(latents)
    others = quantizer.encode(changed)
    assert torch.equal(others[..., :2, :], codes[..., :2, :])
    assert not torch.equal(others, codes)


@pytest.mark.parametrize("batch", [1, 3])
def test_bits_do_not_depend_on_how_codes_lie_in_memory(quantizer, batch):
    """As they are decoded, with their last axis first, or cut out of larger ones; those of a
    single item have views that those of several have not.
    """
    codes = quantizer.eval().encode(latents_for(quantizer, batch)).contiguous()
    turned = codes.movedim(1, -1).contiguous().movedim(-1, 1)
    doubled = codes.repeat_interleave(2, -1)[..., ::2]
    whole = quantizer.bits(codes)
    assert whole.shape == (batch,)
    for other in (turned, doubled):
        assert torch.equal(quantizer.bits(other), whole)


def test_eval_changes_nothing_even_before_training(quantizer):
    quantizer.eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(latents_for(quantizer))
    quantizer.encode(latents_for(quantizer))
    assert all(torch.equal(before[name], value) for name, value in quantizer.state_dict().items())


def test_loss_is_the_sum_of_the_terms_with_the_papers_weights(quantizer):
    result = quantizer(latents_for(quantizer), generator())
    expected = sum(
        quantizer.default_weights[name] * float(term.detach())
        for name, term in result.terms.items()
    )
    assert float(result.loss.detach()) == pytest.approx(expected, rel=1e-6)


def test_autocast_changes_nothing(quantizer):
    quantizer(latents_for(quantizer), generator())
    quantizer.eval()
    latents = latents_for(quantizer, seed=3)
    expected = quantizer(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = quantizer(latents)
        decoded = quantizer.decode(quantizer.encode(latents))
    assert torch.equal(result.codes, expected.codes)
    assert torch.equal(result.quantized, expected.quantized) and torch.equal(
        decoded, expected.quantized
    )


def test_in_float64_the_codes_are_the_same(quantizer):
    """As encoders have it whose codes must not depend on the rounding of float32."""
    quantizer(latents_for(quantizer), generator())
    quantizer.eval()
    latents = latents_for(quantizer, seed=3)
    mask = torch.ones(3, *latents.shape[2:], dtype=torch.bool)
    mask[0] = False
    expected = quantizer.encode(latents, mask)
    exact = copy.deepcopy(quantizer).double()
    found = exact.encode(latents.double(), mask)
    # But for a rare one between two codes, and what later stages make of that.
    assert (found == expected).double().mean() > 0.97
    assert torch.equal(found == -1, expected == -1)
    assert torch.allclose(exact.decode(expected).float(), quantizer.decode(expected), atol=1e-5)


def test_every_learnable_value_gets_a_gradient(quantizer):
    latents = latents_for(quantizer, batch=16)  # more tokens than codes: no residual is quite zero
    latents.requires_grad_()
    result = quantizer(latents, generator())
    (result.quantized.square().sum() + result.loss).backward()
    assert float(latents.grad.abs().sum()) > 0
    for name, parameter in quantizer.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0, name


def padding_mask(quantizer, latents):
    """The first image loses its last cells along the last dimension, the second all but its first
    cell.
    """
    size = quantizer.grid_multiple
    mask = torch.ones(latents.shape[0], *latents.shape[2:], dtype=torch.bool)
    mask[0, ..., -size:] = False
    mask[1] = False
    mask[(1, *(slice(size) for _ in latents.shape[2:]))] = True
    return mask


def with_gradients(quantizer, latents, mask):
    """One training step: its result, and the gradients of the latents and of every parameter."""
    latents = latents.clone().requires_grad_()
    result = quantizer(latents, generator(), mask)
    (result.quantized.square().sum() + result.loss).backward()
    return result, [latents.grad, *(parameter.grad for parameter in quantizer.parameters())]


@pytest.mark.parametrize("grid", [(6,), (4, 5), (2, 2, 3)], ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize("kind", ALL)
def test_padding_has_no_part_in_anything_whatever_it_holds(kind, grid):
    """The same real positions, with NaN, infinity and numbers beside them: everything else is the
    same.
    """
    torch.manual_seed(0)
    quantizer = build_quantizer(at_dimensions(ALL[kind], len(grid)))
    twin = copy.deepcopy(quantizer)
    latents, other = (latents_for(quantizer, grid=grid, seed=seed) for seed in (1, 8))
    mask = padding_mask(quantizer, latents)
    other[:, 0] = math.nan
    other[:, 1:2] = math.inf
    first, gradients = with_gradients(quantizer, latents, mask)
    second, others = with_gradients(twin, torch.where(mask[:, None], latents, other), mask)
    assert torch.equal(first.codes, second.codes) and torch.equal(first.quantized, second.quantized)
    assert torch.equal(first.loss, second.loss)
    for left, right in zip(gradients, others, strict=True):
        assert (left is None and right is None) or (
            torch.equal(left, right) and bool(left.isfinite().all())
        )
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name
    assert not first.quantized.detach().movedim(1, -1)[~mask].any()
    assert not others[0].movedim(1, -1)[~mask].any()
    expected = quantizer.eval().encode(latents, mask)
    assert torch.equal(quantizer.encode(torch.where(mask[:, None], latents, other), mask), expected)
    if quantizer.grid_multiple == 1:
        assert bool(((first.codes == PADDING).all(1) == ~mask).all())


def tails(config) -> list[bool]:
    """Where among the codes of a position a single -1 leaves out the last stage of a residual
    row.
    """
    match config.kind:
        case "residual":
            in_a_stage = build_quantizer(config.stage).num_codebooks
            is_last = config.num_stages > 1 and in_a_stage == 1
            return [False] * (config.num_stages * in_a_stage - 1) + [is_last]
        case "product":
            return tails(config.group) * config.num_groups
    return [False] * build_quantizer(config).num_codebooks


def may_be_missing(config) -> list[bool]:
    """Where a code may be -1 beside real ones; a position with a single code becomes padding
    by it.
    """
    if config.kind == "hierarchical":
        top = may_be_missing(config.top)
        positions = build_quantizer(config).grid_multiple ** config.grid_dims
        bottom = [flag for flag in may_be_missing(config.bottom) for _ in range(positions)]
        return ([False] if len(top) == 1 else top) + bottom
    if config.kind == "pyramid":
        finest = 2 ** ((config.num_grids - 1) * config.grid_dims)
        in_a_position = build_quantizer(config.stage).num_codebooks
        # One code alone makes a position of the finest grid padding.
        padding = [in_a_position == 1] * (finest * in_a_position)
        return [False] * (build_quantizer(config).num_codebooks - len(padding)) + padding
    flags = tails(config)
    return [True] if len(flags) == 1 else flags


@pytest.mark.parametrize("kind", ALL)
def test_codes_that_stand_for_nothing_are_refused(kind):
    quantizer = build_quantizer(ALL[kind]).eval()
    codes = quantizer.encode(latents_for(quantizer, batch=1, grid=(2, 2)))
    for place, may_be in enumerate(may_be_missing(ALL[kind])):
        for value in (-1, -2, quantizer.codebook_sizes[place]):
            wrong = codes.clone()
            wrong[0, place, 0, 1] = value
            if value == -1 and may_be:
                assert bool(quantizer.decode(wrong).isfinite().all())
                continue
            with pytest.raises(ValueError, match=f"codebook {place}|codebook|coarse code of -1"):
                quantizer.decode(wrong)
    with pytest.raises(ValueError, match="codes must be \\(B"):
        quantizer.decode(torch.cat([codes, codes], 1))
    with pytest.raises(ValueError, match="whole numbers"):
        quantizer.decode(codes.float())


def test_a_position_of_padding_decodes_to_zeros_and_no_other_changes(quantizer):
    quantizer.eval()
    codes = quantizer.encode(latents_for(quantizer, batch=2, grid=(2, 2)))
    padded = codes.clone()
    padded[1, :, 0, 1] = PADDING
    whole, part = quantizer.decode(codes), quantizer.decode(padded)
    size = quantizer.grid_multiple
    gone = torch.zeros_like(whole, dtype=torch.bool)
    gone[1, :, :size, size : 2 * size] = True
    assert torch.equal(part, whole.where(~gone, 0.0)) and bool(whole[gone].any())


def test_padding_survives_the_codes(quantizer):
    quantizer(latents_for(quantizer), generator())
    quantizer.eval()
    latents = latents_for(quantizer, seed=2)
    mask = padding_mask(quantizer, latents)
    result = quantizer(latents, mask=mask)
    assert torch.equal(quantizer.encode(latents, mask), result.codes)
    assert torch.equal(quantizer.decode(result.codes), result.quantized)
    whole = quantizer(latents).codes
    if quantizer.grid_multiple == 1:
        assert torch.equal(
            result.codes[mask[:, None].expand_as(whole)], whole[mask[:, None].expand_as(whole)]
        )


def test_a_mask_that_does_not_fit_is_named(quantizer):
    latents = latents_for(quantizer)
    with pytest.raises(ValueError, match="mask must be bool"):
        quantizer(latents, mask=torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="leaves no position"):
        quantizer(latents, mask=torch.zeros(3, *latents.shape[2:], dtype=torch.bool))


def test_wrong_width_is_named(quantizer):
    with pytest.raises(ValueError, match=rf"\(B, {quantizer.latent_dim}, \*grid\)"):
        quantizer(torch.zeros(2, quantizer.latent_dim + 1, 4))


@pytest.mark.parametrize("kind", ALL)
def test_state_dict_round_trip(kind):
    trained, twin = build_quantizer(ALL[kind]), build_quantizer(ALL[kind])
    trained(latents_for(trained), generator())
    twin.load_state_dict(trained.state_dict())
    latents = latents_for(trained, seed=5)
    assert torch.equal(twin.eval().encode(latents), trained.eval().encode(latents))


# ----------------------------------------------------------------------------------------------- vq


@pytest.mark.parametrize("kind", ["vq-ema", "vq-gradient"])
def test_straight_through_gradient_is_the_gradient_of_the_identity(kind):
    quantizer = build_quantizer(KINDS[kind])
    latents = latents_for(quantizer).requires_grad_()
    weights = torch.randn(3, 6, 4, 5, generator=generator(9))
    (quantizer(latents, generator()).quantized * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_vq_terms_by_hand():
    quantizer = build_quantizer(
        VQConfig(codebook_size=2, code_dim=2, update="gradient", revive_threshold=0.0)
    )
    with torch.no_grad():
        quantizer.codebook.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
        quantizer.updates.fill_(1)
    latents = torch.tensor([[[1.0, 3.0], [0.0, 2.0]]])  # (1, 2, 2): tokens (1, 0) and (3, 2)
    result = quantizer(latents)
    assert result.codes.flatten().tolist() == [0, 1]
    expected = (1 + 0 + 1 + 4) / 4
    assert float(result.terms["commitment"]) == pytest.approx(expected)
    assert float(result.terms["codebook"].detach()) == pytest.approx(expected)


def test_commitment_moves_latents_only_and_codebook_term_moves_codes_only():
    quantizer = build_quantizer(KINDS["vq-gradient"])
    latents = latents_for(quantizer).requires_grad_()
    result = quantizer(latents, generator())
    result.terms["commitment"].backward(retain_graph=True)
    assert quantizer.codebook.grad is None and float(latents.grad.abs().sum()) > 0
    latents.grad = None
    result.terms["codebook"].backward()
    assert latents.grad is None and float(quantizer.codebook.grad.abs().sum()) > 0


def test_ema_follows_the_papers_recurrence():
    """Appendix A.1 of arXiv 1711.00937, in NumPy."""
    quantizer = build_quantizer(
        VQConfig(codebook_size=8, code_dim=3, decay=0.9, revive_threshold=0.0)
    )
    first = latents_for_tokens(200, 3, 0)
    quantizer(first, generator())
    count, total = (
        quantizer.ema_count.numpy().astype(np.float64),
        quantizer.ema_sum.numpy().astype(np.float64),
    )
    codebook = quantizer.codebook.numpy().astype(np.float64)
    quantizer.updates.fill_(1000)  # past the shorter memory of the first steps
    for seed in (1, 2, 3):
        batch = latents_for_tokens(200, 3, seed)
        tokens = batch[0].T.numpy().astype(np.float64)
        codes = ((tokens[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)
        one_hot = np.eye(8)[codes]
        count = 0.9 * count + 0.1 * one_hot.sum(0)
        total = 0.9 * total + 0.1 * one_hot.T @ tokens
        codebook = total / count[:, None]
        quantizer(batch, generator())
    np.testing.assert_allclose(quantizer.codebook.numpy(), codebook, rtol=1e-4, atol=1e-5)


def test_memory_is_short_in_the_first_steps():
    quantizer = build_quantizer(
        VQConfig(codebook_size=2, code_dim=1, decay=0.9, revive_threshold=0.0)
    )
    for value in (1.0, 5.0, 2.0):
        quantizer(torch.tensor([[[value, -value] * 5]]), generator())
    # the first batch sets the codes to +-1 and is then averaged in; the decays are 1/10, 2/11, 3/12
    expected = (1.0 * 2 / 11 + 5.0 * 9 / 11) * 3 / 12 + 2.0 * 9 / 12
    assert sorted(quantizer.codebook.flatten().tolist()) == pytest.approx(
        [-expected, expected], rel=1e-5
    )


def latents_for_tokens(count, width, seed):
    return torch.randn(1, width, count, generator=generator(seed))


def test_revived_codes_win_tokens_where_there_are_many_channels():
    """Upon a token of 64 channels a code wins that token alone: a third of the last stage, or more,
    stayed dead.
    """
    torch.manual_seed(0)
    stage = VQConfig(codebook_size=256, code_dim=64)
    quantizer = build_quantizer(ResidualConfig(num_stages=4, stage=stage))
    generator = torch.Generator().manual_seed(0)
    deviations = 1 / torch.arange(1.0, 65.0)

    def latents(count):
        return (torch.randn(count, 64, generator=generator) * deviations).T[None]

    for _ in range(200):
        quantizer(latents(128), generator)
    codes = quantizer.eval().encode(latents(2560))
    used = [len(codes[:, place].unique()) for place in range(4)]
    assert min(used) > 0.9 * 256


def test_dead_codes_are_revived_with_their_averages_and_stay_alive():
    quantizer = build_quantizer(
        VQConfig(codebook_size=16, code_dim=2, decay=0.9, revive_threshold=0.1)
    )
    quantizer(latents_for_tokens(400, 2, 0), generator())
    with (
        torch.no_grad()
    ):  # twelve codes far from every token, with averages that say they are hardly used
        quantizer.codebook[4:] = 1000.0
        quantizer.ema_count[4:] = 1e-3
        quantizer.ema_sum[4:] = 1.0
    for seed in range(1, 6):
        batch = latents_for_tokens(400, 2, seed)
        quantizer(batch, generator(seed))
    assert float(quantizer.codebook.abs().max()) < 10
    assert float(quantizer.ema_count.min()) > 0.1 * 400 / 16
    assert len(quantizer.eval().encode(latents_for_tokens(400, 2, 9)).unique()) == 16


@pytest.mark.parametrize(
    "more",
    [{}, {"distance": "cosine"}, {"rate": 0.1}, {"neighbourhood": 0.5, "neighbourhood_steps": 1}],
)
def test_codes_without_tokens_stay_where_they_are(more):
    """All tokens lie by code 0.

    On a map its neighbours follow it there, one by one, but not yet the far corner.
    """
    is_map = "neighbourhood" in more
    size, threshold = (400, {}) if is_map else (64, {"revive_threshold": 0.0})
    quantizer = build_quantizer(
        VQConfig(codebook_size=size, code_dim=2, decay=0.9, **threshold, **more)
    )
    quantizer(latents_for_tokens(1000, 2, 0), generator())
    angles = torch.linspace(0, 3, size)
    codes = torch.stack([angles.cos(), angles.sin()], 1)
    with torch.no_grad():
        quantizer.codebook.copy_(codes)
        quantizer.ema_sum.copy_(codes * quantizer.ema_count[:, None])
    for seed in range(200):
        quantizer(0.01 * latents_for_tokens(20, 2, seed) + codes[0][None, :, None], generator(seed))
    assert float(quantizer.ema_count[-1]) < 1e-7
    away = slice(size - 1 if is_map else 8, size)
    torch.testing.assert_close(quantizer.codebook[away], codes[away], rtol=1e-4, atol=1e-4)


def test_a_rate_weighs_bits_against_distance():
    """Every code against the cost of each by hand; distance and bits of all of them together
    against nearest codes.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = 3 * torch.rand(4096, 1, generator=generator).square()  # many small ones, few large ones
    tokens, costs = torch.randn(4096, 4, generator=generator) * sizes, {}
    weight = 0.0
    for rate in (0.2, 0.0):
        quantizer = build_quantizer(
            VQConfig(codebook_size=64, code_dim=4, rate=rate, revive_threshold=0.01)
        ).train()
        for _ in range(200):
            quantizer(tokens[:, :, None], generator=generator)
        distances = torch.cdist(tokens, quantizer.codebook).square()
        codes = quantizer.eval().assign(tokens)[:, 0]
        if rate:
            weight = rate * float(quantizer.ema_distance)
            bits = -(quantizer.ema_count / quantizer.ema_count.sum()).log2()
            assert (
                codes == (distances + weight * bits).argmin(1)
            ).float().mean() > 0.999  # but for ties of rounding
            assert float(quantizer.ema_distance) == pytest.approx(
                float(distances.gather(1, codes[:, None]).mean()), rel=0.1
            )
        share = torch.bincount(codes, minlength=64) / len(codes)
        entropy = float(-(share * share.clamp(min=1e-9).log2()).sum())
        costs[rate] = float(distances.gather(1, codes[:, None]).mean()) + weight * entropy
    assert costs[0.2] < 0.95 * costs[0.0]


def test_gumbel_with_a_rate_is_refused():
    with pytest.raises(ValueError, match="gumbel"):
        build_quantizer(VQConfig(estimator="gumbel", rate=0.1))


def test_kmeans_start_reconstructs_better_than_the_random_one():
    errors = {}
    for iterations in (0, 10):
        quantizer = build_quantizer(
            VQConfig(codebook_size=16, code_dim=2, kmeans_iterations=iterations, decay=0.99)
        )
        batch = latents_for_tokens(500, 2, 0) * 0.1 + 5
        quantizer(batch, generator())
        errors[iterations] = float(quantizer.eval()(batch).terms["commitment"])
    assert errors[10] < 0.2 * errors[0]


def test_cosine_ignores_length():
    quantizer = build_quantizer(KINDS["vq-cosine"])
    latents = latents_for(quantizer)
    quantizer(latents, generator())
    quantizer.eval()
    assert torch.equal(quantizer.encode(latents), quantizer.encode(latents * 7.5))
    assert torch.allclose(
        quantizer.decode(quantizer.encode(latents)).norm(dim=1), torch.ones(3, 4, 5), atol=1e-5
    )


# ---------------------------------------------------------------------------------------------- fsq


@given(st.lists(st.integers(2, 9), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_fsq_reaches_every_code_and_decodes_it_back(levels):
    quantizer = build_quantizer(FSQConfig(levels=tuple(levels)))
    count = min(quantizer.codebook_size, 4096)
    codes = torch.arange(count)[None, None]
    values = quantizer.decode(codes)
    assert float(values.min()) >= -1 and float(values.max()) <= 1
    digits = (values + 1) / 2 * (torch.tensor(levels)[:, None] - 1)
    # the latent whose bounded value is the middle of that digit's cell
    centre = (digits - 0.5 * (torch.tensor(levels)[:, None] - 1)) / (
        0.5 * (torch.tensor(levels)[:, None] - 1e-3)
    )
    assert torch.equal(quantizer.encode(torch.atanh(centre.double()).float()), codes)


def test_fsq_cells_are_symmetric_and_all_used_by_a_normal_latent():
    quantizer = build_quantizer(FSQConfig(levels=(4, 5)))
    latents = torch.randn(1, 2, 20000, generator=generator(0))
    values = quantizer.eval()(latents).quantized
    mirrored = quantizer(-latents).quantized
    on_a_border = (values + mirrored).abs().amax(1) > 1e-6
    assert float(on_a_border.float().mean()) < 1e-3
    assert len(quantizer.encode(latents).unique()) == 20


def test_fsq_gradient_is_that_of_the_bound():
    quantizer = build_quantizer(FSQConfig(levels=(5,)))
    latents = torch.tensor([[[0.3, -1.2]]], requires_grad=True)
    quantizer(latents).quantized.sum().backward()
    expected = (5 - 1e-3) / 4 * (1 - torch.tanh(latents.detach()) ** 2)
    assert torch.allclose(latents.grad, expected, atol=1e-6)


def test_fsq_refuses_more_codes_than_an_int64_holds():
    with pytest.raises(ValueError, match="2\\^62"):
        build_quantizer(FSQConfig(levels=(256,) * 8))


# ----------------------------------------------------------------------------------------- --- none


def test_float_bits_are_exact_for_every_kind_of_float():
    values = torch.tensor([0.0, -0.0, 1.0, -1.5, 1e-45, -3e38, math.inf, -math.inf])
    assert torch.equal(bits_float(float_bits(values)).view(torch.int32), values.view(torch.int32))
    assert int(float_bits(values).min()) >= 0


def test_codebooks_too_large_to_count_are_not_counted():
    """A table of 2^40 codes would take eight terabytes."""
    assert build_quantizer(FSQConfig(levels=(8, 8, 8))).is_countable
    assert not build_quantizer(FSQConfig(levels=(256,) * 5)).is_countable
    assert not build_quantizer(NoneConfig()).is_countable


def test_counts_of_a_shared_codebook_are_added_up_and_cut_to_its_size():
    top, bottom = VQConfig(codebook_size=2, code_dim=4), VQConfig(codebook_size=3, code_dim=4)
    quantizer = build_quantizer(HierarchicalConfig(top=top, bottom=bottom, latent_dim=6))
    counts = torch.tensor([[5, 1, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3], [4, 0, 0]])
    assert quantizer.places() == [[0], [1, 2, 3, 4]]
    assert [row.tolist() for row in quantizer.per_codebook(counts)] == [[5, 1], [5, 2, 3]]
