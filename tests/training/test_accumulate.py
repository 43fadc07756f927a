"""A batch in parts is the batch: for every quantizer, with noise, and where a part of the batch is
padding.
"""

import pytest
import torch

from vqkit.config import load
from vqkit.settings import Config
from vqkit.signals.image.source import ImageData, open_images

from ..model.quantizers.test_contract import KINDS
from .runs import fitted

STEPS = 3
SETTINGS = [
    "train.precision=float32",
    # Ten items in four parts: three of three, and one alone.
    "train.batch_size=10",
    "train.log_every=1",
    "train.optimizer=adamw",
    "train.ema_decay=0",
    "data.noise.sigma=25",
    "data.image_size=[16,16]",
    "model.network.width=16",
    "model.network.encoder_blocks=1",
    "model.network.decoder_blocks=1",
    "model.variational=true",
    "losses.kl=0.01",
    "losses.transform=0.1",
]


class Masked(ImageData):
    """Images of which the right and the lower edge are padding, more of some than of others."""

    def train(self, step, size, seed, rank=0, ranks=1):
        for batch in super().train(step, size, seed, rank, ranks):
            mask = torch.ones(len(batch.values), *self.shape.extent, dtype=torch.bool)
            for row, each in enumerate(mask):
                each[16 - row :] = False
                each[:, 16 - row // 2 :] = False
            yield batch._replace(mask=mask)


def trained(few_images, folder, kind, is_masked, parts, steps=STEPS, seed=0):
    """The state of the network after a few steps."""
    config = load(
        "emoji",
        [*SETTINGS, f"train.steps={steps}", f"train.accumulate={parts}", f"seed={seed}"],
        Config,
    )
    network = config.model.model_copy(update={"quantizer": KINDS[kind]})
    config = config.model_copy(update={"model": network})
    data = open_images(few_images, config.data, 0)
    if is_masked:
        data.__class__ = Masked
    return fitted(data, config, folder).network.state_dict()


def apart(one, two) -> float:
    """Distance of two states as a share of their length.

    Not that of the worst weight: Adam divides gradients by their size, and where one is zero but
    for rounding, its sign decides over a whole step.
    """
    differences = torch.cat(
        [(two[name].double() - value.double()).flatten() for name, value in one.items()]
    )
    return float(
        differences.norm() / torch.cat([value.double().flatten() for value in one.values()]).norm()
    )


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_parts_gives_the_step_of_the_whole(kind, is_masked, few_images, tmp_path):
    """For one of three seeds: rounding may bring a latent that lies on the edge of two codes to
    either side.
    """
    found = []
    for seed in range(3):
        whole, parts = (
            trained(few_images, tmp_path / f"{seed}-{number}", kind, is_masked, number, seed=seed)
            for number in (1, 4)
        )
        found.append(apart(whole, parts))
        counters = {int(value) for name, value in parts.items() if name.endswith("updates")}
        # A codebook that all stages share learns from each of them in turn.
        assert counters <= {3 * STEPS if kind == "residual-shared" else STEPS}, (
            "counters count optimiser steps"
        )
        assert counters or not any(name.endswith("ema_count") for name in whole)
        if found[-1] <= 1e-6:
            break
    assert min(found) <= 1e-6


def test_the_steps_are_large_enough_to_tell(few_images, tmp_path):
    """One step more changes the weights by a thousand times what rounding may change."""
    three = trained(few_images, tmp_path / "three", "vq-ema", False, 1)
    four = trained(few_images, tmp_path / "four", "vq-ema", False, 1, STEPS + 1)
    assert apart(three, four) > 1e-3
