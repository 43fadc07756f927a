"""A search for codes: what is paid falls, files stay what they are, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.artifact.test_scalar_files import CODES_OF_ONE, CODES_OF_TWO, by_hand
from tests.untrained import MULTISCALE, STAGE, untrained
from vqkit import cli
from vqkit.artifact import scalar_search
from vqkit.artifact.coder_files import CODER_FILE
from vqkit.artifact.effort import HIGHEST, searched
from vqkit.artifact.operating_points import Rate
from vqkit.artifact.scalar_search import WEIGHT
from vqkit.coding import Bundle, ScalarCoder, ScalarCodes
from vqkit.errors import VqkitError
from vqkit.signals.image.cosine import border_filter

CODES_OF_SQUARES = {"kind": "scalar", "channels": 192, "levels": 63, "step": 0.5}


@pytest.fixture(scope="module")
def squares():
    """An untrained model with a cosine transform, of two stages."""
    stages = {"kind": "residual", "num_stages": 2, "stage": CODES_OF_SQUARES}
    return untrained(network=MULTISCALE, quantizer=stages)


def image(height=40, width=56):
    """Noise over a slope, of which little is worth its bits."""
    rng = np.random.default_rng(0)
    slope = np.linspace(60, 180, height)[:, None, None] + np.linspace(0, 40, width)[:, None]
    return (slope + rng.normal(0, 12, (height, width, 3))).round().clip(0, 255).astype(np.uint8)


def weight_of_a_bit(model, codec):
    values = torch.from_numpy(image(16, 16)).permute(2, 0, 1)[None]
    with torch.no_grad():
        search = scalar_search._Search(model.tokenizer, codec, values)
        return WEIGHT * search._squared_step()


def paid(model, given, weight, **how):
    """Squared error and bits of a file, with all that it holds."""
    data = model.compress(given, **how)
    error = np.square(model.decompress(data).astype(float) - given).sum()
    return error + weight * 8 * len(data)


# ------------------------------------------------------------------------------------- what is paid


def test_a_bit_weighs_a_share_of_a_squared_step(squares):
    """Through an orthonormal transform and the filter over borders, which 7 of 8 squares in a row
    have, of values with a deviation of 0.3.
    """
    codec = squares.compressor.codec(effort=1)
    side = squares.network.tile[0]
    filtered = float(border_filter(side).inverse().square().sum()) / side
    along = (7 * filtered + 1) / 8
    expected = WEIGHT * (0.5 / 3) ** 2 * (0.3 * 255) ** 2 * along**2
    assert weight_of_a_bit(squares, codec) == pytest.approx(expected, rel=0.02)
    one = codec.at(Rate(1, 0.0, 0.0, 0.0, 112))
    assert weight_of_a_bit(squares, one) == pytest.approx(36 * expected, rel=0.02)


def test_what_is_paid_falls_with_the_effort(scalar, images):
    codec = scalar.compressor.codec(effort=1)
    weight = weight_of_a_bit(scalar, codec)
    sums = {}
    for number in (0, 1, HIGHEST):
        sums[number] = [paid(scalar, one, weight, effort=number) for one in images[:3]]
    assert np.less_equal(sums[1], sums[0]).all()
    assert np.less_equal(sums[HIGHEST], sums[0]).all()
    assert sum(sums[HIGHEST]) < 0.95 * sum(sums[0])
    assert sum(sums[HIGHEST]) < sum(sums[1])


@pytest.mark.parametrize("rate", ["lowest", "full"])
def test_what_is_paid_does_not_rise_at_any_rate(scalar, images, rate):
    codec = scalar.compressor.codec(rate=rate, effort=3)
    weight = weight_of_a_bit(scalar, codec)
    before = paid(scalar, images[0], weight, rate=rate)
    assert paid(scalar, images[0], weight, rate=rate, effort=3) <= before


def test_worse_codes_than_those_of_the_start_are_not_taken(squares, monkeypatch):
    values = torch.from_numpy(image()).permute(2, 0, 1)[None]
    codec = squares.compressor.codec(effort=5)
    start = squares.compressor.held(values, squares.compressor.codec())
    (changed,) = searched(squares.tokenizer, codec, values, start)
    assert not np.array_equal(changed, start[0])
    # Codes that are five steps away from what is wanted.
    choose = ScalarCoder.choose
    monkeypatch.setattr(
        ScalarCoder,
        "choose",
        lambda self, codes, wanted, weight: choose(self, codes, wanted + 5, weight),
    )
    (found,) = searched(squares.tokenizer, codec, values, start)
    assert np.array_equal(found, start[0])


@pytest.mark.parametrize(("byte", "gain"), [(112, 0.5), (144, 2.0)])
def test_latents_may_be_multiplied_before_they_are_quantised(squares, byte, gain):
    """What comes back, divided again, is nearer for the bits than that of the start."""
    values = torch.from_numpy(image()).permute(2, 0, 1)[None]
    codec = replace(squares.compressor.codec(effort=5), gain=byte)
    network = squares.network
    with torch.no_grad():
        codes = network.quantizer.encode(squares.tokenizer.latents_alone(values) * gain).numpy()
        start = [ScalarCodes.of(codes[0], codec.engine.levels)]
        found = searched(squares.tokenizer, codec, values, start)

        def cost(codes):
            latents = network.quantizer.decode(torch.from_numpy(np.asarray(codes))) / gain
            shown = squares.tokenizer.restore(network.decode_latents(latents, values.shape[2:]))
            bits = 8 * sum(map(len, codec.engine.encode(codes)[0]))
            weight = WEIGHT * (0.5 / 3 / gain) ** 2 * (0.3 * 255) ** 2
            return float((shown.double() - values).square().sum()) + weight * bits

        assert cost(found) < 0.99 * cost(start)


# -------------------------------------------------------------------------------------------- files


def test_no_effort_leaves_every_byte_as_it_is(scalar, images):
    assert scalar.compress(images[0], effort=0) == scalar.compress(images[0])
    assert scalar.compressor.codec(effort=0) is scalar.compressor.codec()


@pytest.mark.parametrize("number", [1, 4, HIGHEST])
def test_files_of_any_effort_are_files_like_others(scalar, scalar_folder, images, number):
    data = scalar.compress(images[1], effort=number)
    (found,) = scalar.compressor.read(data)
    coder = (scalar_folder / CODER_FILE).read_bytes()
    assert np.array_equal(by_hand(data, coder, (4, 4)), found.codes)
    assert data == scalar.compress(images[1], effort=number)
    assert scalar.decompress(data).shape == images[1].shape


@pytest.mark.parametrize(
    "network, quantizer, extent",
    [
        ({"kind": "patch", "patch_size": 2, "width": 16}, CODES_OF_ONE, (1, 1)),
        ({"kind": "mlp", "widths": [32], "grid": [4, 4]}, CODES_OF_TWO, (20, 33)),
        ({"kind": "conv", "width": 16, "num_downsamplings": 2}, CODES_OF_TWO, (13, 6)),
        (MULTISCALE, {**CODES_OF_SQUARES, "latent_dim": 16}, (24, 9)),
    ],
)
def test_every_network_and_extent_has_a_search(network, quantizer, extent):
    model = untrained(network=network, quantizer=quantizer)
    given = image(*extent)
    weight = weight_of_a_bit(model, model.compressor.codec(effort=4))
    assert paid(model, given, weight, effort=4) <= paid(model, given, weight)


def test_large_images_are_searched_in_parts(squares, monkeypatch):
    given = image(48, 56)
    weight = weight_of_a_bit(squares, squares.compressor.codec(effort=3))
    start = paid(squares, given, weight)
    whole = paid(squares, given, weight, effort=3)
    monkeypatch.setattr(scalar_search, "PART_POSITIONS", 24 * 24)
    monkeypatch.setattr(scalar_search, "MARGIN", 1)
    parts = paid(squares, given, weight, effort=3)
    assert parts < start
    # Parts of three tiles with one around them see less, and win most of it all the same.
    assert start - parts > 0.6 * (start - whole)
    values = torch.from_numpy(given).permute(2, 0, 1)[None]
    codec = squares.compressor.codec(effort=3)
    before = squares.compressor.held(values, squares.compressor.codec())
    shares = []
    after = searched(squares.tokenizer, codec, values, before, progress=shares.append)
    changed = np.asarray(after) != np.asarray(before)
    assert changed.any((0, 1)).all()
    assert shares == [1 / 3, 2 / 3, 1]


def test_the_gradient_of_parts_is_that_of_the_whole(squares, monkeypatch):
    """By finite differences of the squared error of what is decoded, at a few codes."""
    values = torch.from_numpy(image(48, 56)).permute(2, 0, 1)[None]
    codec = squares.compressor.codec(effort=1)
    (start,) = squares.compressor.held(values, squares.compressor.codec())
    with torch.no_grad():
        search = scalar_search._Search(squares.tokenizer, codec, values)
        whole = search._gradient(start)
        numbers = search._numbers(start)

        def error(changed):
            shown = search._decoded(changed, [(0, 6), (0, 7)])
            away = (shown - squares.tokenizer.standardise(values)) * search.deviation
            return float(away.double().square().sum())

        for place in ((0, 0, 0, 0), (0, 5, 3, 2), (0, 100, 5, 6)):
            sides = []
            for change in (0.5, -0.5):
                changed = numbers.clone()
                changed[place] += change
                sides.append(error(changed))
            assert float(whole[place]) == pytest.approx(sides[0] - sides[1], rel=0.02, abs=0.5)
        monkeypatch.setattr(scalar_search, "PART_POSITIONS", 24 * 24)
        parts = scalar_search._Search(squares.tokenizer, codec, values)._gradient(start)
    assert torch.allclose(parts, whole, atol=1e-2)


def test_the_items_of_a_bundle_are_those_of_single_files(scalar, tmp_path, images, monkeypatch):
    for number in range(2):
        Image.fromarray(images[number]).save(tmp_path / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    codec = scalar.compressor.codec(effort=2)
    values = torch.from_numpy(images[:2]).permute(0, 3, 1, 2)
    data = scalar.compressor.write_bundle(scalar.compressor.code(values, codec), codec, ["a", "b"])
    assert len(Bundle(data).header.extents) == 2
    for one, found in zip(images, scalar.compressor.read(data), strict=False):
        (alone,) = scalar.compressor.read(scalar.compress(one, effort=2))
        assert np.array_equal(found.codes, alone.codes)


def test_the_command_takes_an_effort(scalar, scalar_folder, tmp_path, images, capsys):
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    how = ["compress", str(scalar_folder), str(tmp_path / "a.png"), "--effort", "3"]
    assert cli.main([*how, "--out", str(tmp_path / "a.vq")]) == 0
    assert (tmp_path / "a.vq").read_bytes() == scalar.compress(images[0], "a.png", effort=3)
    assert cli.main([*how, "--bundle", "--out", str(tmp_path / "b.vq")]) == 0
    (found,) = scalar.compressor.read((tmp_path / "b.vq").read_bytes())
    (alone,) = scalar.compressor.read(scalar.compress(images[0], effort=3))
    assert np.array_equal(found.codes, alone.codes)
    capsys.readouterr()
    assert cli.main([*how, "--lossless", "--out", str(tmp_path / "c.vq")]) == 2
    assert "lossless files keep every value, whatever the effort" in capsys.readouterr().err
    assert not (tmp_path / "c.vq").exists()


# ---------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("number", [-1, HIGHEST + 1, 2.0, True, "3", None])
def test_other_efforts_are_refused(scalar, images, number):
    with pytest.raises(VqkitError, match="whole number from 0 to 9"):
        scalar.compress(images[0], effort=number)


def test_lossless_files_have_no_effort(scalar, images):
    with pytest.raises(VqkitError, match="lossless files keep every value"):
        scalar.compress(images[0], lossless=True, effort=1)


@pytest.mark.parametrize("quantizer", [STAGE, {**CODES_OF_ONE, "channels": 1}])
def test_models_without_scalar_codes_have_no_effort(quantizer):
    model = untrained(quantizer=quantizer)
    with pytest.raises(VqkitError, match="an effort is for models of scalar codes"):
        model.compress(image(16, 16), effort=1)


# ------------------------------------------------------------------------------------------ lattice


@pytest.mark.parametrize(
    "quantizer, sections", [(CODES_OF_ONE, 1), (CODES_OF_TWO, 1), (CODES_OF_TWO, 2)]
)
def test_values_on_the_lattice_are_those_of_codes(quantizer, sections):
    made = untrained(quantizer=quantizer).network.quantizer
    lattice = made.lattice(sections)
    numbers = torch.randint(-lattice.limit, lattice.limit + 1, (200, made.code_dim))
    with torch.no_grad():
        codes = made.assign_at(numbers * lattice.step, sections, 0.0)
        left_out = torch.full((200, made.num_codebooks - codes.shape[1]), -1)
        found = made.lookup(torch.cat([codes, left_out], 1))
    assert torch.allclose(found, numbers * lattice.step, atol=1e-4)
