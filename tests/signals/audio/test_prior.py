"""A prior over codes of recordings."""

from __future__ import annotations

import pytest
import torch

from vqkit.apps.evaluate import open_for
from vqkit.config import load
from vqkit.settings import PriorConfig
from vqkit.training.tasks.prior import PriorTask

SMALL = ["network.width=16", "network.num_heads=2", "network.num_blocks=1", "condition=none"]


@pytest.mark.parametrize("codec_folder", ["residual"], indirect=True)
@pytest.mark.parametrize(
    ("augment", "times"), [("{}", 1), ("{level: 6}", 3), ("{invert: true}", 3)]
)
def test_codes_of_recordings_that_come_again_as_they_are_are_found_once(
    codec, recordings, augment, times
):
    config = load("prior", [*SMALL, f"augment={augment}"], PriorConfig)
    task = PriorTask(codec.artifact, open_for(codec, recordings, "train"), config)
    batch = next(task.batches(0, 0, 1)).items
    heard: list[int] = []
    counted = codec.network.encoder.register_forward_hook(lambda *_: heard.append(1))
    # In another order and beside others, too.
    turned = batch._replace(values=batch.values.flip(0), ids=batch.ids[::-1].copy())
    if batch.mask is not None:
        turned = turned._replace(mask=batch.mask.flip(0))
    cpu = torch.device("cpu")
    found = [task._codes(items, cpu) for items in (batch, batch, turned)]
    counted.remove()
    assert len(heard) == times
    wanted = codec.network.encode(task.artifact.normalisation.apply(batch.values), batch.mask)
    for codes in (found[0], found[1], found[2].flip(0)):
        assert codes.dtype == torch.int64
        assert torch.equal(codes, wanted)
