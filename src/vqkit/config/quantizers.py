"""Settings of every quantizer: one class a family, told apart by `kind`.

`FamilyConfig` is the one list of families. The composites (residual, product, hierarchical,
pyramid) take any of them, and their own unions are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias, Union, get_args

from pydantic import Field, model_validator

from .base import ActsOnly, Count, NonNegative, Positive, Section, Share

# A neighbourhood that has shrunk to this many cells still gives the next cell 4 % of the pull.
# That keeps the order of the map, and every code alive.
FINAL_RADIUS = 0.4
# Most codes in a cell of the coarsest grid of a hierarchy or a pyramid: each further grid has two
# to eight times more.
MAX_CODEBOOKS = 1 << 12

CodebookSize = Annotated[int, Field(ge=2, le=1 << 20)]
Bits = Annotated[int, Field(ge=1, le=40)]
Levels = Annotated[
    tuple[Annotated[int, Field(ge=2, le=256)], ...], Field(min_length=1, max_length=24)
]


class QuantizerSection(Section):
    """The base of a quantizer's settings."""

    # Terms that the quantizer adds to the loss, by their names in `losses`, and with which settings
    # it does (empty: with all).
    losses: ClassVar[Mapping[str, str]] = {}
    # Composites in which `shared_codebook` makes a difference, because something is learned from
    # the tokens of all parts together.
    sharing_matters_in: ClassVar[tuple[str, ...]] = ("residual", "product")

    def has_loss(self, name: str) -> bool:
        """Whether the quantizer, or one that it is made of, adds this term to the loss."""
        inner = [value for _, value in self if isinstance(value, QuantizerSection)]
        return name in self.losses or any(one.has_loss(name) for one in inner)


class NoneConfig(QuantizerSection):
    """No quantizer: a plain autoencoder, or a VAE with `model.variational`; codes are float32
    bits.
    """

    kind: Literal["none"] = "none"
    code_dim: Count = 64
    """channels of the latents"""


class VQConfig(QuantizerSection):
    """A learned codebook with nearest-neighbour assignment (van den Oord et al. 2017)."""

    losses: ClassVar[Mapping[str, str]] = {"commitment": "", "codebook": "update=gradient"}
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(
            ("temperature", "final_temperature", "temperature_steps"),
            "{at}estimator=gumbel",
            lambda vq: vq.estimator == "gumbel",
        ),
        ActsOnly(
            ("kmeans_iterations", "revive_threshold"),
            "{at}neighbourhood=0",
            lambda vq: vq.neighbourhood == 0,
        ),
        ActsOnly(
            ("neighbourhood_steps",), "{at}neighbourhood above 0", lambda vq: vq.neighbourhood > 0
        ),
        ActsOnly(
            ("decay",),
            "{at}update=ema, or revive_threshold or rate above 0",
            lambda vq: vq.update == "ema" or vq.revive_threshold > 0 or vq.rate > 0,
        ),
    )

    kind: Literal["vq"] = "vq"
    codebook_size: CodebookSize = 512
    """number of code vectors, K"""
    code_dim: Count = 16
    """width of a code vector; latents are projected down to it when latent_dim differs"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = code_dim, no projection"""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """cosine compares directions only: latents and codes are scaled to unit length"""
    update: Literal["ema", "gradient"] = "ema"
    """how codes learn: moving averages of the latents they win, or the optimiser through
    codebook_loss
    """
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """of the moving averages, per optimiser step; shorter in the first steps"""
    kmeans_iterations: Annotated[int, Field(ge=0, le=100)] = 10
    """Lloyd steps on the first training batch; 0 = random initial codes"""
    revive_threshold: Share = 0.1
    """a code used less than this share of uniform usage jumps to a place between a latent of the
    batch and the code that this has; 0 = never
    """
    estimator: Literal["straight_through", "rotation", "gumbel"] = "straight_through"
    """how gradients pass the quantizer: as if it were not there, rotated and scaled with the code,
    or by sampling codes with Gumbel noise in training"""
    temperature: Positive = 1.0
    """of gumbel at the start: codes are drawn from softmax(-squared distance / temperature)"""
    final_temperature: Positive = 0.05
    """of gumbel at the end of its schedule"""
    temperature_steps: Count = 2000
    """optimiser steps in which gumbel's temperature falls, exponentially"""
    rate: NonNegative = 0.0
    """weight of a code's bits where latents choose their codes, in units of their mean squared
    distance to them; files get smaller and items a little coarser; 0 = the nearest code"""
    neighbourhood: NonNegative = 0.0
    """initial radius, in cells of a 2-D map of the codes, in which a latent pulls the neighbours of
    its code too (Kohonen): neighbours on the map end up alike; with update: ema; 0 = off"""
    neighbourhood_steps: Count = 1000
    """optimiser steps in which that radius shrinks to less than one cell"""

    @model_validator(mode="after")
    def _settings_fit(self) -> VQConfig:
        if self.neighbourhood and self.update != "ema":
            raise ValueError("a neighbourhood works on moving averages: set update=ema")
        if 0 < self.neighbourhood <= FINAL_RADIUS:
            raise ValueError(
                f"a neighbourhood shrinks to {FINAL_RADIUS} cells: begin above that, or set 0 for "
                "none"
            )
        if self.rate and self.estimator == "gumbel":
            raise ValueError(
                "gumbel draws codes by their distance alone: set rate=0, or another estimator"
            )
        return self

    def has_loss(self, name: str) -> bool:
        return name in self.losses and (name != "codebook" or self.update == "gradient")


class SimVQConfig(QuantizerSection):
    """A frozen random codebook behind a learned linear map (Zhu et al. 2024, arXiv 2411.02038)."""

    losses: ClassVar[Mapping[str, str]] = {"commitment": "", "codebook": ""}

    kind: Literal["simvq"] = "simvq"
    codebook_size: CodebookSize = 512
    """number of code vectors, K"""
    code_dim: Count = 4
    """width of a code vector; latents are projected down to it when latent_dim differs"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = code_dim, no projection"""


class FSQConfig(QuantizerSection):
    """Finite scalar quantisation: each channel rounded to levels (Mentzer et al.

    2023, arXiv 2309.15505).
    """

    sharing_matters_in: ClassVar[tuple[str, ...]] = ()

    kind: Literal["fsq"] = "fsq"
    levels: Levels = (8, 8, 8)
    """levels per channel; their product is the codebook size"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = one per level, no projection"""


class LFQConfig(QuantizerSection):
    """Lookup-free quantisation: one bit a channel, its sign (Yu et al. 2023, arXiv 2310.05737)."""

    losses: ClassVar[Mapping[str, str]] = {"commitment": "", "entropy": ""}
    # The entropy term looks at the average code of all tokens that it gets: in a product at those
    # of all groups, in a residual row at one stage's only.
    sharing_matters_in: ClassVar[tuple[str, ...]] = ("product",)

    kind: Literal["lfq"] = "lfq"
    bits: Bits = 9
    """bits of a code, one channel each; the codebook size is two to this power"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = one per bit, no projection"""
    inverse_temperature: Positive = 1.0
    """of the soft assignment that the entropy term looks at; large = hard"""
    diversity: NonNegative = 20.0
    """weight of the entropy of the average code inside of the entropy term, which keeps all
    codes in use
    """


class BSQConfig(QuantizerSection):
    """Binary spherical quantisation: the sign of a latent on the unit sphere (Zhao et al.

    2024, arXiv 2406.07548).
    """

    losses: ClassVar[Mapping[str, str]] = {"entropy": ""}
    sharing_matters_in: ClassVar[tuple[str, ...]] = ("product",)

    kind: Literal["bsq"] = "bsq"
    bits: Bits = 9
    """bits of a code, one channel each; the codebook size is two to this power"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = one per bit, no projection"""
    inverse_temperature: Positive = 10.0
    """of the soft assignment that the entropy term looks at; large = hard"""
    diversity: NonNegative = 10.0
    """weight of the entropy of the average code inside of the entropy term, which keeps all
    codes in use
    """


class GaussianCodebookConfig(QuantizerSection):
    """A fixed codebook made from the prior N(0, I): codes of latents that follow the prior are
    uniform.
    """

    losses: ClassVar[Mapping[str, str]] = {"commitment": ""}
    sharing_matters_in: ClassVar[tuple[str, ...]] = ()
    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(
            ("codebook_size", "code_dim"), "{at}layout=draws", lambda fixed: fixed.layout == "draws"
        ),
        ActsOnly(("levels",), "{at}layout=bins", lambda fixed: fixed.layout == "bins"),
    )

    kind: Literal["gaussian_codebook"] = "gaussian_codebook"
    layout: Literal["bins", "draws"] = "bins"
    """bins = every channel cut into bins of equal probability; draws = frozen random vectors
    (arXiv 2512.06609)
    """
    levels: Levels = (8, 8, 8)
    """bins: how many per channel; their product is the codebook size"""
    codebook_size: CodebookSize = 512
    """draws: number of vectors"""
    code_dim: Count = 4
    """draws: width of a vector"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = the codes' width, no projection"""


class ScalarConfig(QuantizerSection):
    """Entropy-constrained scalar quantisation: every channel rounded to a step, with a price for
    its bits.
    """

    losses: ClassVar[Mapping[str, str]] = {"rate": ""}
    sharing_matters_in: ClassVar[tuple[str, ...]] = ()

    kind: Literal["scalar"] = "scalar"
    channels: Annotated[int, Field(ge=1, le=1024)] = 32
    """channels of the latents, each with a code of its own"""
    step: Positive = 0.75
    """distance of neighbouring codes; in a residual row a stage has a third of the one before"""
    levels: Annotated[int, Field(ge=3, le=1023)] = 127
    """codes of a channel, an odd number; tokens beyond the outermost belong to these"""
    rate: NonNegative = 0.1
    """weight of a code's bits where tokens choose between the codes around them, in squared steps;
    0 = the nearest code"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = `channels`, no projection"""

    @model_validator(mode="after")
    def _has_a_middle(self) -> ScalarConfig:
        if self.levels % 2 == 0:
            raise ValueError("levels must be odd: the code in the middle stands for zero")
        return self


# Every family that quantises tokens. A new one is added here, and nowhere else in the settings.
FamilyConfig: TypeAlias = Union[
    VQConfig,
    SimVQConfig,
    FSQConfig,
    LFQConfig,
    BSQConfig,
    GaussianCodebookConfig,
    ScalarConfig,
]


def _check_inside(inner: QuantizerSection, composite: str, count: int, is_shared: bool) -> None:
    """ValueError when the quantizer inside projects, or when sharing it would change nothing."""
    if getattr(inner, "latent_dim", None) is not None:
        raise ValueError(
            "the quantizer inside projects nothing: set latent_dim of the outer one instead"
        )
    if not is_shared:
        return
    kind = type(inner).model_fields["kind"].default
    if count == 1:
        raise ValueError("shared_codebook has no effect on a single quantizer: leave it false")
    if composite not in inner.sharing_matters_in:
        raise ValueError(
            f"shared_codebook has no effect here, kind={kind} learns nothing that the parts of "
            f"kind={composite} could share: leave it false"
        )


class ResidualConfig(QuantizerSection):
    """Several quantizers in a row, each for what was left over (Zeghidour et al.

    2021, arXiv 2107.03312).
    """

    conditions: ClassVar[tuple[ActsOnly, ...]] = (
        ActsOnly(("quantizer_dropout",), "{at}num_stages above 1", lambda row: row.num_stages > 1),
    )

    kind: Literal["residual"] = "residual"
    num_stages: Annotated[int, Field(ge=1, le=64)] = 4
    """quantizers in a row; as many codes a position"""
    stage: Annotated[FamilyConfig, Field(discriminator="kind")] = VQConfig()
    """each of them; its latent_dim stays null"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = the width of a stage, no projection"""
    quantizer_dropout: Share = 0.0
    """share of the training batches that use only a random number of the first stages, so
    that fewer decode too
    """
    shared_codebook: bool = False
    """one quantizer for all stages"""

    @model_validator(mode="after")
    def _settings_fit(self) -> ResidualConfig:
        _check_inside(self.stage, "residual", self.num_stages, self.shared_codebook)
        return self


class ProductConfig(QuantizerSection):
    """Channels cut into groups, each with a quantizer of its own (Jegou et al.

    2011); multi-head quantisation.
    """

    kind: Literal["product"] = "product"
    num_groups: Annotated[int, Field(ge=1, le=64)] = 2
    """groups of channels; as many codes a position, times those of a group"""
    group: Annotated[Union[FamilyConfig, ResidualConfig], Field(discriminator="kind")] = VQConfig(
        code_dim=8
    )
    """each of them; its latent_dim stays null"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = those of all groups, no projection"""
    shared_codebook: bool = False
    """one quantizer for all groups, as in heads that share a codebook"""

    @model_validator(mode="after")
    def _settings_fit(self) -> ProductConfig:
        _check_inside(self.group, "product", self.num_groups, self.shared_codebook)
        return self


class HierarchicalConfig(QuantizerSection):
    """A coarse grid first, then a fine one conditioned on it (VQ-VAE-2, Razavi et al. 2019)."""

    kind: Literal["hierarchical"] = "hierarchical"
    top: Annotated[
        Union[FamilyConfig, ResidualConfig, ProductConfig, HierarchicalConfig],
        Field(discriminator="kind"),
    ] = VQConfig()
    """quantizer of the coarse grid, at half the height and width; hierarchical again for a
    third grid
    """
    bottom: Annotated[
        Union[FamilyConfig, ResidualConfig, ProductConfig], Field(discriminator="kind")
    ] = VQConfig()
    """quantizer of the fine grid"""
    latent_dim: Count = 64
    """channels of the latents around the quantizer"""
    grid_dims: Literal[1, 2, 3] = 2
    """dimensions of the grid: 1 for sequences, 2 for images, 3 for volumes and video"""

    @model_validator(mode="after")
    def _is_bounded(self) -> HierarchicalConfig:
        if num_codebooks(self) > MAX_CODEBOOKS:
            raise ValueError(
                f"a hierarchy has at most {MAX_CODEBOOKS} codes in a cell of its coarsest grid"
            )
        return self


class PyramidConfig(QuantizerSection):
    """Residual codes over several grids, a coarse one first and each finer one for what was left
    over (Tian et al. 2024, arXiv 2404.02905).
    """

    kind: Literal["pyramid"] = "pyramid"
    num_grids: Annotated[int, Field(ge=2, le=12)] = 3
    """grids, each twice as fine along each side as the one before; a cell of the coarsest has
    2^(num_grids - 1) positions of the finest, which is that of the latents
    """
    stage: Annotated[FamilyConfig, Field(discriminator="kind")] = VQConfig(
        codebook_size=256, rate=0.1
    )
    """quantizer of each grid, one a grid; its latent_dim stays null; with a rate, places without
    detail cost fewer bits"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = the width of a stage, no projection"""
    grid_dims: Literal[1, 2, 3] = 2
    """dimensions of the grid: 1 for sequences, 2 for images, 3 for volumes and video"""
    quantizer_dropout: Share = 0.0
    """share of the training batches that use only a random number of the first grids, so
    that fewer decode too
    """

    @model_validator(mode="after")
    def _settings_fit(self) -> PyramidConfig:
        _check_inside(self.stage, "pyramid", self.num_grids, is_shared=False)
        if num_codebooks(self) > MAX_CODEBOOKS:
            raise ValueError(
                f"a pyramid has at most {MAX_CODEBOOKS} codes in a cell of its coarsest grid"
            )
        return self


QuantizerConfig: TypeAlias = Annotated[
    Union[
        NoneConfig, FamilyConfig, ResidualConfig, ProductConfig, HierarchicalConfig, PyramidConfig
    ],
    Field(discriminator="kind"),
]
# The classes of the two unions above, for whoever lists what there is.
FAMILIES: tuple[type[QuantizerSection], ...] = get_args(FamilyConfig)
QUANTIZERS: tuple[type[QuantizerSection], ...] = get_args(get_args(QuantizerConfig)[0])


def num_codebooks(section: QuantizerSection) -> int:
    """Codes of a position as they will be built; of a hierarchy or a pyramid those of a cell of its
    coarsest grid.
    """
    match section:
        case ScalarConfig():
            return section.channels
        case ResidualConfig():
            return section.num_stages * num_codebooks(section.stage)
        case ProductConfig():
            return section.num_groups * num_codebooks(section.group)
        case HierarchicalConfig():
            top = section.top
            depth = 1
            while isinstance(top, HierarchicalConfig):
                top = top.top
                depth += 1
            bottom = num_codebooks(section.bottom) * 2 ** (depth * section.grid_dims)
            return num_codebooks(section.top) + bottom
        case PyramidConfig():
            in_a_cell = sum(
                2 ** (number * section.grid_dims) for number in range(section.num_grids)
            )
            return in_a_cell * num_codebooks(section.stage)
    return 1


def quantizers_with(loss: str) -> str:
    """In words, the settings of a quantizer whose term `loss` has a weight in `losses`."""
    kinds = []
    for section in FAMILIES:
        if loss in section.losses:
            beside = section.losses[loss]
            kind = f"kind={section.model_fields['kind'].default}"
            kinds.append(f"{kind} and {beside}" if beside else kind)
    return f"a quantizer of {' or '.join(kinds)}"
