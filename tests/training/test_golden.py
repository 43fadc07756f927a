"""Losses at a fixed seed are those that were recorded: three of the recorded runs, which share no
network or quantizer.

Others are compared by scripts/golden_losses.py. Another processor adds up in another order, hence
the tolerance.
"""

import json
from pathlib import Path

import pytest

from vqkit.config import load
from vqkit.settings import Config
from vqkit.signals.image.source import open_images

from .runs import fitted, rows

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "losses.json").read_text())


@pytest.mark.parametrize("name", ["residual-noise", "variational", "bsq-mlp"])
def test_losses_are_those_that_were_recorded(name, tmp_path):
    recorded = RECORDED["runs"][name]
    config = load("emoji", [*RECORDED["common"], *recorded["settings"]], Config)
    fitted(open_images("emoji", config.data, config.seed), config, tmp_path)
    for split in ("train", "validation"):
        assert [row["loss"] for row in rows(tmp_path, split)] == pytest.approx(
            recorded[split], rel=1e-5
        )
