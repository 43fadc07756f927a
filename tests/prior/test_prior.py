"""The prior's network and sampling on toys small enough to sum over everything."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from vqkit.config import PriorNetworkConfig
from vqkit.errors import VqkitError
from vqkit.prior.layout import Layout, cosine, halton_order, share_out
from vqkit.prior.network import Condition, PriorNetwork, rms_norm, squared_relu
from vqkit.prior.prior import Drawing, Prior, caption_bytes, following, windows
from vqkit.prior.sampling import Sampling, Start, Walk, distribution, draw, pick
from vqkit.settings import PriorConfig

TINY = PriorNetworkConfig(width=16, num_heads=2, num_blocks=2, caption_bytes=8)


def network(
    layout: Layout, num_classes: int = 0, captions: bool = False, config=TINY
) -> PriorNetwork:
    """Random weights, large enough that every input matters."""
    torch.manual_seed(0)
    net = PriorNetwork(config, layout, num_classes, captions).double().eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    return net


def random_codes(layout: Layout, count: int) -> torch.Tensor:
    return torch.stack(
        [torch.randint(layout.codebook_sizes[q], (count,)) for q in layout.places.tolist()], 1
    )


LINE = Layout((1, 3), (3,), (0,))
GRID = Layout((3, 4), (7,), (0,))
STAGES = Layout((2, 2), (5, 3, 3), (0, 1, 1))
KINDS = [
    (LINE, 0, False),
    (GRID, 3, False),
    (STAGES, 0, True),
    (replace(STAGES, order="delayed"), 0, False),
]


# --------------------------------------------------------------------------------------- likelihood


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_likelihood_of_three_codes_sums_to_one_in_every_order(order):
    net = network(LINE, num_classes=2)
    codes = torch.tensor(list(itertools.product(range(3), repeat=3)))
    nats = net(codes, torch.tensor([order] * 27), torch.tensor([1] * 27))
    assert float((-nats.sum(1)).exp().sum().detach()) == pytest.approx(1, abs=1e-12)


def test_codebooks_of_different_sizes_sum_to_one_too():
    layout = Layout((1, 1), (3, 2, 2), (0, 1, 1))
    codes = torch.tensor(list(itertools.product(range(3), range(2), range(2))))
    nats = network(layout)(codes, torch.tensor([[2, 0, 1]] * 12))
    assert float((-nats.sum(1)).exp().sum().detach()) == pytest.approx(1, abs=1e-12)


def test_no_step_sees_its_own_code_or_a_later_one():
    net = network(GRID, num_classes=2)
    order = torch.randperm(12)[None]
    steps = net.steps(
        random_codes(GRID, 1).gather(1, order)[:, :-1], order, Condition(torch.tensor([0]))
    )
    inputs = steps.inputs.detach().requires_grad_()
    hidden = net.hidden(replace(steps, inputs=inputs))
    for step in range(12):
        (seen,) = torch.autograd.grad(hidden[0, step].square().sum(), inputs, retain_graph=True)
        touched = seen[0].abs().sum(1) > 0
        assert touched[: step + 1].all() and not touched[step + 1 :].any()


def test_classes_and_captions_matter_and_the_same_bytes_are_the_same():
    net = network(GRID, num_classes=2)
    codes, order = random_codes(GRID, 1), torch.arange(12)[None]
    assert not torch.equal(
        net(codes, order, torch.tensor([0])), net(codes, order, torch.tensor([1]))
    )
    assert torch.equal(net(codes, order), net(codes, order, torch.tensor([2]))), (
        "no class is the last number"
    )
    told = network(GRID, captions=True)
    red, apple = (caption_bytes(text, 8)[None] for text in ("Red", "apple"))
    assert not torch.equal(told(codes, order, None, red), told(codes, order, None, apple))
    assert torch.equal(told(codes, order), told(codes, order, None, caption_bytes("", 8)[None]))


def test_large_codebooks_in_parts_give_the_same_likelihood_and_gradient(monkeypatch):
    net = network(STAGES)
    codes, order = random_codes(STAGES, 4), torch.stack([torch.randperm(12) for _ in range(4)])
    whole = net(codes, order)
    whole.sum().backward()
    gradient = net.head.weight.grad.clone()
    net.zero_grad()
    monkeypatch.setattr("vqkit.prior.network.MAX_LOGITS", 20)
    parts = net(codes, order)
    parts.sum().backward()
    assert torch.allclose(whole, parts, atol=1e-12) and torch.allclose(
        gradient, net.head.weight.grad, atol=1e-12
    )


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (rms_norm, lambda x: nn.functional.rms_norm(x, (12,), eps=1e-6)),
        (squared_relu, lambda x: x.relu().square()),
    ],
)
def test_operators_with_their_own_gradient_are_pytorchs(ours, reference):
    x = torch.randn(3, 5, 12, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 5, 12, dtype=torch.float64)
    expected = torch.autograd.grad((reference(x) * weights).sum(), x)[0]
    found = torch.autograd.grad((ours(x) * weights).sum(), x)[0]
    assert torch.allclose(ours(x), reference(x), atol=1e-12) and torch.allclose(
        found, expected, atol=1e-12
    )


def test_norms_are_in_the_type_of_autocast_and_their_gradient_in_that_of_the_input():
    x = torch.randn(4, 12, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        normed = rms_norm(x)
    assert normed.dtype == torch.bfloat16
    found = torch.autograd.grad(normed, x, torch.ones_like(normed))[0]
    expected = torch.autograd.grad(rms_norm(x), x, torch.ones_like(x))[0]
    assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=0.05)


# ---------------------------------------------------------------------------------- cache and masks


@pytest.mark.parametrize(("layout", "num_classes", "captions"), KINDS)
def test_the_cached_path_equals_the_whole_one(layout, num_classes, captions):
    net = network(layout, num_classes, captions)
    order = layout.canonical[0].expand(2, -1)
    codes = random_codes(layout, 2)
    told = Condition(
        torch.tensor([0, 1]) if num_classes else None,
        torch.randint(1, 99, (2, 8)).byte() if captions else None,
    )
    nats, walk = net(codes, order, *told), Walk(net, order, told)
    for step in range(layout.length):
        hidden = walk.ask(codes, step, 1)[:, 0]
        logits = net.logits(hidden, int(layout.slot_groups[order[0, step]]))
        found = nn.functional.cross_entropy(
            logits, codes.gather(1, order)[:, step], reduction="none"
        )
        assert torch.allclose(found, nats[:, step], atol=1e-12)


def test_questions_asked_together_are_those_asked_alone():
    """Each of several questions gives what it gives as the only one, and later steps do not notice
    them.
    """
    net, codes = network(GRID, num_classes=3), random_codes(GRID, 2)
    order = torch.stack([torch.randperm(12) for _ in range(2)])
    told = Condition(torch.tensor([0, 2]))
    walk = Walk(net, order, told)
    together = walk.ask(codes, 5, 4)
    for index in range(4):
        swapped = order.clone()
        swapped[:, [5, 5 + index]] = order[:, [5 + index, 5]]
        alone = Walk(net, swapped, told).ask(codes, 5, 1)
        assert torch.allclose(together[:, index], alone[:, 0], atol=1e-12)
    assert torch.allclose(
        walk.ask(codes, 9, 2), Walk(net, order, told).ask(codes, 9, 2), atol=1e-12
    )


# ----------------------------------------------------------------------------------------- sampling


def start(layout: Layout, told: Condition, count: int = 2) -> Start:
    order = layout.canonical[0].expand(count, -1)
    uniforms = torch.rand(
        count, layout.length, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    return Start(torch.zeros(count, layout.length, dtype=torch.long), order, uniforms, told)


def test_guidance_of_one_is_none_and_of_zero_is_without_condition():
    net, told = network(GRID, num_classes=3), Condition(torch.tensor([0, 2]))
    plain = draw(net, start(GRID, told), [1] * 12, Sampling())
    ramp = Sampling(cfg=1.0, cfg_ramp="linear")
    assert torch.equal(plain, draw(net, start(GRID, told), [1] * 12, ramp))
    late = Sampling(cfg=5.0, cfg_interval=(1.0, 1.0))
    assert torch.equal(plain, draw(net, start(GRID, told), [1] * 12, late)), (
        "outside of its interval it does nothing"
    )
    untold = draw(net, start(GRID, Condition()), [1] * 12, Sampling())
    assert torch.equal(untold, draw(net, start(GRID, told), [1] * 12, Sampling(cfg=0.0)))
    assert not torch.equal(plain, untold)
    assert not torch.equal(plain, draw(net, start(GRID, told), [1] * 12, Sampling(cfg=4.0)))


def test_guidance_rises_over_its_interval():
    sampling = Sampling(cfg=3.0, cfg_interval=(0.2, 0.6), cfg_ramp="linear")
    assert [sampling.guidance(t) for t in (0.1, 0.2, 0.4, 0.6)] == pytest.approx([1, 1, 2, 1])


def test_top_k_and_top_p_by_hand():
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    assert distribution(logits, Sampling(top_k=2)).tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7])
    assert distribution(logits, Sampling(top_p=0.65)).tolist() == pytest.approx([0, 0.4, 0, 0.3])
    assert distribution(logits, Sampling(top_p=0.71)).tolist() == pytest.approx([0, 0.4, 0.2, 0.3])
    squared = torch.tensor([0.01, 0.16, 0.04, 0.09])
    assert distribution(logits, Sampling(temperature=0.5)).tolist() == pytest.approx(
        (squared / 0.3).tolist()
    )


def test_codes_are_picked_where_the_number_falls():
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64).log().expand(6, 4)
    numbers = torch.tensor([0.0, 0.09, 0.11, 0.51, 0.69, 0.999999], dtype=torch.float64)
    assert pick(logits, Sampling(), numbers).tolist() == [0, 0, 1, 2, 2, 3]
    assert pick(logits, Sampling(temperature=0.0), numbers).tolist() == [1] * 6
    last = pick(logits, Sampling(top_k=1), torch.full((6,), 1 - 1e-16, dtype=torch.float64))
    assert last.tolist() == [1] * 6, "a code of probability zero is never drawn"


def test_draws_follow_the_distribution():
    """A chi-square test of 4,000 images of two codes against their exact probabilities."""
    layout = Layout((1, 2), (3,), (0,))
    prior = Prior(PriorConfig(network=TINY), network(layout).float())
    drawn = prior.sample(4000, Drawing(seed=5)).flatten(1)
    every = torch.tensor(list(itertools.product(range(3), repeat=2)))
    expected = 4000 * 2.0 ** -prior.bits(every.reshape(-1, 1, 1, 2))
    counts = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9)
    assert (
        float(((counts - expected) ** 2 / expected).sum()) < 26.1
    )  # 8 degrees of freedom, p = 0.001


def prior_of(layout: Layout, **kwargs) -> Prior:
    classes = ("bag", "coat", "shoe") if kwargs.get("num_classes") else ()
    return Prior(PriorConfig(network=TINY), network(layout, **kwargs).float(), classes)


@pytest.mark.parametrize("steps", [None, 4])
def test_an_image_does_not_depend_on_how_many_there_are_nor_on_threads(steps):
    prior = prior_of(GRID, num_classes=3)
    drawing = Drawing(classes=["coat", "bag"], seed=7, steps=steps)
    many = prior.sample(20, drawing)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(prior.sample(20, drawing), many)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(prior.sample(3, drawing), many[:3]) and torch.equal(
        prior.sample(17, drawing), many[:17]
    )
    assert not torch.equal(prior.sample(20, replace(drawing, seed=8)), many)
    assert len(many.flatten(1).unique(dim=0)) > 10


@pytest.mark.parametrize("layout", [GRID, STAGES, replace(STAGES, order="delayed")])
@pytest.mark.parametrize("steps", [None, 5])
def test_known_codes_stay_and_unknown_ones_are_drawn(layout, steps):
    prior = prior_of(layout)
    grid = len(layout.groups), *layout.grid
    codes = random_codes(layout, 5).reshape(5, *grid)
    known = torch.zeros(5, *grid, dtype=torch.bool)
    known[:, :, 0] = True
    watched = []
    found = prior.complete(codes, known, Drawing(steps=steps, seed=1), watched.append)
    assert torch.equal(found[known], codes[known]) and not torch.equal(found, codes)
    assert torch.equal(watched[-1], found) and int((watched[0] < 0).sum()) > 0
    assert all(int(found[:, q].max()) < size for q, size in enumerate(layout.codebook_sizes))


def test_what_is_drawn_depends_on_all_that_is_known():
    prior = prior_of(GRID)
    codes = random_codes(GRID, 1).reshape(1, 1, 3, 4)
    known = torch.ones_like(codes, dtype=torch.bool)
    known[0, 0, 1, 1] = False
    likeliest = Drawing(sampling=Sampling(temperature=0.0))
    found = {
        int(prior.complete(codes.clone().fill_(k), known, likeliest)[0, 0, 1, 1]) for k in range(7)
    }
    assert len(found) > 1


def test_larger_and_smaller_grids_are_completed_window_by_window():
    prior = prior_of(GRID)
    for grid in ((5, 9), (2, 3), (3, 4)):
        codes = torch.zeros(2, 1, *grid, dtype=torch.long)
        codes[:, :, 0, 0] = 6
        known = torch.zeros_like(codes, dtype=torch.bool)
        known[:, :, 0, 0] = True
        found = prior.complete(codes, known, Drawing(seed=2))
        assert (
            found.shape == codes.shape
            and (found[:, :, 0, 0] == 6).all()
            and len(found.unique()) > 3
        )
    covered = torch.zeros(5, 9)
    for window in windows((5, 9), (3, 4)):
        covered[window] += 1
    assert covered.min() >= 1


@pytest.mark.parametrize("layout", [GRID, STAGES])
@pytest.mark.parametrize("steps", [None, 8])
def test_images_that_know_different_codes_are_completed_together_as_alone(layout, steps):
    """Every image has five unknown places, as many in no window as the next one: each of them is
    drawn, and alone.
    """
    prior = prior_of(layout)
    generator = torch.Generator().manual_seed(3)
    codes = torch.full((6, len(layout.groups), 6, 8), 2)
    hidden = torch.stack([torch.randperm(48, generator=generator)[:5] for _ in codes])
    known = ~torch.zeros(6, 48, dtype=torch.bool).scatter_(1, hidden, True).reshape(
        6, 1, 6, 8
    ).expand_as(codes)
    drawing = Drawing(seed=4, steps=steps)
    watched = []
    shares = []
    found = prior.complete(codes, known, drawing, watched.append)
    assert torch.equal(
        found, prior.complete(codes, known, drawing, following(shares.append, 0.5, 1.0, 6))
    )
    assert (
        shares == sorted(shares)
        and shares[0] > 0.5
        and shares[-1] == 1.0
        and len(shares) == len(watched)
    )
    assert torch.equal(found[known], codes[known])
    assert min(len(one[~mask].unique()) for one, mask in zip(found, known, strict=True)) > 1
    assert torch.equal(watched[-1], found)
    assert torch.equal(prior.complete(codes[:1], known[:1], drawing), found[:1])
    assert torch.equal(prior.complete(codes[:4], known[:4], drawing), found[:4])


# ------------------------------------------------------------------------------------------- orders


def test_halton_order_by_hand():
    """Bases 2 and 3: (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9), (5/8, 7/9), ... on two rows
    and three columns.
    """
    assert halton_order((2, 3)).tolist() == [4, 2, 3, 1, 5, 0]
    assert sorted(halton_order((7, 5)).tolist()) == list(range(35))


def test_delayed_order_by_hand():
    """Codebook q of position p in step p + q."""
    order, sizes = Layout((1, 3), (4, 4), (0, 1), "delayed").canonical
    assert order.tolist() == [0, 1, 3, 2, 4, 5] and sizes == [1, 2, 2, 1]


def test_steps_cover_all_codes_and_stay_inside_codebooks():
    slots = torch.arange(12)
    sizes = STAGES.steps(slots, 7)
    assert sum(sizes) == 12 and min(sizes) >= 1 and {4, 8} <= set(itertools.accumulate(sizes))
    assert cosine(49, 12)[0] == 1 and max(cosine(49, 12)) == 7 and sum(cosine(49, 12)) == 49
    assert cosine(5, 5) == [1] * 5 and share_out(7, [4, 4, 4]) == [3, 2, 2]
    with pytest.raises(VqkitError, match="13 steps are more than the 12 codes"):
        STAGES.steps(slots, 13)
    with pytest.raises(VqkitError, match="2 steps are fewer than the 3 codebooks"):
        STAGES.steps(slots, 2)


# ----------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("kwargs", "told", "message"),
    [
        ({"num_classes": 3}, {"classes": ["caot"]}, "no class 'caot', did you mean 'coat'"),
        (
            {"num_classes": 3},
            {"prompts": ["red"]},
            "without captions and takes no prompt; it knows the classes bag",
        ),
        ({}, {"classes": ["coat"]}, "without classes"),
        ({}, {"prompts": ["red"]}, "takes no prompt"),
        ({"captions": True}, {"classes": ["coat"]}, "it takes a prompt"),
        ({}, {"steps": 13}, "13 steps are more than the 12 codes"),
    ],
)
def test_mistakes_are_one_sentence(kwargs, told, message):
    with pytest.raises(VqkitError, match=message) as caught:
        prior_of(GRID, **kwargs).sample(2, Drawing(**told))
    assert "\n" not in str(caught.value)


def test_what_no_prior_can_learn_is_refused():
    with pytest.raises(VqkitError, match="split them"):
        Layout((1, 1), (1 << 19,), (0,))
    with pytest.raises(VqkitError, match="larger patches"):
        Layout((256, 256), (2,), (0,))
    with pytest.raises(ValueError, match="multiple of 4 times num_heads"):
        PriorNetwork(PriorNetworkConfig(width=20, num_heads=2), GRID)


def test_code_bits_are_in_their_places_and_add_up():
    prior = prior_of(replace(STAGES, order="delayed"))
    codes = random_codes(STAGES, 3).reshape(3, 3, 2, 2)
    each = prior.code_bits(codes)
    order = prior.layout.canonical[0]
    nats = prior.network(codes.flatten(1), order.expand(3, -1)).detach().double()
    assert torch.allclose(each.flatten(1)[:, order], nats / math.log(2))
    assert torch.allclose(prior.bits(codes), nats.sum(1) / math.log(2))
    with pytest.raises(ValueError, match="codes must be"):
        prior.code_bits(codes[:, :2])
