"""Batches of priors: smaller where items have many codes, unless the user says how large."""

import pytest
import torch

from vqkit.config import load
from vqkit.pipelines.choosing import batch_that_fits
from vqkit.settings import PairConfig, PriorConfig


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("length", "found"),
    [(64, []), (512, []), (513, [63]), (6144, [5]), (1 << 14, [2])],
)
@pytest.mark.parametrize(("kind", "recipe"), [(PriorConfig, "prior"), (PairConfig, "pair")])
def test_a_step_has_few_enough_codes(kind, recipe, length, found):
    config = load(recipe, [], kind)
    assert config.train.batch_size == 64
    expected = [f"train.batch_size={size}" for size in found]
    assert batch_that_fits(config, length, recipe, []) == expected
    assert all(size * length <= 1 << 15 < (size + 1) * length for size in found)


def test_what_the_user_says_stays(tmp_path, monkeypatch):
    for override in ("train.batch_size=64", "train.accumulate=4"):
        config = load("prior", [override], PriorConfig)
        assert batch_that_fits(config, 6144, "prior", [override]) == []
    own = tmp_path / "own.yaml"
    own.write_text("train: {batch_size: 64}\n")
    config = load(own, [], PriorConfig)
    assert batch_that_fits(config, 6144, str(own), []) == []
    # On a GPU it is no trouble.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert batch_that_fits(load("prior", [], PriorConfig), 6144, "prior", []) == []
