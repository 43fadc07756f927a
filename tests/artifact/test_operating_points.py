"""Fewer bits for coarser images: codes are chosen as they cost, stages left out, and the files
still decode.
"""

import numpy as np
import pytest
import torch
from PIL import Image

import vqkit
from tests.coding.test_integer_prior import random_prior
from tests.conftest import TINY
from tests.untrained import STAGE, untrained
from vqkit import cli
from vqkit.artifact.coder_files import save_coders
from vqkit.artifact.operating_points import NAMES, Rate, offered
from vqkit.artifact.store import save_artifact
from vqkit.coding import describe
from vqkit.config.loading import load
from vqkit.errors import VqkitError
from vqkit.pipelines.autoencoder import _weighs_bits
from vqkit.settings import Config


def decibels(one, other):
    return 10 * np.log10(255**2 / np.square(one.astype(float) - other).mean())


def test_a_code_is_chosen_by_distance_and_bits():
    """Every choice, against the cost of each code under what was chosen before it."""
    prior, rng = random_prior((12,), grid=(2, 3)), np.random.default_rng(0)
    far = rng.random((4, 6, 12)).astype(np.float32)

    def distances(items, before, slots):
        return far[items, slots]

    nearest = prior.assign(distances, 4, (2, 3), 1, 0.0)
    assert np.array_equal(nearest.reshape(4, 6), far.argmin(2))
    codes = prior.assign(distances, 4, (2, 3), 1, 0.3)
    ((_, _, table),) = prior.tables(codes, 0)
    bits = 16 - np.log2(table)
    assert np.array_equal(codes.reshape(4, 6), (far + 0.3 * bits).argmin(2))
    sizes = [
        sum(len(part) for item in prior.encode(some) for part in item) for some in (codes, nearest)
    ]
    assert sizes[0] < sizes[1]


def test_distances_of_a_residual_quantizer_are_to_what_its_stages_make(residual):
    quantizer = residual.network.quantizer
    tokens = torch.randn(5, quantizer.code_dim)
    with torch.no_grad():
        before = quantizer.assign(tokens)[:, :1]
        found = quantizer.distances(tokens, before)
        for code in range(found.shape[1]):
            whole = torch.cat([before, torch.full((5, 1), code), torch.full((5, 1), -1)], 1)
            assert torch.allclose(
                found[:, code], (tokens - quantizer.lookup(whole)).square().sum(1), atol=1e-4
            )


def test_points_that_are_offered():
    points = [
        Rate(1, 0.0, 100, 20),
        Rate(1, 0.1, 80, 19),
        Rate(2, 0.0, 200, 25),
        Rate(2, 0.1, 150, 18),
    ]
    found = offered(points)
    assert (
        found["full"] == points[2]
        and found["lowest"] == points[1]
        and points[3] not in found.values()
    )
    assert offered([]) == {} and set(offered(points[2:3])) == {"full"}


def test_lower_rates_are_smaller_files_that_decode(residual, emoji, tmp_path):
    image = emoji.read(emoji.splits["test"][:1]).values[0].permute(1, 2, 0).numpy()
    assert set(residual.artifact.coders.rates) == set(NAMES)
    sizes = {name: len(residual.compress(image, rate=name)) for name in NAMES}
    assert (
        sizes["lowest"] < sizes["full"] and residual.artifact.coders.rates["lowest"].num_stages < 3
    )
    assert residual.compress(image, rate="full") == residual.compress(image)
    shown = residual.decompress(residual.compress(image, rate="lowest"))
    assert shown.shape == image.shape and decibels(shown, image) > 8
    with pytest.raises(VqkitError, match="rates of this model: .*full"):
        residual.compress(image, rate="tiny")
    with pytest.raises(VqkitError, match="lossless"):
        residual.compress(image, rate="low", lossless=True)


@pytest.mark.parametrize(
    ("quantizer", "words"),
    [
        ({"kind": "product", "num_groups": 2, "group": STAGE}, "no rates: ProductQuantizer"),
        (
            {"kind": "hierarchical", "top": STAGE, "bottom": STAGE},
            "no rates: HierarchicalQuantizer",
        ),
        ({"kind": "lfq", "bits": 15}, "no rates: its codebooks have more than 16384"),
        (STAGE, "train-coder"),
    ],
)
def test_models_that_can_have_no_rates_say_so(quantizer, words):
    with pytest.raises(VqkitError, match=words):
        untrained(quantizer=quantizer).compress(np.zeros((16, 16, 3), np.uint8), rate="full")


def test_too_few_bits_are_said_where_codes_cannot_be_weighed(tmp_path, emoji):
    quantizer = "model.quantizer={kind: product, num_groups: 2, group: {kind: vq, code_dim: 8}}"
    settings = [*(one for one in TINY if "quantizer" not in one), "train.steps=1", "coder.steps=1"]
    model = vqkit.train("emoji", tmp_path / "run", "emoji", [*settings, quantizer])
    image = emoji.read(emoji.splits["test"][:1]).values[0].permute(1, 2, 0).numpy()
    whole = model.compress(image)
    bits = 8 * len(whole) / image[..., 0].size
    assert model.compress(image, rate=bits) == whole
    with pytest.raises(VqkitError, match=f"smallest file .* has {bits:.3f} bits"):
        model.compress(image, rate=0.9 * bits)


def test_rates_from_the_command_line(residual, emoji, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_artifact(residual.artifact, tmp_path / "model")
    save_coders(residual.artifact, tmp_path / "model")
    assert vqkit.load("model").artifact.coders.rates == residual.artifact.coders.rates
    for number in range(3):
        pixels = (
            emoji.read(emoji.splits["test"][number : number + 1]).values[0].permute(1, 2, 0).numpy()
        )
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    files = ["0.png", "1.png", "2.png"]
    for rate in ("lowest", "full"):
        assert (
            cli.main(
                ["compress", "model", *files, "--bundle", "--out", f"{rate}.vq", "--rate", rate]
            )
            == 0
        )
        assert cli.main(["decompress", f"{rate}.vq", "--model", "model", "--out-dir", rate]) == 0
        assert len(list((tmp_path / rate).iterdir())) == 3
    assert (tmp_path / "lowest.vq").stat().st_size < (tmp_path / "full.vq").stat().st_size
    with open(tmp_path / "lowest.vq", "rb") as stream:
        assert (
            describe(stream).header.num_codebooks
            == residual.artifact.coders.rates["lowest"].num_stages
        )
    assert cli.main(["compress", "model", "0.png", "--out", "x.vq", "--rate", "best"]) != 0
    assert not (tmp_path / "x.vq").exists()


@pytest.mark.parametrize(("recipe", "expected"), [("rates", True), ("images", False)])
def test_the_report_is_told_of_rates_anywhere_in_the_quantizer(recipe, expected):
    assert _weighs_bits(load(recipe, (), Config).model.quantizer.model_dump()) is expected
