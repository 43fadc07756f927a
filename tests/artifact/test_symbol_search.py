"""A search for codes of text: what it finds beside a plain loop over all codes, and for whom."""

import itertools

import numpy as np
import pytest
import torch

from tests.signals.text.conftest import note
from vqkit.artifact import symbol_search
from vqkit.artifact.build import build_model
from vqkit.artifact.model import Model
from vqkit.artifact.record import Artifact
from vqkit.artifact.symbol_search import PLACES, apart
from vqkit.config import from_tree
from vqkit.data.normalisation import Normalisation
from vqkit.errors import VqkitError
from vqkit.settings import Config
from vqkit.shapes import Shape

STAGE = {"kind": "vq", "codebook_size": 5, "code_dim": 4}
VQ = {**STAGE, "codebook_size": 7, "latent_dim": 6}
PRODUCT = {"kind": "product", "num_groups": 2, "group": {"kind": "fsq", "levels": [2, 3]}}
RESIDUAL = {"kind": "residual", "num_stages": 2, "stage": STAGE}
NETWORK = {"kind": "bytes", "width": 16, "embedding": 4, "encoder_blocks": 1, "decoder_blocks": 1}


def untrained(quantizer, patch_size=2, **more) -> Model:
    """A model of text with random weights, whose decoder looks around and prefers few bytes."""
    torch.manual_seed(0)
    network = {**NETWORK, "patch_size": patch_size, **more}
    tree = {
        "data": {"signal": "text"},
        "model": {"network": network, "quantizer": quantizer},
        "losses": {"distortion": "categorical"},
    }
    config = from_tree(tree, "test", Config)
    normalisation = Normalisation((0.5,), (0.5,))
    network = build_model(config, Shape(1, (64,)), normalisation).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "contract.weight" in name:
                value.normal_(std=0.5)
        # Bytes from 97 on are as likely as not; the others never come back.
        bias = network.decoder.head[1].bias.view(patch_size, 256)
        bias[:, 97:101] += 3
    data = {"name": "nothing", "channels": 1, "size": [64], "signal": "text"}
    data["normalisation"] = normalisation.to_dict()
    return Model(Artifact(config, network, data), "cpu")


def letters(length: int, seed: int = 0) -> torch.Tensor:
    """Of the four that come back, with some that never do: (1, length)."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.choice(np.frombuffer(b"aabbccddz", np.uint8), length))[None]


def decoded(model, codes, values):
    """Where codes (n, q, t) give another byte than values (1, T), (n, T), and the nats of all of
    these, (n,).
    """
    missing = model.network.quantizer.num_codebooks - codes.shape[1]
    rows = np.pad(codes, [(0, 0), (0, missing), (0, 0)], constant_values=-1)
    rows = torch.from_numpy(rows.astype(np.int64))
    shown = model.tokenizer.decode(rows, values.shape[1:], double=True)[:, 0]
    given = model.tokenizer.standardise(values[None]).expand(len(rows), -1, -1)
    with torch.no_grad():
        nats = model.tokenizer._double.nats(given, rows)
    return (shown != values).numpy(), nats.numpy()


def num_wrong(model, codes, values):
    return int(decoded(model, codes[None], values)[0].sum())


def wrong_tiles(model, codes, values):
    (is_wrong,), _ = decoded(model, codes[None], values)
    return sorted(set((np.flatnonzero(is_wrong) // model.network.tile[0]).tolist()))


def best_at(model, codes, values, codebook, place):
    """The best code of all at a place, the present one where none is better."""
    size = model.network.quantizer.codebook_sizes[codebook]
    tried = np.stack([codes] * (size + 1))
    tried[1:, codebook, place] = np.arange(size)
    is_wrong, nats = decoded(model, tried, values)
    count = is_wrong.sum(1)
    best = 0
    for number in range(1, size + 1):
        # Nats are of float32.
        is_likelier = nats[number] < nats[best] - 1e-4
        if count[number] < count[best] or (count[number] == count[best] and is_likelier):
            best = number
    return tried[best]


def by_hand(model, codes, values, num_rounds):
    """One place after the other, each code by what the whole text becomes."""
    far = sum(model.network.decoder_reach)
    for away, codebook in itertools.product(PLACES * num_rounds, range(len(codes))):
        places = [tile + away for tile in wrong_tiles(model, codes, values)]
        for group in apart([one for one in places if 0 <= one < codes.shape[1]], far + 1):
            for place in group:
                if place - away in wrong_tiles(model, codes, values):
                    codes = best_at(model, codes, values, codebook, place)
    return codes


def found_by(model, values, codes, effort):
    codec = model.compressor.codec(effort=effort)
    return symbol_search.search(model.tokenizer, codec, values, codes, lambda share: None)


def start_of(model, values, num_codebooks=None):
    return model.tokenizer.encode_alone(values[None])[0, :num_codebooks].numpy()


@pytest.mark.parametrize("length", [1, 2, 9, 41])
@pytest.mark.parametrize(
    "quantizer, num_codebooks, patch_size", [(VQ, 1, 2), (PRODUCT, 2, 3), (RESIDUAL, 1, 2)]
)
def test_the_search_is_that_of_a_plain_loop(quantizer, num_codebooks, patch_size, length):
    """Of lengths that are shorter than what a byte depends on, and that end within a tile; of a
    residual quantizer without its last stage.
    """
    model = untrained(quantizer, patch_size)
    values = letters(length)
    start = start_of(model, values, num_codebooks)
    expected = by_hand(model, start, values, 2)
    found = found_by(model, values, start, 2)
    assert np.array_equal(found, expected) and found.dtype == start.dtype
    if length == 41:
        assert num_wrong(model, found, values) < num_wrong(model, start, values)


def test_rounds_go_on_to_codes_that_are_further_away(monkeypatch):
    """Two new codes a round: in the end no other code of one place is better."""
    monkeypatch.setattr(symbol_search, "CANDIDATES", 3)
    model = untrained(VQ)
    values = letters(40)
    search = symbol_search._Search(model.tokenizer, values, start_of(model, values))
    search.run(0, search.codes.shape[1], 20)
    found = search.codes.numpy()
    assert wrong_tiles(model, found, values)
    for tile, away in itertools.product(wrong_tiles(model, found, values), PLACES):
        if 0 <= tile + away < found.shape[1]:
            assert np.array_equal(best_at(model, found, values, 0, tile + away), found)


def test_what_is_known_of_wrong_tiles_is_what_is_decoded():
    model = untrained(VQ, decoder_blocks=2)
    values = letters(120)
    search = symbol_search._Search(model.tokenizer, values, start_of(model, values))
    search.run(0, search.codes.shape[1], 1)
    known = search.is_wrong.nonzero()[:, 0].tolist()
    assert known == wrong_tiles(model, search.codes.numpy(), values)


def test_long_texts_are_searched_segment_by_segment(monkeypatch):
    model = untrained(VQ)
    values = letters(200)
    start = start_of(model, values)
    whole = num_wrong(model, found_by(model, values, start, 1), values)
    monkeypatch.setattr(symbol_search, "SEGMENT", 13)
    monkeypatch.setattr(symbol_search, "TOGETHER", 50)
    shares = []
    codec = model.compressor.codec(effort=1)
    found = symbol_search.search(model.tokenizer, codec, values, start, shares.append)
    parts, before = num_wrong(model, found, values), num_wrong(model, start, values)
    assert parts < before and abs(parts - whole) <= (before - whole) / 4
    assert shares == [13 / 100 * number for number in range(1, 8)] + [1.0]


def test_places_apart_are_tried_together():
    assert apart([], 3) == []
    assert apart([1, 2, 3, 4, 5, 9], 3) == [[1, 4, 9], [2, 5], [3]]


# ---------------------------------------------------------------------------------------- for whom


@pytest.mark.parametrize(
    "quantizer",
    [
        {"kind": "fsq", "levels": [17, 17, 17, 17]},
        {"kind": "hierarchical", "top": STAGE, "bottom": STAGE, "latent_dim": 4, "grid_dims": 1},
    ],
)
def test_codes_that_are_too_many_or_on_several_grids_have_no_effort(quantizer):
    model = untrained(quantizer)
    with pytest.raises(VqkitError, match="an effort is for .* of text .*leave the effort out"):
        model.compress(note(0), effort=1)
