"""Codes as the sequences of a language model, beside sequences written by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqkit.errors import VqkitError
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


def test_row_ends_stand_behind_rows_and_planes():
    ended = Vocabulary((10, 5), (0, 1), base=100, has_row_ends=True)
    sequences = Sequences(ended, "raster")
    inside = [101, 110, 102, 111, 118, 103, 112, 104, 113, 118]
    assert sequences.tokens(CODES).tolist() == [[115, *inside, 116]]
    assert (sequences.codes(np.array([115, *inside, 116]), (2, 2)) == CODES[0]).all()
    # Two planes of two rows of one position, of one codebook of four codes; row_end is 7.
    volume = Sequences(Vocabulary((4,), (0,), has_row_ends=True), "raster")
    tokens = [4, 0, 7, 1, 7, 7, 2, 7, 3, 7, 7, 5]
    assert volume.tokens(np.arange(4).reshape(1, 1, 2, 2, 1)).tolist() == [tokens]
    assert volume.grid_of(np.array(tokens), 3) == (2, 2, 1)
    with pytest.raises(VqkitError, match="raster alone"):
        Sequences(ended, "delay")
    assert ended.special["row_end"] == 118 and ended.size == 119
    (modality,) = ended.omnimodal_config("image")["modalities"]
    assert modality["structure_token_ids"] == [117, 118] and modality["vocab_size"] == 19


def test_tokens_whose_rows_are_of_no_grid_are_refused():
    sequences = Sequences(Vocabulary((4,), (0,), has_row_ends=True), "raster")
    for wrong in ([4, 0, 1, 5], [4, 7, 0, 7, 5], [4], []):
        with pytest.raises(BadTokens, match="not those of a grid"):
            sequences.grid_of(np.array(wrong, np.int64), 2)
    # Rows of two lengths, and a row that does not end.
    for wrong in ([4, 0, 1, 7, 2, 7, 5], [4, 0, 1, 7, 2, 3, 5]):
        tokens = np.array(wrong)
        with pytest.raises(BadTokens):
            sequences.codes(tokens, sequences.grid_of(tokens, 2))


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
    st.sampled_from([*ORDERS, "raster with row ends"]),
    st.randoms(),
)
@settings(deadline=None)
def test_codes_come_back(sizes, grid, base, order, random):
    order, *row_ends = order.split(" ", 1)
    vocabulary = Vocabulary(tuple(sizes), tuple(range(len(sizes))), base, bool(row_ends))
    assert Vocabulary.from_dict(vocabulary.describe()) == vocabulary
    cells = np.prod(grid)
    codes = np.array([[[random.randrange(size) for _ in range(cells)] for size in sizes]])
    codes = codes.reshape(1, len(sizes), *grid)
    sequences = Sequences(vocabulary, order)
    (tokens,) = sequences.tokens(codes)
    assert base <= tokens.min() and tokens.max() < vocabulary.size
    assert (sequences.codes(tokens, grid) == codes[0]).all()
    assert len(tokens) == sequences.length(grid)
    if row_ends and len(grid) > 1:
        assert sequences.grid_of(tokens, len(grid)) == tuple(grid)


@pytest.mark.parametrize("order", [*ORDERS, "raster with row ends"])
def test_every_token_that_cannot_stand_where_it_does_is_refused(order):
    order, *row_ends = order.split(" ", 1)
    sequences = Sequences(Vocabulary((10, 5), (0, 1), 100, bool(row_ends)), order)
    (good,) = sequences.tokens(CODES)
    for position in range(len(good)):
        # Below the vocabulary, and the one behind it.
        for wrong in (99, 119):
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
        {**good, "special": {**good["special"], "row_end": 200}},
    ]
    for found in bad:
        with pytest.raises(ValueError):
            Vocabulary.from_dict(found)


def test_codes_take_the_smallest_type_that_holds_them():
    assert whole_number_type([65536]) == np.uint16
    assert whole_number_type([512, 65537]) == np.uint32
    with pytest.raises(ValueError):
        whole_number_type([(1 << 32) + 1])
