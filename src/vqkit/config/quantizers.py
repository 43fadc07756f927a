"""Settings of every bottleneck: one class a family, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, TypeVar, Union

from pydantic import Field, model_validator

from .base import Count, NonNegative, Positive, Section, Share

SectionT = TypeVar("SectionT", bound=Section)


def without_projection(whole: SectionT, inner: Section) -> SectionT:
    """`whole`, if the quantizer inside of it projects nothing; ValueError otherwise."""
    if getattr(inner, "latent_dim", None) is not None:
        raise ValueError("the quantizer inside projects nothing: set latent_dim of the outer one instead")
    return whole


CodebookSize = Annotated[int, Field(ge=2, le=1 << 20)]
Bits = Annotated[int, Field(ge=1, le=40)]
Levels = Annotated[tuple[Annotated[int, Field(ge=2, le=256)], ...], Field(min_length=1, max_length=24)]


class NoneConfig(Section):
    """No quantizer: a plain autoencoder, or a VAE with `model.variational`. Codes are the latents' float32 bits."""

    kind: Literal["none"] = "none"
    code_dim: Count = 64
    """channels of the latents"""


class VQConfig(Section):
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
    """how codes learn: moving averages of the latents they win, or the optimiser through codebook_loss"""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """of the moving averages, per step; shorter in the first steps"""
    kmeans_iterations: Annotated[int, Field(ge=0, le=100)] = 10
    """Lloyd steps on the first training batch; 0 = random initial codes"""
    revive_threshold: Share = 0.1
    """a code used less than this share of uniform usage is replaced by a latent of the batch; 0 = never"""
    estimator: Literal["straight_through", "rotation", "gumbel"] = "straight_through"
    """how gradients pass the quantizer: as if it were not there, rotated and scaled with the code, or by sampling codes
    with Gumbel noise in training"""
    temperature: Positive = 1.0
    """of gumbel at the start: codes are drawn from softmax(-squared distance / temperature)"""
    final_temperature: Positive = 0.05
    """of gumbel at the end of its schedule"""
    temperature_steps: Count = 2000
    """steps in which gumbel's temperature falls, exponentially"""
    rate: NonNegative = 0.0
    """weight of a code's bits where latents choose their codes, in units of their mean squared distance to them; files
    get smaller and pictures a little coarser; 0 = the nearest code"""
    neighbourhood: NonNegative = 0.0
    """initial radius, in cells of a 2-D map of the codes, in which a latent pulls the neighbours of its code too
    (Kohonen): neighbours on the map end up alike; with update: ema; 0 = off"""
    neighbourhood_steps: Count = 1000
    """steps in which that radius shrinks to less than one cell"""


class SimVQConfig(Section):
    """A frozen random codebook behind a learned linear map (Zhu et al. 2024, arXiv 2411.02038)."""

    kind: Literal["simvq"] = "simvq"
    codebook_size: CodebookSize = 512
    """number of code vectors, K"""
    code_dim: Count = 4
    """width of a code vector; latents are projected down to it when latent_dim differs"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = code_dim, no projection"""


class FSQConfig(Section):
    """Finite scalar quantisation: every channel is rounded to a few levels (Mentzer et al. 2023, arXiv 2309.15505)."""

    kind: Literal["fsq"] = "fsq"
    levels: Levels = (8, 8, 8)
    """levels per channel; their product is the codebook size"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = one per level, no projection"""


class LFQConfig(Section):
    """Lookup-free quantisation: one bit a channel, its sign (Yu et al. 2023, arXiv 2310.05737)."""

    kind: Literal["lfq"] = "lfq"
    bits: Bits = 9
    """bits of a code, one channel each; the codebook size is two to this power"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = one per bit, no projection"""
    inverse_temperature: Positive = 1.0
    """of the soft assignment that the entropy term looks at; large = hard"""
    diversity: NonNegative = 20.0
    """weight of the entropy of the average code inside of the entropy term, which keeps all codes in use"""


class BSQConfig(Section):
    """Binary spherical quantisation: the sign of a latent on the unit sphere (Zhao et al. 2024, arXiv 2406.07548)."""

    kind: Literal["bsq"] = "bsq"
    bits: Bits = 9
    """bits of a code, one channel each; the codebook size is two to this power"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = one per bit, no projection"""
    inverse_temperature: Positive = 10.0
    """of the soft assignment that the entropy term looks at; large = hard"""
    diversity: NonNegative = 10.0
    """weight of the entropy of the average code inside of the entropy term, which keeps all codes in use"""


class GaussianCodebookConfig(Section):
    """A fixed codebook made from the prior N(0, I): codes of latents that follow the prior are uniform."""

    kind: Literal["gaussian_codebook"] = "gaussian_codebook"
    layout: Literal["bins", "draws"] = "bins"
    """bins = every channel cut into bins of equal probability; draws = frozen random vectors (arXiv 2512.06609)"""
    levels: Levels = (8, 8, 8)
    """bins: how many per channel; their product is the codebook size"""
    codebook_size: CodebookSize = 512
    """draws: number of vectors"""
    code_dim: Count = 4
    """draws: width of a vector"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = the codes' width, no projection"""


FamilyConfig: TypeAlias = Annotated[
    Union[VQConfig, SimVQConfig, FSQConfig, LFQConfig, BSQConfig, GaussianCodebookConfig], Field(discriminator="kind")
]


class ResidualConfig(Section):
    """Several quantizers in a row, each for what was left over (Zeghidour et al. 2021, arXiv 2107.03312)."""

    kind: Literal["residual"] = "residual"
    num_stages: Annotated[int, Field(ge=1, le=64)] = 4
    """quantizers in a row; as many codes a position"""
    stage: FamilyConfig = VQConfig()
    """each of them; its latent_dim stays null"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = the width of a stage, no projection"""
    quantizer_dropout: Share = 0.0
    """share of the training batches that use only a random number of the first stages, so that fewer decode too"""
    shared_codebook: bool = False
    """one quantizer for all stages"""

    @model_validator(mode="after")
    def _projects_once(self) -> ResidualConfig:
        return without_projection(self, self.stage)


class ProductConfig(Section):
    """Channels cut into groups, each with a quantizer of its own (Jegou et al. 2011); multi-head quantisation."""

    kind: Literal["product"] = "product"
    num_groups: Annotated[int, Field(ge=1, le=64)] = 2
    """groups of channels; as many codes a position, times those of a group"""
    group: Annotated[
        Union[VQConfig, SimVQConfig, FSQConfig, LFQConfig, BSQConfig, GaussianCodebookConfig, ResidualConfig],
        Field(discriminator="kind"),
    ] = VQConfig(code_dim=8)
    """each of them; its latent_dim stays null"""
    latent_dim: Count | None = None
    """channels of the latents around the quantizer; null = those of all groups, no projection"""
    shared_codebook: bool = False
    """one quantizer for all groups, as in heads that share a codebook"""

    @model_validator(mode="after")
    def _projects_once(self) -> ProductConfig:
        return without_projection(self, self.group)


MAX_CODEBOOKS = 1 << 12
"""of a hierarchy: every further grid has four or eight times as many"""


class HierarchicalConfig(Section):
    """Two grids: a coarse one first, then a fine one that is told the coarse (VQ-VAE-2, Razavi et al. 2019)."""

    kind: Literal["hierarchical"] = "hierarchical"
    top: Annotated[
        Union[
            VQConfig,
            SimVQConfig,
            FSQConfig,
            LFQConfig,
            BSQConfig,
            GaussianCodebookConfig,
            ResidualConfig,
            ProductConfig,
            HierarchicalConfig,
        ],
        Field(discriminator="kind"),
    ] = VQConfig()
    """quantizer of the coarse grid, at half the height and width; hierarchical again for a third grid"""
    bottom: Annotated[
        Union[
            VQConfig,
            SimVQConfig,
            FSQConfig,
            LFQConfig,
            BSQConfig,
            GaussianCodebookConfig,
            ResidualConfig,
            ProductConfig,
        ],
        Field(discriminator="kind"),
    ] = VQConfig()
    """quantizer of the fine grid"""
    latent_dim: Count = 64
    """channels of the latents around the quantizer"""
    grid_dims: Literal[1, 2, 3] = 2
    """dimensions of the grid: 1 for sequences, 2 for images, 3 for volumes and video"""

    @model_validator(mode="after")
    def _is_bounded(self) -> HierarchicalConfig:
        if _num_codebooks(self) > MAX_CODEBOOKS:
            raise ValueError(f"a hierarchy has at most {MAX_CODEBOOKS} codes in a cell of its coarsest grid")
        return self


def _num_codebooks(section: Section) -> int:
    """Codes of a position, of a hierarchy those of a cell of its coarsest grid, as the quantizer will have them."""
    match section:
        case ResidualConfig():
            return section.num_stages
        case ProductConfig():
            return section.num_groups * _num_codebooks(section.group)
        case HierarchicalConfig():
            top, depth = section.top, 1
            while isinstance(top, HierarchicalConfig):
                top, depth = top.top, depth + 1
            return _num_codebooks(section.top) + _num_codebooks(section.bottom) * 2 ** (depth * section.grid_dims)
    return 1


QuantizerConfig: TypeAlias = Annotated[
    Union[
        NoneConfig,
        VQConfig,
        SimVQConfig,
        FSQConfig,
        LFQConfig,
        BSQConfig,
        GaussianCodebookConfig,
        ResidualConfig,
        ProductConfig,
        HierarchicalConfig,
    ],
    Field(discriminator="kind"),
]
