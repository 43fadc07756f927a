"""What `explain` measures, against hand computations, scikit-learn and models whose answers are
known.
"""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import mutual_info_score

from vqkit.apps.explain import explain
from vqkit.apps.explain.atlas import patch_books
from vqkit.apps.explain.changes import swaps
from vqkit.apps.explain.field import receptive_field
from vqkit.apps.explain.labels import (
    PENALTIES,
    find_column,
    hypergeometric_tail,
    information,
    marks_of,
    presence_of,
    probe,
)
from vqkit.apps.explain.sample import Sample, gather, shrunk
from vqkit.artifact.build import build_model
from vqkit.artifact.model import Model
from vqkit.artifact.record import Artifact
from vqkit.config import from_tree
from vqkit.data.normalisation import Normalisation
from vqkit.errors import VqkitError
from vqkit.settings import Config
from vqkit.shapes import Shape
from vqkit.signals.image.source import ImageData

GENERATOR = np.random.default_rng
PATCH = {"kind": "patch", "patch_size": 4, "width": 16, "encoder_blocks": 1, "decoder_blocks": 1}
VQ = {"kind": "vq", "codebook_size": 16, "code_dim": 8}


def build(network, quantizer, shape=(1, 32, 32), seed=0) -> Model:
    """An untrained model with random weights everywhere: some layers start at zero, which hides
    what they would see.
    """
    torch.manual_seed(seed)
    config = from_tree({"model": {"network": network, "quantizer": quantizer}}, "test", Config)
    channels, *extent = shape
    normalisation = Normalisation((0.5,) * channels, (0.3,) * channels)
    made = build_model(config, Shape(channels, tuple(extent)), normalisation).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.copy_(
                torch.randn_like(value) / math.sqrt(max(value[0].numel(), 1))
                if value.dim() > 1
                else value
            )
    data = {
        "channels": channels,
        "size": extent,
        "name": "test",
        "normalisation": normalisation.to_dict(),
    }
    return Model(Artifact(config, made, data), "cpu")


def noise(count: int, shape=(1, 32, 32), seed=0) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def sample_of(images: torch.Tensor, codes: torch.Tensor) -> Sample:
    extents = np.tile(np.array(images.shape[2:]), (len(images), 1))
    return Sample(np.arange(len(images)), images, codes, extents)


def encoded(model: Model, images: torch.Tensor) -> Sample:
    codes = model.network.encode(model.tokenizer.standardise(images)).detach()
    return sample_of(images, codes)


def measured(model: Model, side: int, count: int = 4):
    x = model.tokenizer.standardise(noise(count, (1, side, side)))
    return receptive_field(model.network, x, torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------------------- receptive field


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        # 4x4 stride 2 twice: 4, then 4 + 3 * 2 = 10; 3x3 at stride 4: + 8; each residual 3x3: + 8
        ({"kind": "conv", "num_downsamplings": 2, "width": 8, "num_blocks": 2}, 10 + 8 + 8 + 8),
        ({"kind": "conv", "num_downsamplings": 1, "width": 8, "num_blocks": 1}, 4 + 4 + 4),
        # squares of 4, and one more on each side for every depthwise 3x3
        (PATCH, 4 * 3),
        (PATCH | {"patch_size": 2, "encoder_blocks": 3}, 2 * 7),
    ],
)
def test_the_receptive_field_is_what_layers_add_up_to(network, expected):
    assert measured(build(network, VQ), 64).extent == (expected, expected)


def test_the_field_of_a_fully_connected_tile_is_the_tile():
    model = build({"kind": "mlp", "widths": [32], "grid": [4, 4]}, VQ, (1, 16, 16))
    field = measured(model, 48)  # three tiles of 16 pixels a side
    assert field.extent == (16, 16) and field.cell == (4, 4)


def test_the_effective_field_holds_its_share_and_one_pixel_less_does_not():
    field = measured(build(PATCH | {"encoder_blocks": 2}, VQ), 64)
    top, left = 4 * field.place[0], 4 * field.place[1]

    def inside(margin):
        return field.energy[
            top - margin : top + 4 + margin, left - margin : left + 4 + margin
        ].sum()

    assert inside(field.margin) >= 0.95 > inside(field.margin - 1)
    assert field.energy.sum() == pytest.approx(1) and field.side == (4 + 2 * field.margin,) * 2


def test_a_linear_encoder_has_the_energy_of_its_weights():
    """One stride-2 layer without a nonlinearity in its way: the energy of a pixel is the sum of its
    squared weights.
    """
    model = build({"kind": "conv", "num_downsamplings": 1, "width": 8, "num_blocks": 1}, VQ)
    layer = torch.nn.Conv2d(1, 8, 4, 2, 1)
    model.network.encoder = layer
    field = measured(model, 32, 100)
    expected = layer.weight.detach().square().sum((0, 1)).double().numpy()
    row, column = field.place
    found = field.energy[2 * row - 1 : 2 * row + 3, 2 * column - 1 : 2 * column + 3]
    assert found.sum() == pytest.approx(1)
    expected /= expected.sum()
    assert np.abs(found / expected - 1).max() < 0.2, "800 random directions"


# -------------------------------------------------------------------------------------------- atlas


def test_means_and_positions_are_those_of_a_plain_loop():
    model = build(PATCH, VQ, (3, 16, 16))
    sample = encoded(model, noise(20, (3, 16, 16)))
    x = model.tokenizer.standardise(sample.values)
    field = receptive_field(model.network, x, torch.Generator().manual_seed(0))
    book = patch_books(model, sample, field)[0]
    patches: dict[int, list[np.ndarray]] = {}
    places = np.zeros((16, 4, 4), int)
    margin = field.margin
    for image, codes in zip(sample.values.numpy(), sample.codes[:, 0].numpy(), strict=True):
        wide = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
        for row, column in np.ndindex(4, 4):
            cut = wide[
                :, 4 * row : 4 * row + 4 + 2 * margin, 4 * column : 4 * column + 4 + 2 * margin
            ]
            patches.setdefault(int(codes[row, column]), []).append(cut.transpose(1, 2, 0))
            places[codes[row, column], row, column] += 1
    assert sorted(book.codes) == sorted(patches) and book.counts.sum() == 20 * 16
    for row, code in enumerate(book.codes):
        assert np.abs(book.means[row] - np.mean(patches[code], 0)).max() <= 0.51
        assert (book.positions[row] == places[code]).all()
        for patch in book.typical[row][: book.num_typical[row]]:
            assert any((patch == one).all() for one in patches[code]), (
                "a typical patch is cut from an image"
            )
    assert (np.diff(book.counts[book.codes]) <= 0).all()


def test_typical_patches_are_the_nearest_and_of_different_images():
    """Constant images of known brightness, all of one code: nearest to the mean brightness, one
    patch of each.
    """
    model = build(PATCH, VQ)
    images = (
        torch.tensor([10, 100, 104, 110, 200])
        .byte()[:, None, None, None]
        .expand(5, 1, 32, 32)
        .contiguous()
    )
    sample = sample_of(images, torch.zeros(5, 1, 8, 8, dtype=torch.long))
    field = measured(model, 32)
    book = patch_books(model, sample, field)[0]
    assert int(book.means[0].mean().round()) == 105 and book.num_typical[0] == 5
    assert [int(patch.mean()) for patch in book.typical[0][:5]] == [104, 100, 110, 10, 200], (
        "the mean is 104.8"
    )


def test_later_residual_stages_show_what_the_earlier_left_over():
    model = build(PATCH, {"kind": "residual", "num_stages": 2, "stage": VQ})
    sample = encoded(model, noise(8))
    found = patch_books(model, sample, measured(model, 32))
    assert [book.name for book in found] == ["stage 1", "stage 2"]
    first = sample.codes.clone()
    first[:, 1] = -1
    left = sample.values.float() - model.tokenizer.decode(first).float()
    code = int(found[1].codes[0])
    where = sample.codes[:, 1] == code
    middles = (
        left.reshape(8, 8, 4, 8, 4).permute(0, 1, 3, 2, 4)[where].mean(0)
    )  # the cells themselves
    margin = measured(model, 32).margin
    shown = found[1].means[0][margin : margin + 4, margin : margin + 4, 0].astype(float)
    expected = (128 + found[1].gain * middles).round().clamp(0, 255).numpy()
    assert found[0].gain == 0 and np.abs(shown - expected).max() <= 1


def test_images_shrink_by_averaging():
    pixels = (
        torch.tensor([[0, 100], [100, 200]]).repeat_interleave(8, 0).repeat_interleave(8, 1)[None]
    )
    assert shrunk(pixels, 2)[..., 0].tolist() == [[0, 100], [100, 200]] and shrunk(
        pixels, 16
    ).shape == (16, 16, 1)


# ------------------------------------------------------------------------------------------- labels


def test_mutual_information_is_that_of_scikit_learn_and_chance_is_chance():
    random = GENERATOR(0)
    labels = random.integers(0, 4, 600)
    told = np.where(random.random(600) < 0.7, labels + 10, random.integers(0, 30, 600))
    codes = np.stack([told, random.integers(0, 30, 600), np.zeros(600, int), labels], 1)
    found = information(codes[..., None], labels, GENERATOR(1))
    expected = [mutual_info_score(labels, column) / math.log(2) for column in codes.T]
    assert found.bits == pytest.approx(expected, abs=1e-9)
    assert found.p_values[0] == found.p_values[3] == pytest.approx(1 / 200)
    assert found.p_values[1] > 0.05 and found.p_values[2] == 1
    # about (K - 1)(L - 1) / 2N nats come from counting alone (Miller and Madow)
    assert found.chance[1] == pytest.approx(29 * 3 / (2 * 600 * math.log(2)), rel=0.15)
    assert found.net[1] < 0.02 < found.net[0] and found.net[2] == pytest.approx(0, abs=1e-9)


def test_labels_that_nothing_knows_are_not_significant():
    """20 draws of independent codes and labels: p below 0.05 about once, as a p value promises."""
    found = [
        information(
            GENERATOR(s).integers(0, 8, (120, 6, 1)),
            GENERATOR(99 + s).integers(0, 3, 120),
            GENERATOR(7),
        )
        for s in range(20)
    ]
    assert sum(one.p_value <= 0.05 for one in found) <= 3
    assert sum(one.p_values.min() <= 0.05 for one in found) <= 3


def test_the_hypergeometric_tail_is_that_of_counting():
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 53)))])
    hands = sum(math.comb(4, aces) * math.comb(48, 5 - aces) for aces in (2, 3, 4)) / math.comb(
        52, 5
    )
    assert hypergeometric_tail(2, 5, 4, logs) == pytest.approx(hands)
    assert hypergeometric_tail(0, 5, 4, logs) == pytest.approx(1)


def test_codes_that_mark_a_label_are_found_and_no_others():
    random = GENERATOR(0)
    labels = random.integers(0, 3, 300)
    codes = random.integers(0, 20, (300, 4))
    codes[(labels == 2) & (random.random(300) < 0.8), 0] = 25
    shown = np.unique(codes)
    presence = presence_of(codes, shown, labels, 3)
    row = int(np.flatnonzero(shown == 25)[0])
    assert presence[row].tolist() == [0, 0, int(((codes == 25).any(1)).sum())]
    marks = marks_of(presence, np.bincount(labels))
    assert [(mark.row, mark.label) for mark in marks] == [(row, 2)]
    assert marks[0].lift == pytest.approx(300 / (labels == 2).sum())


def test_the_probe_reads_what_is_there_and_guesses_where_nothing_is():
    model = build(PATCH, VQ)
    labels = [str(index % 2) for index in range(600)]
    images = noise(600)
    images[1::2, :, 8:16, 8:16] = 255
    whole = encoded(model, images)
    cuts = slice(0, 300), slice(300, 400), slice(400, 600)
    parts = [
        Sample(whole.indices[cut], whole.values[cut], whole.codes[cut], whole.extents[cut])
        for cut in cuts
    ]
    found = probe(model, parts, labels)
    assert min(found.accuracy.values()) > 0.9 and found.majority == 0.5
    pixels = [
        model.tokenizer.standardise(part.values).flatten(1).double().numpy() for part in parts
    ]
    told = [np.array(labels)[part.indices].astype(int) for part in parts]
    scale = ((pixels[0] - pixels[0].mean(0)) ** 2).sum(1).mean()  # of a strength of one
    guesses = [
        Ridge(alpha=strength * scale).fit(pixels[0], told[0]).predict for strength in PENALTIES
    ]
    errors = [np.square(guess(pixels[1]) - told[1]).mean() for guess in guesses]
    best = guesses[int(np.argmin(errors))]
    assert found.accuracy["pixels"] == pytest.approx(((best(pixels[2]) > 0.5) == told[2]).mean())
    shuffled = [labels[int(index)] for index in GENERATOR(0).permutation(600)]
    blind = probe(model, parts, shuffled)
    assert max(abs(value - 0.5) for value in blind.accuracy.values()) < 3 * 0.0354
    empty = whole.first(0)
    assert probe(model, [parts[0], empty, parts[2]], labels) is None


# ------------------------------------------------------------------------------------------ changes


def test_a_swap_changes_what_it_says_and_nothing_far_away():
    model = build(PATCH, VQ)
    sample = encoded(model, noise(6))
    book = patch_books(model, sample, measured(model, 32))[0]
    code, other = int(book.codes[0]), int(book.codes[1])
    found = swaps(model, sample, book, [(code, other)], sample)[0]
    row, column = found.place
    assert (found.code, found.other) == (code, other)
    assert int(sample.codes[found.item, 0, row, column]) == code and found.places[row, column]
    by_hand = sample.codes[found.item : found.item + 1].clone()
    by_hand[0, 0, row, column] = other
    before, after = (
        model.tokenizer.decode(codes)[0].permute(1, 2, 0).numpy().astype(float)
        for codes in (sample.codes[[found.item]], by_hand)
    )
    assert (found.shown[0] == before).all() and (found.shown[1] == after).all()
    assert found.here == pytest.approx(np.sqrt(((after - before) ** 2).mean()), rel=1e-5)
    moved = np.abs(after - before).max(2)
    moved[max(0, 4 * row - 4) : 4 * row + 8, max(0, 4 * column - 4) : 4 * column + 8] = 0
    assert moved.max() == 0, "one block of the decoder reaches one cell further"
    with pytest.raises(VqkitError, match="0 to 15"):
        swaps(model, sample, book, [(0, 16)], sample)
    training = encoded(model, noise(6))
    sample.codes[sample.codes == code] = other
    found = swaps(model, sample, book, [(code, other)], training)[0]
    assert int(training.codes[found.item, 0, found.place[0], found.place[1]]) == code
    with pytest.raises(VqkitError, match="occurs in none"):
        swaps(model, sample, book, [(code, other)], sample)


# -------------------------------------------------------------------------------------------- whole


def test_everything_together_on_a_trained_model(model, emoji):
    shares = []
    found = explain(model, emoji, num=300, progress=shares.append)
    assert (
        found.metrics["items"] == 300
        and found.metrics["examples"] == 149
        and found.metrics["split"] == "test"
    )
    assert shares == sorted(shares) and shares[-1] <= 1
    book = found.books[0]
    assert book.counts.sum() == 300 * 64 and found.metrics["perplexity"] == pytest.approx(
        book.perplexity
    )
    assert found.labels.column == "group" and len(found.labels.names) == len(set(emoji.groups))
    assert found.labels.information.bits.shape == (1, 8, 8)
    assert found.importance.shape == (8, 8) and found.importance.min() > 0
    # The coder of files, as there is no prior.
    assert found.peel is None and found.surprise.source == "coder"
    first, second = explain(model, emoji, num=40), explain(model, emoji, num=40)
    assert (first.labels.information.p_values == second.labels.information.p_values).all()
    assert (first.field.energy == second.field.energy).all()


@pytest.mark.parametrize(
    ("quantizer", "codes"),
    [
        ({"kind": "residual", "num_stages": 3, "stage": VQ}, (64, 128, 192)),
        ({"kind": "pyramid", "num_grids": 3, "stage": VQ}, (4, 20, 84)),
    ],
    ids=["residual", "pyramid"],
)
def test_stages_are_peeled_one_by_one(quantizer, codes, emoji):
    model = build(PATCH, quantizer, (3, 32, 32))
    found = explain(model, emoji, num=64).peel
    assert found.stages == [1, 2, 3] and found.bits == [4.0 * count for count in codes]
    last = gather(model, emoji, "test", 64)
    assert (
        found.shown[-1] == model.tokenizer.decode(last.codes[:12]).permute(0, 2, 3, 1).numpy()
    ).all()
    assert (found.originals == last.values[:12].permute(0, 2, 3, 1).numpy()).all()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("colour", "no label column 'colour' .it has: group, caption"),
        ("caption", "different values"),
    ],
)
def test_labels_that_are_missing_or_no_classes_are_refused(column, message, model, emoji):
    with pytest.raises(VqkitError, match=message):
        explain(model, emoji, label_column=column)


def test_without_labels_there_is_a_page_without_them(model, emoji):
    bare = ImageData.__new__(ImageData)
    bare.__dict__ = {**emoji.__dict__, "groups": None, "captions": None}
    with pytest.raises(VqkitError, match="it has: none"):
        find_column(bare, "group")
    found = explain(model, bare, num=64)
    assert found.labels is None and found.probe is None and "label_bits" not in found.metrics


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [({"kind": "none"}, "no codes"), ({"kind": "lfq", "bits": 24}, "too many to count")],
)
def test_models_without_countable_codes_are_refused(quantizer, message, emoji):
    with pytest.raises(VqkitError, match=message):
        explain(build(PATCH, quantizer, (3, 32, 32)), emoji)


@pytest.mark.parametrize(
    "quantizer",
    [
        {"kind": "fsq", "levels": [4, 4]},
        {"kind": "lfq", "bits": 5},
        {"kind": "product", "num_groups": 2, "group": VQ},
        {"kind": "residual", "num_stages": 2, "stage": VQ, "shared_codebook": True},
        {"kind": "hierarchical", "top": VQ, "bottom": VQ, "latent_dim": 8},
        {"kind": "pyramid", "num_grids": 2, "stage": VQ},
    ],
    ids=lambda quantizer: quantizer["kind"],
)
def test_every_family_can_be_explained(quantizer, emoji):
    found = explain(build(PATCH, quantizer, (3, 32, 32)), emoji, num=32)
    places = found.labels.information.bits.shape[0]
    assert len(found.places) == places and sum(
        book.counts.sum() for book in found.books
    ) == 32 * places * (16 if quantizer["kind"] in ("hierarchical", "pyramid") else 64)
    assert len(asdict(replace(found, books=found.books[:1]))["books"]) == 1
