"""All settings of a run: the general sections joined with those of every kind of signal.

`Config` is what `vqkit train` takes, `PriorConfig` what `vqkit train-prior` takes. A further signal
is one more member of each union below, of adversaries only where it has one of its own.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from .config.adversary import NoAdversary, PatchAdversary
from .config.base import ActsOnly, Root, Section, Share
from .config.prior import PriorNetworkConfig
from .config.quantizers import QuantizerConfig, VQConfig, quantizers_with
from .config.sections import CoderConfig, LossConfig, TrainConfig, TransformConfig
from .signals.array import config as array
from .signals.audio import config as audio
from .signals.image import config as image
from .signals.text import config as text

# fmt: off
AnyData: TypeAlias = (
    image.DataConfig
    | audio.DataConfig
    | array.SeriesData
    | array.VolumeData
    | text.DataConfig
)
AnyNetwork: TypeAlias = (
    image.NetworkConfig
    | audio.NetworkConfig
    | array.ArrayConfig
    | text.BytesConfig
)
AnyAdversary: TypeAlias = (
    NoAdversary
    | PatchAdversary
    | audio.StftAdversary
)
# fmt: on
DataConfig: TypeAlias = Annotated[AnyData, Field(discriminator="signal")]
NetworkConfig: TypeAlias = Annotated[AnyNetwork, Field(discriminator="kind")]
AdversaryConfig: TypeAlias = Annotated[AnyAdversary, Field(discriminator="kind")]


class ModelConfig(Section):
    network: NetworkConfig = image.PatchConfig()
    """encoder and decoder: conv, patch, mlp or multiscale of images, vocoder or lapped of
    recordings, bytes of text, array of series and volumes
    """
    quantizer: QuantizerConfig = VQConfig()
    """bottleneck: none, vq, simvq, fsq, lfq, bsq, gaussian_codebook, scalar, residual, product,
    hierarchical or pyramid
    """
    variational: bool = False
    """the encoder predicts a mean and a variance and training samples latents from them,
    weighed by losses.kl
    """
    transform: TransformConfig = TransformConfig()
    """map between the latents and the quantizer"""
    causal: bool = False
    """blocks of the networks of recordings look back alone, for live use; vqkit info tells the
    latency that is left
    """
    max_gain: Annotated[float, Field(ge=1, le=16)] = 1.0
    """latents are multiplied by up to so much, or divided, before they are quantised to scalar
    codes: drawn anew for every batch of training, so that files may have any rate; 1 = never
    """


def _weighs(loss: str) -> ActsOnly:
    """The weight of a term that only some quantizers have."""
    return ActsOnly(
        (f"losses.{loss}",),
        quantizers_with(loss),
        lambda config: config.model.quantizer.has_loss(loss),
    )


def _has_codes(config: Config) -> bool:
    return config.model.quantizer.kind != "none"


class Config(Root):
    """Everything that training an autoencoder needs beside the data."""

    recipe_folder: ClassVar[str] = "recipes"
    default_recipe: ClassVar[str] = "images"
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(("losses.kl",), "model.variational=true", lambda config: config.model.variational),
        *(_weighs(loss) for loss in ("commitment", "codebook", "entropy", "rate")),
        ActsOnly(
            ("model.causal",),
            "networks of recordings, of model.network.kind=vocoder or lapped",
            lambda config: config.model.network.can_be_causal,
        ),
        ActsOnly(
            ("model.max_gain",),
            "scalar codes, of model.quantizer.kind=scalar",
            lambda config: config.model.quantizer.has_loss("rate"),
        ),
        ActsOnly(
            ("train.optimizer", "train.muon_lr"),
            "residual blocks, of model.network.kind=patch or model.transform.kind=conv",
            lambda config: (
                config.model.network.has_residual_blocks or config.model.transform.kind == "conv"
            ),
        ),
        ActsOnly(
            ("train.patience",),
            "data.validation above 0",
            lambda config: config.data.validation > 0,
        ),
        ActsOnly(
            ("train.validate_every",),
            "data.validation above 0 or an adversary",
            lambda config: config.data.validation > 0 or config.adversary.kind != "none",
        ),
        ActsOnly(("train.guard",), "codes, of another quantizer than none", _has_codes),
        ActsOnly(
            ("coder.lr", "coder.muon_lr", "coder.dropout"),
            "codes of a codebook, of another quantizer than none or scalar",
            lambda config: _has_codes(config) and not config.model.quantizer.has_loss("rate"),
        ),
    )

    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    """of everything random: weights, splits, order, augmentation, noise"""
    data: DataConfig = image.DataConfig()
    model: ModelConfig = ModelConfig()
    losses: LossConfig = LossConfig()
    adversary: AdversaryConfig = NoAdversary()
    """a second stage of training, for sharper reconstructions: none, patch of images, stft of
    recordings"""
    train: TrainConfig = TrainConfig()
    coder: CoderConfig = CoderConfig()

    @model_validator(mode="before")
    @classmethod
    def _images_unless_said(cls, tree: Any) -> Any:
        """Data settings that name no signal are of images."""
        if isinstance(tree, dict) and isinstance(tree.get("data"), dict):
            return {**tree, "data": {"signal": "image", **tree["data"]}}
        return tree


class PriorConfig(Root):
    """Everything that training a prior needs beside the artifact."""

    recipe_folder: ClassVar[str] = "recipes/prior"
    default_recipe: ClassVar[str] = "prior"
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(
            ("condition_dropout",),
            "a condition: condition=auto, class or caption",
            lambda config: config.condition != "none",
        ),
        ActsOnly(
            ("network.caption_bytes",),
            "captions: condition=auto or caption",
            lambda config: config.condition in ("auto", "caption"),
        ),
        ActsOnly(
            ("train.guard",), "codebooks to watch, which 'vqkit train' has", lambda config: False
        ),
    )

    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    """of weights, order of the items, orders of codes, dropped conditions"""
    condition: Literal["auto", "none", "class", "caption"] = "auto"
    """what codes are conditioned on: the class or the caption of their item, or nothing; auto =
    caption, else class, if DATA has them"""
    condition_dropout: Share = 0.1
    """share of the items whose condition is left out, so that the prior works without one,
    and for guidance
    """
    random_order: Share = 0.5
    """share of the items whose codes come in a random order, for completing, varying and drawing
    many at once; the rest come in the order that likelihoods are counted in"""
    augment: dict[str, Any] = {}
    """settings of data.augment, of the model's own kind of signal, for the items before they
    become codes
    """
    network: PriorNetworkConfig = PriorNetworkConfig()
    train: TrainConfig = TrainConfig()


class PairConfig(Root):
    """Everything that training a prior over pairs needs beside the artifacts."""

    recipe_folder: ClassVar[str] = "recipes/pair"
    default_recipe: ClassVar[str] = "pair"
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(
            ("train.guard",), "codebooks to watch, which 'vqkit train' has", lambda config: False
        ),
    )

    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    """of weights and the order of the pairs"""
    augment: dict[str, Any] = {}
    """settings of data.augment, of the kind of signal that is not text, for the items before they
    become codes
    """
    network: PriorNetworkConfig = PriorNetworkConfig()
    train: TrainConfig = TrainConfig()
