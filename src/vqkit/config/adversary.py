"""Settings of the adversarial stage of training, whatever the discriminator."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Count, NonNegative, Positive, Section


class NoAdversary(Section):
    """Nothing but the losses decides what the decoder gives."""

    kind: Literal["none"] = "none"


class AdversarySection(Section):
    """The stage: a discriminator tells reconstructions from items, and the decoder learns to pass.
    What the discriminator is, each kind says.
    """

    kind: str
    train: Literal["all", "decoder"] = "all"
    """what learns in the stage: all, or the decoder alone, which leaves every code as it is"""
    start: Annotated[float, Field(ge=0, lt=1)] | None = None
    """share of training at which the stage starts; null = when the quality of the validation split
    has levelled off, and at 0.6 at the latest"""
    alone: Count = 200
    """steps at its start in which the discriminator learns and the decoder does not see it"""
    ramp: Count = 500
    """steps after those over which the weight rises from 0"""
    weight: Positive = 0.5
    """of the adversarial term, as a share of the gradient that all other terms have in the last
    layer of the decoder"""
    loss: Literal["relativistic", "hinge"] = "relativistic"
    """relativistic: each item above its own reconstruction (arXiv 2501.05441); hinge: items above
    1, reconstructions below -1 (arXiv 1705.02894)"""
    regularisation: Literal["spectral", "r1"] = "spectral"
    """spectral = normalised matrices (arXiv 1802.05957); r1 = penalty on the gradient at items
    (arXiv 1801.04406)"""
    lr: Positive = 5e-4
    """peak learning rate of the discriminator, on the schedule of train.lr"""
    feature_matching: NonNegative = 1.0
    """weight, beside the adversarial term, of the distance in the discriminator's own layers"""
    lecam: NonNegative = 0.001
    """weight of the LeCam regulariser, which holds scores near the averages of the other side
    (arXiv 2104.03310)"""
    augment: bool = True
    """what the discriminator sees is moved, recoloured and cut out at random, alike for an item
    and its reconstruction (DiffAugment, arXiv 2006.10738)"""
    max_fall: Positive = 1.5
    """dB of validation quality (PSNR of images, spectral SNR of recordings) that the stage may
    cost; beyond it the weight is lowered, and then the model goes back to what it was before"""


class PatchAdversary(AdversarySection):
    """The discriminator looks at patches of the values themselves (PatchGAN, arXiv 1611.07004, as
    in VQGAN, arXiv 2012.09841).
    """

    kind: Literal["patch"] = "patch"
    width: Count = 32
    """channels of the first layer, doubled by each of the next two"""
    num_layers: Annotated[int, Field(ge=1, le=6)] | None = None
    """strided layers, which see 8, 18, 38, 78, 158 or 318 positions; null = up to 3, as items
    allow"""
