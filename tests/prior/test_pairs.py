"""A prior over pairs: what it sums to, which codes each half may have, and what guidance leaves."""

import itertools

import pytest
import torch

from vqkit.config.prior import PriorNetworkConfig
from vqkit.errors import VqkitError
from vqkit.prior.layout import Layout
from vqkit.prior.network import PriorNetwork
from vqkit.prior.pairs import PairLayout, PairPrior, bytes_layout, ended, saved_bits
from vqkit.prior.sampling import Sampling
from vqkit.settings import PairConfig

TINY = PriorNetworkConfig(width=16, num_blocks=2, num_heads=2)
# Two codebooks on two positions, and three positions of one codebook.
IMAGE = Layout((1, 2), (3, 2), (0, 1))
OTHER = Layout((2,), (4,), (0,))


def made(layout: PairLayout, seed: int = 0) -> PairPrior:
    torch.manual_seed(seed)
    network = PriorNetwork(TINY, layout).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return PairPrior(PairConfig(network=TINY), network)


def every(layout: Layout) -> torch.Tensor:
    """All sequences of codes of a half."""
    sizes = [layout.codebook_sizes[place] for place in layout.places.tolist()]
    return torch.tensor(list(itertools.product(*map(range, sizes))))


def every_pair(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.cat(pair) for pair in itertools.product(first, second)])


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("order", ["coarse_first", "delayed"])
def test_probabilities_sum_to_one_in_both_orders(first, order):
    image = Layout((1, 2), (3, 2), (0, 1), order)
    codes = every_pair(every(image), every(OTHER))
    bits = made(PairLayout(image, OTHER)).bits(codes, first)
    assert float(torch.exp2(-bits.sum(1)).sum()) == pytest.approx(1.0, abs=1e-5)
    # The half that comes first has one probability, whatever the other is.
    alone = torch.exp2(-bits[:, first]).reshape(36, 16)
    alone = alone[:, 0] if first == 0 else alone[0]
    assert float(alone.sum()) == pytest.approx(1.0, abs=1e-5)
    spread = bits[:, first].reshape(36, 16).std(1 if first == 0 else 0)
    assert float(spread.max()) < 1e-5


@pytest.mark.parametrize("first", [0, 1])
def test_texts_of_all_lengths_sum_to_one(first):
    """Of three symbols, of which 0 ends a text: an end behind it is no further event."""
    text = Layout((3,), (3,), (0,))
    texts = ended(every(text)).unique(dim=0)
    # 1 + 2 + 4 that end within two letters, and 8 of three letters.
    assert len(texts) == 15
    codes = every_pair(every(OTHER), texts)
    bits = made(PairLayout(OTHER, text)).bits(codes, first)
    assert float(torch.exp2(-bits.sum(1)).sum()) == pytest.approx(1.0, abs=1e-5)


def test_bits_do_not_depend_on_longer_texts_of_the_batch():
    text = Layout((3,), (3,), (0,))
    prior = made(PairLayout(OTHER, text))
    short = torch.tensor([[1, 2, 0, -1, -1]])
    long = torch.tensor([[1, 2, 2, 1, 2]])
    for first in (0, 1):
        together = prior.bits(torch.cat([short, long]), first)[0]
        torch.testing.assert_close(together, prior.bits(short, first)[0], rtol=0, atol=1e-5)


def test_what_halves_save_is_the_same_in_both_orders_where_they_are_one_distribution():
    """Of a network whose logits do not depend on anything, nothing is saved; of costs by hand, the
    mean of 9 - 4 and 6 - 3.
    """
    prior = made(PairLayout(IMAGE, OTHER))
    torch.nn.init.zeros_(prior.network.head.weight)
    costs = prior.costs(every_pair(every(IMAGE)[:3], every(OTHER)[:4]))
    torch.testing.assert_close(saved_bits(costs), torch.zeros(12, dtype=torch.float64))
    assert saved_bits(torch.tensor([[9.0, 6.0, 4.0, 3.0]])).tolist() == [4.0]


def test_ends():
    codes = torch.tensor([[5, 0, 7, 0], [1, 2, 3, 4], [0, 0, 0, 0]])
    assert ended(codes).tolist() == [[5, 0, -1, -1], [1, 2, 3, 4], [0, -1, -1, -1]]


@pytest.mark.parametrize("half", [0, 1])
def test_drawn_codes_are_of_their_half_and_have_its_frequencies(half):
    """Against probabilities counted out code by code."""
    layout = PairLayout(IMAGE, OTHER)
    prior = made(layout)
    sides = (every(IMAGE), every(OTHER))
    given = sides[1 - half][5]
    pairs = [torch.cat([one, given] if half == 0 else [given, one]) for one in sides[half]]
    wanted = torch.exp2(-prior.bits(torch.stack(pairs), 1 - half)[:, half])
    count = 4000
    drawn = prior.draw(half, given.expand(count, -1), seed=1)
    sizes = torch.tensor(layout.halves[half].codebook_sizes)[layout.halves[half].places]
    assert (drawn < sizes).all() and (drawn >= 0).all()
    found = torch.stack([(drawn == one).all(1).double().mean() for one in sides[half]])
    # Four standard deviations of each share, and what rounding makes of none.
    bound = 4 * (wanted * (1 - wanted) / count).sqrt() + 1e-4
    assert ((found - wanted).abs() <= bound).all()


def test_a_drawn_item_depends_on_its_seed_and_number_alone():
    text = Layout((3,), (3,), (0,))
    prior = made(PairLayout(OTHER, text))
    given = torch.tensor([[1, 0, -1], [2, 1, 0], [1, 0, -1], [2, 2, 2]])
    together = prior.draw(0, given, seed=3)
    for count in (1, 2, 3):
        assert torch.equal(prior.draw(0, given[:count], seed=3), together[:count])
    assert not torch.equal(prior.draw(0, given.repeat(8, 1), seed=4)[:4], together)


def test_guidance_compares_with_the_half_alone():
    """With guidance 0 what is given does not matter; with 1 it is the conditional; beyond, what the
    condition speaks for becomes likelier.
    """
    prior = made(PairLayout(IMAGE, OTHER))
    codes = every(OTHER)
    one, other = every(IMAGE)[[3, 30]]
    untold = Sampling(cfg=0.0)
    found = [prior.draw(1, given.expand(64, -1), untold, seed=2) for given in (one, other)]
    assert torch.equal(*found)
    pairs = torch.stack([torch.cat([one, text]) for text in codes])
    told, alone = prior.bits(pairs, 0)[:, 1], prior.bits(pairs, 1)[:, 1]

    # The first code of OTHER alone: logits add up as guidance says, softmax after it.
    def marginal(bits: torch.Tensor) -> torch.Tensor:
        return torch.exp2(-bits).reshape(4, 4).sum(1).log()

    wanted = (marginal(alone) + 3 * (marginal(told) - marginal(alone))).softmax(0)
    drawn = prior.draw(1, one.expand(4000, -1), Sampling(cfg=3.0), seed=5)
    found = torch.bincount(drawn[:, 0], minlength=4) / 4000
    bound = 4 * (wanted * (1 - wanted) / 4000).sqrt() + 1e-4
    assert ((found - wanted).abs() <= bound).all()


def test_halves_share_no_place_and_no_code():
    layout = PairLayout(IMAGE, OTHER)
    mine, others = slice(0, IMAGE.length), slice(IMAGE.length, layout.length)
    for table in (layout.places, layout.slot_groups, layout.rows, layout.columns):
        assert not set(table[mine].tolist()) & set(table[others].tolist())
    assert layout.group_sizes == [3, 2, 4]


def test_too_many_codes_are_refused():
    with pytest.raises(VqkitError, match="larger patches"):
        PairLayout(bytes_layout(1 << 13), bytes_layout((1 << 13) + 1))
