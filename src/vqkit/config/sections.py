"""Sections of the settings that no kind of signal changes; settings.py joins them with those of the
signals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from .base import ActsOnly, Count, NonNegative, Positive, Section, Share


class DataSection(Section):
    """What every source of items has; each signal adds its own settings to it."""

    validation: Share = 0.05
    """share of the items held out to watch training and to choose"""
    test: Share = 0.05
    """share held out for the final figures; never trained on, never used to choose"""
    max_memory_mb: Count = 2048
    """sets that are larger than this in memory are streamed from disk"""
    num_workers: Annotated[int, Field(ge=0, le=64)] | None = None
    """worker processes for streamed sets; 0 = threads of this one, between steps; null = 2 where
    there is a GPU, else 0"""


class NetworkSection(Section):
    """The base of the settings of encoders and decoders."""

    # Whether what these networks learn can be kept from looking ahead.
    can_be_causal: ClassVar[bool] = False

    @property
    def has_residual_blocks(self) -> bool:
        """Whether there are residual blocks with matrices, which Muon is for."""
        return True


class TransformConfig(Section):
    """A learnable map f between the latents and the quantizer; see docs of
    vqkit.model.transform.
    """

    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(
            ("width", "num_blocks"),
            "{at}kind=mlp or conv",
            lambda transform: transform.kind in ("mlp", "conv"),
        ),
    )

    kind: Literal["none", "mlp", "conv", "linear"] = "none"
    """none = identity; mlp = pointwise; conv = residual convolutions; linear = invertible,
    undone before the decoder
    """
    latent_dim: Count | None = None
    """channels of z, before the map; null = those that the quantizer takes"""
    width: Count = 64
    """hidden channels of mlp and conv"""
    num_blocks: Annotated[int, Field(ge=1, le=16)] = 1
    """hidden layers of mlp, residual blocks of conv"""


class WeightConfig(Section):
    """A loss weight that may change while training; a plain number means {peak: number}, the same
    all the time.
    """

    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(("schedule",), "{at}peak above 0", lambda weight: weight.peak > 0),
        ActsOnly(
            ("share",),
            "{at}schedule=warmup or cyclic",
            lambda weight: weight.peak > 0 and weight.schedule != "constant",
        ),
        ActsOnly(
            ("cycles",),
            "{at}schedule=cyclic",
            lambda weight: weight.peak > 0 and weight.schedule == "cyclic",
        ),
    )

    peak: NonNegative
    """the weight where its schedule is highest, and in validation"""
    schedule: Literal["constant", "warmup", "cyclic"] = "constant"
    """constant; warmup = rises from 0 in a line, then stays; cyclic = does so again and again
    (arXiv 1903.10145)
    """
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """length of the rise, as a share of training (warmup) or of a cycle (cyclic)"""
    cycles: Count = 4
    """cycles of cyclic in the whole of training"""

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> Any:
        """A number if nothing but the peak is set, as users write it."""
        return self.peak if self == WeightConfig(peak=self.peak) else handler(self)


def _as_weight(value: Any) -> Any:
    return value if isinstance(value, Mapping | WeightConfig) else {"peak": value}


Weight: TypeAlias = Annotated[WeightConfig, BeforeValidator(_as_weight)]


def _weight(peak: float) -> Any:
    """Default of a weight; typed as anything because numbers are accepted wherever a weight is."""
    return WeightConfig(peak=peak)


class LossConfig(Section):
    """What is minimised: the sum of weight * term.

    A weight is a number or {peak, schedule, share, cycles}.
    """

    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(
            ("num_mixtures",),
            "{at}distortion=logistic_mixture",
            lambda losses: losses.distortion == "logistic_mixture",
        ),
        ActsOnly(
            ("transform_distance",),
            "{at}transform above 0",
            lambda losses: losses.transform.peak > 0,
        ),
        ActsOnly(
            ("perceptual_distance",),
            "{at}perceptual above 0",
            lambda losses: losses.perceptual.peak > 0,
        ),
    )

    distortion: Literal[
        "mse", "log_mse", "l1", "huber", "logistic", "logistic_mixture", "categorical"
    ] = "mse"
    """what reconstruction measures, on standardised pixels; log_mse = mean log of each item's mse,
    which is mean PSNR; logistic = discretised logistic likelihood, nats per value; logistic_mixture
    = the same with a mixture of logistics for every value, all of it from the decoder; categorical
    = cross-entropy of 256 logits for every value, where near values are no better than far ones"""
    num_mixtures: Annotated[int, Field(ge=1, le=64)] = 5
    """logistics in the mixture of every value, with distortion: logistic_mixture"""
    reconstruction: Weight = _weight(1.0)
    """weight of the reconstruction term"""
    commitment: Weight = _weight(0.25)
    """weight of the term that pulls latents to their codes (vq, simvq, lfq,
    gaussian_codebook)"""
    codebook: Weight = _weight(1.0)
    """weight of the term that pulls codes to latents (vq with update: gradient, simvq)"""
    entropy: Weight = _weight(0.1)
    """weight of the entropy term of lfq and bsq: each latent sure of its code, all codes in use"""
    rate: Weight = _weight(1.0)
    """weight of the bits that codes take, a value of the item (scalar): with distortion log_mse,
    1.4 = where another bit lowers the mse as much as anywhere else"""
    kl: Weight = _weight(1.0)
    """beta: weight of KL(q(z|x) || N(0, 1)) with model.variational; 0 = latents are not
    sampled at all
    """
    transform: Weight = _weight(0.0)
    """gamma: weight of the term that pulls what the quantizer gets, z' = f(z), to N(0, 1); 0
    = not computed at all
    """
    transform_distance: Literal["sliced_wasserstein", "moments", "prior_network"] = (
        "sliced_wasserstein"
    )
    """how far z' is from N(0, 1): sorted random projections, means and covariances, or its squared
    distance to what it would be if a small network that predicts mean and scale of z' from its
    neighbours had standardised it"""
    perceptual: Weight = _weight(0.0)
    """weight of a distance that sees edges and texture before single values; 0 = not computed at
    all"""
    perceptual_distance: Literal["auto", "features", "bands", "mel"] = "auto"
    """of images: features = of a network trained on ImageNet, from the extra vqkit[perceptual],
    bands = gradients and Laplacian bands at several scales; of recordings: mel = log magnitudes in
    bands of the mel scale over several windows; auto = features where they are installed, else
    bands; mel for recordings"""


def _off_is_a_word(value: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else value


class TrainConfig(Section):
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(("muon_lr",), "{at}optimizer=muon", lambda train: train.optimizer == "muon"),
    )

    steps: Count = 10000
    """optimiser steps; the learning-rate schedule ends here"""
    max_minutes: Positive | None = None
    """a time budget: the schedule is stretched or shortened to end with it; null = steps
    alone decide
    """
    batch_size: Count = 128
    """items per optimiser step, over all ranks and accumulated parts"""
    accumulate: Count = 1
    """parts that a batch is cut in, to save memory"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon = orthogonalised momentum for the matrices of residual blocks, AdamW for all else"""
    lr: Positive = 1e-3
    """peak learning rate of AdamW"""
    muon_lr: Positive = 0.02
    """peak learning rate of Muon, for the matrices that it has"""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """moment decays of AdamW"""
    weight_decay: NonNegative = 0.0
    """decoupled, on weight matrices and kernels only"""
    warmup: Share = 0.03
    """share of the schedule spent raising the learning rate from zero"""
    final_lr: Share = 0.01
    """learning rate at the end of the cosine as a share of the peak"""
    clip_norm: NonNegative = 1.0
    """largest norm of the gradient; 0 = no clipping"""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """of the averaged weights that are evaluated and saved; 0 = the last weights"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto = bfloat16 autocast where the processor multiplies it in hardware, else float32"""
    validate_every: Count = 500
    """steps between two looks at the validation split"""
    patience: Annotated[int, Field(ge=0)] = 0
    """stop after this many looks without a better validation loss; 0 = never"""
    checkpoint_every: Count = 500
    """steps between two checkpoints"""
    log_every: Count = 20
    """steps between two lines of metrics.jsonl"""
    guard: Annotated[Literal["off", "warn", "act"], BeforeValidator(_off_is_a_word)] = "act"
    """when a codebook collapses: warn = say it, act = also revive codes, set them anew, or lower
    weights and learning rate"""
    strategy: Literal["auto", "ddp", "fsdp2"] = "auto"
    """over several processes: ddp copies the model, fsdp2 shards it; auto = ddp when there
    are several
    """
    compile: bool = False
    """torch.compile the networks; pays on GPUs and on long runs"""


class CoderConfig(Section):
    """The integer network that files of codes are compressed with, fitted after training."""

    steps: Annotated[int, Field(ge=0)] = 600
    """optimiser steps, of 8,192 codes each, and no more than training took; 0 = none: files
    are larger
    """
    lr: Positive = 0.01
    """peak learning rate of AdamW, for vectors, positions and the last layer"""
    muon_lr: Positive = 0.02
    """peak learning rate of Muon, for all other matrices"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share of the codes around a code that it does not see in training, so that few items are not
    learned by heart
    """
