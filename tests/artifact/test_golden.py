"""An artifact of an older version, with files that it wrote: everything comes out as it did
then.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vqkit
from tests.coding.second_decoder import read_file as read_by_hand
from vqkit import cli
from vqkit.apps.compress import verify
from vqkit.apps.evaluate import evaluate, open_for
from vqkit.artifact.model import Model
from vqkit.prior.prior import Drawing

FOLDER = Path(__file__).parents[1] / "golden" / "emoji-model"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
FILES = sorted((FOLDER / "files").iterdir())


@pytest.fixture(scope="module")
def old() -> Model:
    return vqkit.load(FOLDER, device="cpu")


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    """images and pixels (5, H, W, C), codes (5, Q, *grid), low (H, W, C), drawn (3, Q, *grid)"""
    with np.load(FOLDER / "expected.npz") as file:
        return dict(file)


def test_it_loads_whole_and_has_its_names(old):
    assert old.artifact.problems == ()
    assert old.content_id == EXPECTED["content_id"]
    assert old.compressor.model_id.hex() == EXPECTED["coding_id"]
    assert old.compressor.codec(lossless=True).model_id.hex() == EXPECTED["lossless_id"]
    assert old.prior is not None and old.prior.has_captions
    assert old.metrics["psnr"] == EXPECTED["psnr"] and old.metrics["usage"] == EXPECTED["usage"]


def test_codes_and_pixels_are_those_of_then(old, recorded):
    codes = old.encode(recorded["images"])
    assert np.array_equal(codes, recorded["codes"])
    assert np.array_equal(
        old.decode(recorded["codes"].astype(np.int64), double=True), recorded["pixels"]
    )


def test_the_files_are_those_that_were_written():
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES} == EXPECTED[
        "files"
    ]


def test_every_file_is_read_as_it_was(old, recorded):
    images = recorded["images"]
    assert np.array_equal(old.decompress(FOLDER / "files" / "codes.vq"), recorded["pixels"][0])
    assert np.array_equal(old.decompress(FOLDER / "files" / "low.vq"), recorded["low"])
    assert np.array_equal(old.decompress(FOLDER / "files" / "lossless.vq"), images[0])
    for name, expected in (("bundle.vq", recorded["pixels"]), ("lossless-bundle.vq", images)):
        items = list(old.compressor.read((FOLDER / "files" / name).read_bytes()))
        values = torch.stack(old.compressor.decode(items))
        assert np.array_equal(values.permute(0, 2, 3, 1), expected)
    assert all(verify(old, path.read_bytes()).error is None for path in FILES)


def test_the_same_files_are_written_again(old, recorded):
    codes = (FOLDER / "files" / "codes.vq").read_bytes()
    lossless = (FOLDER / "files" / "lossless.vq").read_bytes()
    image = recorded["images"][0]
    assert old.compress(image, read_by_hand(codes)[2].decode()) == codes
    assert old.compress(image, read_by_hand(lossless)[2].decode(), lossless=True) == lossless


def test_the_prior_costs_and_draws_what_it_did(old, recorded):
    prior = old.wanted_prior()
    codes = torch.from_numpy(recorded["codes"].astype(np.int64))
    conditional = prior.bits(codes, prior.condition(len(codes), prompts=["cat"]))
    assert conditional.tolist() == pytest.approx(EXPECTED["prior_bits"], abs=1e-3)
    unconditional = [353.59670, 529.37069, 546.62281, 490.01612, 564.61504]
    assert prior.bits(codes).tolist() == pytest.approx(unconditional, abs=1e-3)
    drawn = prior.sample(3, Drawing(prompts=["red heart"], seed=5))
    assert np.array_equal(drawn, recorded["drawn"])


def test_its_figures_can_be_measured_again_on_the_same_splits(old):
    data = open_for(old, "emoji", "test")
    splits = {
        name: hashlib.sha256(np.asarray(ids).tobytes()).hexdigest()
        for name, ids in data.splits.items()
    }
    assert splits == EXPECTED["splits"]
    found = evaluate(old, data)
    assert found.metrics["psnr"] == pytest.approx(EXPECTED["psnr"], abs=1e-4)
    assert found.metrics["usage"] == EXPECTED["usage"]


def test_rates_come_back_with_a_new_coder(tmp_path, recorded, hundred_images):
    """They lay among the figures, which nothing depends on any more."""
    copy = tmp_path / "model"
    shutil.copytree(FOLDER, copy)
    with pytest.raises(
        vqkit.VqkitError, match="rates of this model: none: fit its coder with vqkit train-coder"
    ):
        vqkit.load(copy).compress(recorded["images"][0], rate="low")
    words = ["train-coder", str(copy), str(hundred_images), "--steps", "1", "--force"]
    assert cli.main(words) == 0
    model = vqkit.load(copy, device="cpu")
    assert {"lowest", "full"} <= model.artifact.coders.rates.keys() <= EXPECTED["rates"].keys()
    small, full = (
        len(model.compress(recorded["images"][0], rate=rate)) for rate in ("lowest", "full")
    )
    assert small < full
    assert np.array_equal(model.decompress(FOLDER / "files" / "low.vq"), recorded["low"]), (
        "by the coder that wrote it"
    )
