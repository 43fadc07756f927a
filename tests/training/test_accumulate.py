"""A batch in parts is the batch: for every quantizer, with noise, and where a part of the batch is
padding.
"""

import pytest
import torch

from vqkit.config import load
from vqkit.settings import Config, PriorConfig
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.signal import IMAGE
from vqkit.signals.image.source import ImageData, open_images
from vqkit.training.loop import fit
from vqkit.training.tasks.autoencoder import AutoencoderTask
from vqkit.training.tasks.prior import PriorTask

from ..model.quantizers.test_contract import KINDS
from ..untrained import untrained

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


class Exact(AutoencoderTask):
    """Networks in float64, so that rounding in parts of another size brings no latent to another
    code: the bottleneck takes float32, and gets the same numbers.
    """

    def build(self):
        model = super().build()
        model.encoder.double()
        model.decoder.double()
        model.decoder.register_forward_pre_hook(lambda _, inputs: tuple(x.double() for x in inputs))
        return model

    def _standardised(self, values, device):
        return super()._standardised(values, device).double()


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
    return fit(Exact(data, config, IMAGE), folder).model.state_dict()


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


@pytest.mark.parametrize(("is_masked", "seed"), [(False, 0), (True, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_parts_gives_the_step_of_the_whole(kind, is_masked, seed, few_images, tmp_path):
    whole, parts = (
        trained(few_images, tmp_path / str(number), kind, is_masked, number, seed=seed)
        for number in (1, 4)
    )
    assert apart(whole, parts) <= 1e-9
    counters = {int(value) for name, value in parts.items() if name.endswith("updates")}
    # A codebook that all stages share learns from each of them in turn.
    assert counters <= {3 * STEPS if kind == "residual-shared" else STEPS}, (
        "counters count optimiser steps"
    )
    assert counters or not any(name.endswith("ema_count") for name in whole)


def test_the_steps_are_large_enough_to_tell(few_images, tmp_path):
    """One step more changes the weights by a million times what rounding may change."""
    three = trained(few_images, tmp_path / "three", "vq-ema", False, 1)
    four = trained(few_images, tmp_path / "four", "vq-ema", False, 1, STEPS + 1)
    assert apart(three, four) > 1e-3


# Captions, padding and both orders of codes; ten items in four parts, of which one is alone.
PRIOR = [
    "train.steps=3",
    "train.batch_size=10",
    "train.precision=float32",
    "train.optimizer=adamw",
    "train.ema_decay=0",
    "network.width=16",
    "network.num_heads=2",
    "network.num_blocks=2",
]


def trained_prior(few_images, folder, dropout, is_masked, parts):
    """The state of a prior over random codes after a few steps, in float64."""

    class ExactPrior(PriorTask):
        def build(self):
            return super().build().double()

    model = untrained()
    data = open_images(few_images, DataConfig(image_size=(16, 16)), 0)
    data.captions = [f"the item of number {number}" for number in range(len(data))]
    if is_masked:
        data.__class__ = Masked
    overrides = [*PRIOR, f"network.dropout={dropout}", f"train.accumulate={parts}"]
    config = load("prior", overrides, PriorConfig)
    return fit(ExactPrior(model.artifact, data, config), folder).model.state_dict()


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_batch_of_a_prior_in_parts_drops_the_channels_of_the_whole(
    is_masked, few_images, tmp_path
):
    whole, parts, without = (
        trained_prior(few_images, tmp_path / f"{number}-{dropout}", dropout, is_masked, number)
        for number, dropout in ((1, 0.3), (4, 0.3), (1, 0))
    )
    assert apart(whole, parts) <= 1e-9
    assert apart(whole, without) > 1e-3
