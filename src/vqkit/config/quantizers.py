"""Settings of every quantizer: one class a family, told apart by `kind`.

`FamilyConfig` is the one list of families. The composites (residual, product, hierarchical) take
any of them, and their own unions are made from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, TypeAlias, Union, get_args

from pydantic import Field, model_validator

from .base import Count, NonNegative, Positive, Section, Share

# A neighbourhood that has shrunk to this many cells still gives the next cell 4 % of the pull.
# That keeps the order of the map, and every code alive.
FINAL_RADIUS = 0.4
# Most codes in a cell of a hierarchy's coarsest grid: each further grid has two to eight times
# more.
MAX_CODEBOOKS = 1 << 12

CodebookSize = Annotated[int, Field(ge=2, le=1 << 20)]
Bits = Annotated[int, Field(ge=1, le=40)]
Levels = Annotated[
    tuple[Annotated[int, Field(ge=2, le=256)], ...], Field(min_length=1, max_length=24)
]


class QuantizerSection(Section):
    """The base of a quantizer's settings. A setting that has no effect beside others is refused."""

    # Composites in which `shared_codebook` makes a difference, because something is learned from
    # the tokens of all parts together.
    sharing_matters_in: ClassVar[tuple[str, ...]] = ("residual", "product")

    def _refuse_idle(self, names: Iterable[str], condition: str) -> None:
        """ValueError if one of these settings was changed, as it would act only with
        `condition`.
        """
        for name in names:
            default = type(self).model_fields[name].default
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name} has no effect here, it acts only with {condition}: "
                    f"set that too, or leave {name} at {default}"
                )


class NoneConfig(QuantizerSection):
    """No quantizer: a plain autoencoder, or a VAE with `model.variational`; codes are float32
    bits.
    """

    kind: Literal["none"] = "none"
    code_dim: Count = 64
    """channels of the latents"""


class VQConfig(QuantizerSection):
    """A learned codebook with nearest-neighbour assignment (van den Oord et al. 2017)."""

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
    """a code used less than this share of uniform usage is replaced by a latent of the batch;
    0 = never
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
    distance to them; files get smaller and images a little coarser; 0 = the nearest code"""
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

    @model_validator(mode="after")
    def _settings_act(self) -> VQConfig:
        if self.estimator != "gumbel":
            gumbel = ("temperature", "final_temperature", "temperature_steps")
            self._refuse_idle(gumbel, "estimator=gumbel")
        if self.neighbourhood:
            self._refuse_idle(("kmeans_iterations", "revive_threshold"), "neighbourhood=0")
        else:
            self._refuse_idle(("neighbourhood_steps",), "neighbourhood above 0")
        if self.update == "gradient" and not self.revive_threshold and not self.rate:
            self._refuse_idle(("decay",), "update=ema, a revive_threshold or a rate")
        return self


class SimVQConfig(QuantizerSection):
    """A frozen random codebook behind a learned linear map (Zhu et al. 2024, arXiv 2411.02038)."""

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

    sharing_matters_in: ClassVar[tuple[str, ...]] = ()

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

    @model_validator(mode="after")
    def _settings_act(self) -> GaussianCodebookConfig:
        if self.layout == "bins":
            self._refuse_idle(("codebook_size", "code_dim"), "layout=draws")
        else:
            self._refuse_idle(("levels",), "layout=bins")
        return self


# Every family that quantises tokens. A new one is added here, and nowhere else in the settings.
FamilyConfig: TypeAlias = Union[
    VQConfig,
    SimVQConfig,
    FSQConfig,
    LFQConfig,
    BSQConfig,
    GaussianCodebookConfig,
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
    def _settings_act(self) -> ResidualConfig:
        _check_inside(self.stage, "residual", self.num_stages, self.shared_codebook)
        if self.num_stages == 1:
            self._refuse_idle(("quantizer_dropout",), "num_stages above 1")
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
    def _settings_act(self) -> ProductConfig:
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


QuantizerConfig: TypeAlias = Annotated[
    Union[NoneConfig, FamilyConfig, ResidualConfig, ProductConfig, HierarchicalConfig],
    Field(discriminator="kind"),
]
# The classes of the two unions above, for whoever lists what there is.
FAMILIES: tuple[type[QuantizerSection], ...] = get_args(FamilyConfig)
QUANTIZERS: tuple[type[QuantizerSection], ...] = get_args(get_args(QuantizerConfig)[0])


def num_codebooks(section: QuantizerSection) -> int:
    """Codes of a position, of a hierarchy those of a cell of its coarsest grid, as they will be
    built.
    """
    match section:
        case ResidualConfig():
            return section.num_stages
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
    return 1
