"""Batches of priors: smaller where items have many codes, unless the user says how large."""

import pytest
import torch

from vqkit.config import load
from vqkit.pipelines.choosing import with_batch_that_fits
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
    fitted, overrides, notes = with_batch_that_fits(config, length, recipe, ["seed=0"])
    assert overrides == ["seed=0", *(f"train.batch_size={size}" for size in found)]
    assert [fitted.train.batch_size] == (found or [64])
    assert [f"{length:,} codes" in note for note in notes] == [True] * len(found)
    assert all(size * length <= 1 << 15 < (size + 1) * length for size in found)


def test_what_the_user_says_stays(tmp_path, monkeypatch):
    for override in ("train.batch_size=64", "train.accumulate=4"):
        config = load("prior", [override], PriorConfig)
        kept = (config, [override], [])
        assert with_batch_that_fits(config, 6144, "prior", [override]) == kept
    own = tmp_path / "own.yaml"
    own.write_text("train: {batch_size: 64}\n")
    config = load(own, [], PriorConfig)
    assert with_batch_that_fits(config, 6144, str(own), []) == (config, [], [])
    # On a GPU it is no trouble.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = load("prior", [], PriorConfig)
    assert with_batch_that_fits(config, 6144, "prior", []) == (config, [], [])
