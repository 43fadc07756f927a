"""Codes as the sequences of a language model, beside sequences written by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqkit.tokens.sequences import ORDERS, BadTokens, Sequences
from vqkit.tokens.vocabulary import Vocabulary, whole_number_type

# Two places with codebooks of their own, 10 and 5 codes; ids 100 to 109, 110 to 114, then bos, eos
# and pad.
TWO = Vocabulary((10, 5), (0, 1), base=100)
CODES = np.array([[[[1, 2], [3, 4]], [[0, 1], [2, 3]]]])  # (1, 2, 2, 2)


@pytest.mark.parametrize(
    "order, inside",
    [
        ("raster", [101, 110, 102, 111, 103, 112, 104, 113]),
        ("coarse-first", [101, 102, 103, 104, 110, 111, 112, 113]),
        # Columns of two: the second place comes a column late, and 117 stands where one is missing.
        ("delay", [101, 117, 102, 110, 103, 111, 104, 112, 117, 113]),
    ],
)
def test_an_item_reads_as_the_order_says(order, inside):
    sequences = Sequences(TWO, order)
    assert sequences.tokens(CODES).tolist() == [[115, *inside, 116]]
    assert sequences.length((2, 2)) == len(inside) + 2
    assert (sequences.codes(np.array([115, *inside, 116]), (2, 2)) == CODES[0]).all()


def test_ids_of_a_vocabulary_follow_one_another_and_places_may_share_them():
    assert TWO.special == {"bos": 115, "eos": 116, "pad": 117} and TWO.size == 118
    shared = Vocabulary((8, 8, 4), (0, 0, 1))
    assert shared.offsets.tolist() == [0, 0, 8] and shared.size == 8 + 4 + 3
    config = TWO.omnimodal_config("image")
    (only,) = config["modalities"]
    assert config["base_vocab_size"] == only["offset"] == 100
    # Every id of ours lies within, and the next free one behind.
    assert only["offset"] + only["vocab_size"] == TWO.size
    assert (only["start_token"], only["end_token"]) == (115, 116)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(0, 10**6),
    st.sampled_from(ORDERS),
    st.randoms(),
)
def test_codes_come_back(sizes, grid, base, order, random):
    vocabulary = Vocabulary(tuple(sizes), tuple(range(len(sizes))), base)
    assert Vocabulary.from_dict(vocabulary.describe()) == vocabulary
    cells = np.prod(grid)
    codes = np.array([[[random.randrange(size) for _ in range(cells)] for size in sizes]])
    codes = codes.reshape(1, len(sizes), *grid)
    sequences = Sequences(vocabulary, order)
    (tokens,) = sequences.tokens(codes)
    assert base <= tokens.min() and tokens.max() < vocabulary.size
    assert (sequences.codes(tokens, grid) == codes[0]).all()


@pytest.mark.parametrize("order", ORDERS)
def test_every_token_that_cannot_stand_where_it_does_is_refused(order):
    sequences = Sequences(TWO, order)
    (good,) = sequences.tokens(CODES)
    for position in range(len(good)):
        # Below the vocabulary, and the one behind it.
        for wrong in (99, 118):
            tokens = good.copy()
            tokens[position] = wrong
            with pytest.raises(BadTokens, match=str(wrong)):
                sequences.codes(tokens, (2, 2))
    with pytest.raises(BadTokens, match=f"{len(good)} tokens, not {len(good) - 1}"):
        sequences.codes(good[:-1], (2, 2))
    # A code of the first codebook where one of the second stands.
    swapped = good.copy()
    swapped[good == 113] = 104
    with pytest.raises(BadTokens, match="place 1 at position 3 is 104"):
        sequences.codes(swapped, (2, 2))


def test_a_damaged_vocabulary_is_no_vocabulary():
    good = TWO.describe()
    bad = [
        {**good, "size": 117},
        {**good, "codebooks": good["codebooks"][:1]},
        {**good, "codebooks": [{"offset": 100, "size": 10, "places": [0, 7]}]},
        {**good, "special": {"bos": 0}},
    ]
    for found in bad:
        with pytest.raises(ValueError):
            Vocabulary.from_dict(found)


def test_codes_take_the_smallest_type_that_holds_them():
    assert whole_number_type([65536]) == np.uint16
    assert whole_number_type([512, 65537]) == np.uint32
    with pytest.raises(ValueError):
        whole_number_type([(1 << 32) + 1])
