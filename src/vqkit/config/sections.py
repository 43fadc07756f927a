"""Sections of the settings in the order of the data flow, and `Config`, which holds them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, Union

from pydantic import AfterValidator, BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from .base import Byte, Count, Finite, NonNegative, Positive, Section, Share, Side
from .quantizers import QuantizerConfig, VQConfig


class AugmentConfig(Section):
    shift: Annotated[int, Field(ge=0)] = 0
    """largest random shift in pixels, edges repeated; 0 = off"""
    flip: bool = False
    """mirror half of the images left to right"""
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """smallest side of a random crop as a share of the image, resized back; 1 = off"""
    colour: Share = 0.0
    """strength of random brightness, contrast and saturation; 0 = off"""


class NoiseConfig(Section):
    sigma: NonNegative = 0.0
    """largest deviation of Gaussian noise on what the encoder sees, in levels of 0 to 255, the target being the clean
    image; every image has its own, from 0 on; 0 = no noise of any kind"""
    others: Share = 0.4
    """share of the noisy images with another kind: shot noise, salt and pepper, speckle, JPEG or missing blocks"""
    clean: Share = 0.05
    """share of the images that stay clean, so that those are left as they are"""


def _rises(value: tuple[float, float] | None) -> tuple[float, float] | None:
    if value is not None and not 0 < value[1] - value[0] < float("inf"):
        raise ValueError("the first value must be the smaller one")
    return value


class DataConfig(Section):
    image_size: tuple[Side, Side] | None = None
    """height and width that the model sees; null = the size that all images share"""
    channels: Literal[1, 2, 3, 4] | None = None
    """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA; null = what most of the images have, without alpha"""
    fit: Literal["crop", "resize", "patches"] = "crop"
    """images of another size: crop = scale the short side and cut the middle, resize = squeeze both sides, patches =
    patches of image_size from all over each, at full resolution, as many as fit in max_memory_mb"""
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """RGB colour laid under transparent pixels when alpha is not kept"""
    value_range: Annotated[tuple[Finite, Finite] | None, AfterValidator(_rises)] = None
    """values of more than 8 bits (16-bit and float files, arrays) that become black and white, others are clipped;
    null = found from the whole set"""
    frames: Literal["first", "all"] = "first"
    """of animations and files with several pages: the first image, or all, which then stay in one split"""
    layout: Literal["NHW", "NHWC", "NCHW", "HWC", "CHW"] | None = None
    """what the dimensions of an array are: N images, C channels, height, width; null = as its shape says"""
    near_duplicates: bool = False
    """also keep images that look the same (scaled, recompressed) in one split, not only those of equal pixels"""
    validation: Share = 0.05
    """share of the images held out to watch training and to choose"""
    test: Share = 0.05
    """share held out for the final figures; never trained on, never used to choose"""
    augment: AugmentConfig = AugmentConfig()
    noise: NoiseConfig = NoiseConfig()
    max_memory_mb: Count = 2048
    """sets that are larger than this as uint8 are streamed from disk by worker processes"""
    max_bytes: Count | None = None
    """what a compressed file may unpack to, in bytes; null = a quarter of the memory"""
    num_workers: Annotated[int, Field(ge=0, le=64)] = 2
    """worker processes for streamed sets"""


class ConvConfig(Section):
    """The strided network of van den Oord et al. 2017 (arXiv 1711.00937, section 4.1)."""

    kind: Literal["conv"] = "conv"
    width: Count = 128
    """channels of the hidden layers"""
    num_downsamplings: Annotated[int, Field(ge=1, le=6)] = 2
    """strided layers; each halves height and width"""
    num_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks at the latent grid, on either side"""


class MLPConfig(Section):
    """Fully connected encoder and decoder on flattened images, as in the classic tutorials."""

    kind: Literal["mlp"] = "mlp"
    widths: tuple[Count, ...] = Field(default=(512,), min_length=1)
    """hidden widths of the encoder; the decoder mirrors them"""
    grid: tuple[Count, Count] = (7, 7)
    """the latents are arranged as a grid of this height and width"""


class PatchConfig(Section):
    """Space-to-depth, residual blocks at the latent grid, depth-to-space: nearly all work at low resolution."""

    kind: Literal["patch"] = "patch"
    patch_size: Annotated[int, Field(ge=1, le=64)] = 4
    """side in pixels of the square that becomes one latent"""
    width: Count = 128
    """channels of the residual blocks"""
    expansion: Annotated[int, Field(ge=1, le=16)] = 2
    """channels inside of a block, as a multiple of width"""
    encoder_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks before the quantizer"""
    decoder_blocks: Annotated[int, Field(ge=0, le=64)] = 2
    """residual blocks after the quantizer"""


NetworkConfig: TypeAlias = Annotated[Union[ConvConfig, PatchConfig, MLPConfig], Field(discriminator="kind")]


class TransformConfig(Section):
    """A learnable map f between the latents and the quantizer; see docs of vqkit.model.transform."""

    kind: Literal["none", "mlp", "conv", "linear"] = "none"
    """none = identity; mlp = pointwise; conv = residual convolutions; linear = invertible, undone before the decoder"""
    latent_dim: Count | None = None
    """channels of z, before the map; null = those that the quantizer takes"""
    width: Count = 64
    """hidden channels of mlp and conv"""
    num_blocks: Annotated[int, Field(ge=1, le=16)] = 1
    """hidden layers of mlp, residual blocks of conv"""


class ModelConfig(Section):
    network: NetworkConfig = PatchConfig()
    """encoder and decoder: conv, patch or mlp"""
    quantizer: QuantizerConfig = VQConfig()
    """bottleneck: none, vq, simvq, fsq, lfq, bsq, gaussian_codebook, residual, product or hierarchical"""
    variational: bool = False
    """the encoder predicts a mean and a variance and training samples latents from them, weighed by losses.kl"""
    transform: TransformConfig = TransformConfig()
    """map between the latents and the quantizer"""


class WeightConfig(Section):
    """A loss weight that may change while training; a plain number means {peak: number}, the same all the time."""

    peak: NonNegative
    """the weight where its schedule is highest, and in validation"""
    schedule: Literal["constant", "warmup", "cyclic"] = "constant"
    """constant; warmup = rises from 0 in a line, then stays; cyclic = does so again and again (arXiv 1903.10145)"""
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
    """What is minimised: the sum of weight * term. A weight is a number or {peak, schedule, share, cycles}."""

    distortion: Literal["mse", "log_mse", "l1", "huber", "logistic", "logistic_mixture"] = "mse"
    """what reconstruction measures, on standardised pixels; log_mse = mean log of each image's mse, which is mean PSNR;
    logistic = discretised logistic likelihood, nats per value; logistic_mixture = the same with a mixture of logistics
    for every value, all of it from the decoder"""
    num_mixtures: Annotated[int, Field(ge=1, le=64)] = 5
    """logistics in the mixture of every value, with distortion: logistic_mixture"""
    reconstruction: Weight = _weight(1.0)
    """weight of the reconstruction term"""
    commitment: Weight = _weight(0.25)
    """weight of the term that pulls latents to their codes (vq, simvq, lfq)"""
    codebook: Weight = _weight(1.0)
    """weight of the term that pulls codes to latents (vq with update: gradient, simvq)"""
    entropy: Weight = _weight(0.1)
    """weight of the entropy term of lfq and bsq: each latent sure of its code, all codes in use"""
    kl: Weight = _weight(1.0)
    """beta: weight of KL(q(z|x) || N(0, 1)) with model.variational; 0 = latents are not sampled at all"""
    transform: Weight = _weight(0.0)
    """gamma: weight of the term that pulls what the quantizer gets, z' = f(z), to N(0, 1); 0 = not computed at all"""
    transform_distance: Literal["sliced_wasserstein", "moments", "prior_network"] = "sliced_wasserstein"
    """how far z' is from N(0, 1): sorted random projections, means and covariances, or its squared distance to what it
    would be if a small network that predicts mean and scale of z' from its neighbours had standardised it"""


def _off_is_a_word(value: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else value


class TrainConfig(Section):
    steps: Count = 10000
    """optimiser steps; the learning-rate schedule ends here"""
    max_minutes: Positive | None = None
    """a time budget: the schedule is stretched or shortened to end with it; null = steps alone decide"""
    batch_size: Count = 128
    """images per optimiser step, over all ranks and accumulated parts"""
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
    """when a codebook collapses: warn = say it, act = also revive codes, set them anew, or lower weights and
    learning rate"""
    strategy: Literal["auto", "ddp", "fsdp2"] = "auto"
    """over several processes: ddp copies the model, fsdp2 shards it; auto = ddp when there are several"""
    compile: bool = False
    """torch.compile the networks; pays on GPUs and on long runs"""


class CoderConfig(Section):
    """The integer network that files of codes are compressed with, fitted after training."""

    steps: Annotated[int, Field(ge=0)] = 600
    """optimiser steps, of 8,192 codes each, and no more than training took; 0 = none: files are larger"""
    lr: Positive = 0.01
    """peak learning rate of AdamW, for vectors, positions and the last layer"""
    muon_lr: Positive = 0.02
    """peak learning rate of Muon, for all other matrices"""


class Config(Section):
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    """of everything random: weights, splits, order, augmentation, noise"""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    losses: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    coder: CoderConfig = CoderConfig()
