"""Quantizers for networks of your own: plain modules with keyword arguments.

    from vqkit.nn import VectorQuantizer

    quantizer = VectorQuantizer(dim=256, codebook_size=8192)
    out = quantizer(x)                        # x (B, ..., 256)
    loss = reconstruction(decoder(out.quantized), image) + out.loss
    codes = quantizer.encode(x)               # (B, ...) int64
    quantizer.decode(codes)                   # what the decoder gets, to the bit

Every class takes latents with the channels last, (B, ..., D), or with `channel_first=True` as
convolutions have them, (B, D, ...). Codes have the shape of the latents without their channels;
where a position has several codes (residual rows, products, pyramids), these lie where the channels
were: (B, ..., Q), or (B, Q, ...).

- In training mode `forward` learns: moving averages, revival of dead codes, schedules. One call is
  one step. Give it the whole batch; with gradient accumulation, the whole of what one step sees.
- All arithmetic is float32, whatever autocast does around it; `quantized` has the type of the
  latents.
- `mask` (B, ...) bool is True at real positions. Padded ones may hold anything, and have no part in
  codes (-1), loss and statistics.
- In a process group (DDP, FSDP2) codes learn from the tokens of all ranks.

This module is a stable interface: CHANGELOG.md says what changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import quantizers as settings
from .config.base import SectionT, section_of
from .config.conditions import idle_settings, refuse_idle
from .errors import VqkitError
from .model.quantizers import Bottleneck, Quantized, Quantizer, TokensQuantized, build_quantizer
from .model.quantizers.estimators import rotation, straight_through
from .model.quantizers.search import nearest
from .model.quantizers.vq import VectorQuantizer as _LearnedCodebook

__all__ = [
    "BSQ",
    "FSQ",
    "LFQ",
    "Codebook",
    "GaussianCodebook",
    "HierarchicalVQ",
    "ProductVQ",
    "PyramidVQ",
    "Quantized",
    "QuantizerLayer",
    "ResidualVQ",
    "ScalarQuantizer",
    "SimVQ",
    "VectorQuantizer",
    "load_vector_quantize_pytorch",
]

Distance = Literal["euclidean", "cosine"]
Estimator = Literal["straight_through", "rotation", "gumbel"]


class QuantizerLayer(nn.Module):
    """What every class here has: shapes, types and masks around a quantizer of vqkit.

    Attributes:
        dim: D, channels of the latents.
        codebook_size: K, values that a code can take; the largest where codebooks differ.
        num_codebooks: Q, codes of a position; of pyramids and hierarchies of a cell of the coarsest
            grid, which is also the grid of codes.
        settings: as they are in a recipe of vqkit, below `model.quantizer`; None where there are
            none.
    """

    def __init__(
        self, quantizer: settings.QuantizerConfig | Bottleneck, channel_first: bool = False
    ) -> None:
        super().__init__()
        self.channel_first = channel_first
        if isinstance(quantizer, Bottleneck):
            self.settings = None
            self.quantizer = quantizer
        else:
            refuse_idle(idle_settings(quantizer), f"vqkit.nn.{type(self).__name__}")
            self.settings = quantizer
            self.quantizer = build_quantizer(quantizer)

    @property
    def dim(self) -> int:
        return self.quantizer.latent_dim

    @property
    def codebook_size(self) -> int:
        return self.quantizer.codebook_size

    @property
    def num_codebooks(self) -> int:
        return self.quantizer.num_codebooks

    def forward(
        self, x: Tensor, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Quantized:
        """Quantise latents.

        Args:
            x: (B, ..., D), any floating type.
            mask: (B, ...) bool, True at real positions; None = all are.
            generator: of everything random in training mode; None = PyTorch's own.

        Returns:
            quantized as x, with the gradient to it; codes (B, ...) or (B, ..., Q) int64; loss, a
            scalar with the weights of the paper; terms, its parts without weights, by name.
            ValueError for latents of another width and masks of another shape.
        """
        found = self.quantizer(self._inside(x), generator, mask)
        quantized = self._outside(found.quantized).to(x.dtype)
        return Quantized(quantized, self._codes_outside(found.codes), found.loss, found.terms)

    @torch.no_grad()
    def encode(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Latents (B, ..., D) -> codes (B, ...) or (B, ..., Q) int64, -1 where padded; nothing is
        learned from them.
        """
        return self._codes_outside(self.quantizer.encode(self._inside(x), mask))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes -> quantized (B, ..., D) float32, zeros where codes are -1; of residual rows and
        pyramids the last codes of a position may be -1, which are left out then. ValueError for
        codes that stand for nothing.
        """
        if self.num_codebooks == 1:
            codes = codes[:, None]
        elif not self.channel_first:
            codes = codes.movedim(-1, 1)
        return self._outside(self.quantizer.decode(codes))

    @torch.no_grad()
    def initialise(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Set codes from latents (B, ..., D), as the first training batch does by itself. Needed
        before `torch.compile(..., fullgraph=True)` alone, as k-means is no part of a graph.
        """
        was_training = self.training
        self.train()(x, mask)
        self.train(was_training)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, codebook_size={self.codebook_size}, codes={self.num_codebooks}"

    def _inside(self, x: Tensor) -> Tensor:  # (B, ..., D) -> (B, D, ...)
        return x if self.channel_first else x.movedim(-1, 1)

    def _outside(self, x: Tensor) -> Tensor:  # (B, D, ...) -> (B, ..., D)
        return x if self.channel_first else x.movedim(1, -1)

    def _codes_outside(self, codes: Tensor) -> Tensor:
        return codes[:, 0] if self.num_codebooks == 1 else self._outside(codes)


def _settings(layer: type[QuantizerLayer], of: type[SectionT], **given: Any) -> SectionT:
    """The settings of a layer. VqkitError for values that cannot be."""
    return section_of(of, given, f"vqkit.nn.{layer.__name__}", "see help() of the class")


def _width(dim: int, inner: int) -> int | None:
    """The latents' channels where a linear layer leads to the codes' width, else None."""
    return None if dim == inner else dim


# ----------------------------------------------------------------------------------------- families


class VectorQuantizer(QuantizerLayer):
    """The nearest code of a learned codebook (van den Oord et al. 2017, arXiv 1711.00937).

    >>> quantizer = VectorQuantizer(dim=16, codebook_size=64)
    >>> out = quantizer(torch.randn(2, 10, 16))
    >>> out.quantized.shape, out.codes.shape
    (torch.Size([2, 10, 16]), torch.Size([2, 10]))
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int = 512,
        *,
        code_dim: int | None = None,
        distance: Distance = "euclidean",
        update: Literal["ema", "gradient"] = "ema",
        decay: float = 0.98,
        kmeans_iterations: int = 10,
        revive_threshold: float = 0.1,
        estimator: Estimator = "straight_through",
        temperature: float = 1.0,
        final_temperature: float = 0.05,
        temperature_steps: int = 2000,
        rate: float = 0.0,
        neighbourhood: float = 0.0,
        neighbourhood_steps: int = 1000,
        channel_first: bool = False,
    ) -> None:
        """Settings without effect beside the others are refused (VqkitError).

        Args:
            dim: D, channels of the latents.
            codebook_size: K, number of codes.
            code_dim: d, width of a code, with a linear layer before and behind; None = dim. Small
                ones (4 to 16) keep large codebooks in use.
            distance: euclidean, or cosine, which compares directions.
            update: how codes learn: moving averages of the tokens that they win, or the optimiser.
            decay: of the moving averages.
            kmeans_iterations: Lloyd steps on the first training batch; 0 = random initial codes.
            revive_threshold: codes that win less than this share of uniform usage jump to where
                tokens are; 0 = never.
            estimator: how gradients pass: straight_through, rotation (Fifty et al. 2024, arXiv
                2410.06424) or gumbel.
            temperature, final_temperature, temperature_steps: of gumbel, over so many steps.
            rate: weight of a code's bits in the choice of codes; 0 = the nearest.
            neighbourhood, neighbourhood_steps: radius of a map of codes (Kohonen 1982) that shrinks
                over so many steps; 0 = none.
            channel_first: latents are (B, D, ...), not (B, ..., D).
        """
        code_dim = code_dim or dim
        section = _settings(
            VectorQuantizer,
            settings.VQConfig,
            codebook_size=codebook_size,
            code_dim=code_dim,
            latent_dim=_width(dim, code_dim),
            distance=distance,
            update=update,
            decay=decay,
            kmeans_iterations=kmeans_iterations,
            revive_threshold=revive_threshold,
            estimator=estimator,
            temperature=temperature,
            final_temperature=final_temperature,
            temperature_steps=temperature_steps,
            rate=rate,
            neighbourhood=neighbourhood,
            neighbourhood_steps=neighbourhood_steps,
        )
        super().__init__(section, channel_first)

    @property
    def codebook(self) -> Tensor:
        """The codes as they are compared and looked up (K, d)."""
        assert isinstance(self.quantizer, _LearnedCodebook)
        return self.quantizer.codes()


class SimVQ(QuantizerLayer):
    """A frozen random codebook behind a learned linear map, of which no code dies (Zhu et al. 2024,
    arXiv 2411.02038).

    >>> SimVQ(dim=16, codebook_size=64)(torch.randn(2, 10, 16)).codes.shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int = 512,
        *,
        code_dim: int | None = None,
        channel_first: bool = False,
    ) -> None:
        """See VectorQuantizer."""
        code_dim = code_dim or dim
        section = _settings(
            SimVQ,
            settings.SimVQConfig,
            codebook_size=codebook_size,
            code_dim=code_dim,
            latent_dim=_width(dim, code_dim),
        )
        super().__init__(section, channel_first)


class FSQ(QuantizerLayer):
    """Finite scalar quantisation: a few channels, each rounded to levels (Mentzer et al. 2023,
    arXiv 2309.15505). No losses, nothing that can collapse.

    >>> FSQ(dim=16, levels=(8, 5, 5, 5)).codebook_size
    1000
    """

    def __init__(
        self, dim: int, levels: Sequence[int] = (8, 8, 8), *, channel_first: bool = False
    ) -> None:
        """levels: of each channel of a code; their product is the codebook size. Where there are
        not dim of them, a linear layer lies before and behind.
        """
        section = _settings(
            FSQ, settings.FSQConfig, levels=tuple(levels), latent_dim=_width(dim, len(levels))
        )
        super().__init__(section, channel_first)


class LFQ(QuantizerLayer):
    """Lookup-free quantisation: the signs of a few channels (Yu et al. 2023, arXiv 2310.05737).

    >>> LFQ(dim=16, bits=18).codebook_size
    262144
    """

    def __init__(
        self,
        dim: int,
        bits: int = 9,
        *,
        inverse_temperature: float = 1.0,
        diversity: float = 20.0,
        channel_first: bool = False,
    ) -> None:
        """bits: of a code, a channel each; the codebook size is two to this power.
        inverse_temperature, diversity: of the term `entropy`, see `vqkit recipes --quantizers`.
        """
        section = _settings(
            LFQ,
            settings.LFQConfig,
            bits=bits,
            latent_dim=_width(dim, bits),
            inverse_temperature=inverse_temperature,
            diversity=diversity,
        )
        super().__init__(section, channel_first)


class BSQ(QuantizerLayer):
    """Binary spherical quantisation: the signs of a few channels on the unit sphere (Zhao et al.
    2024, arXiv 2406.07548).

    >>> BSQ(dim=16, bits=18, channel_first=True)(torch.randn(2, 16, 4, 4)).codes.shape
    torch.Size([2, 4, 4])
    """

    def __init__(
        self,
        dim: int,
        bits: int = 9,
        *,
        inverse_temperature: float = 10.0,
        diversity: float = 10.0,
        channel_first: bool = False,
    ) -> None:
        """See LFQ."""
        section = _settings(
            BSQ,
            settings.BSQConfig,
            bits=bits,
            latent_dim=_width(dim, bits),
            inverse_temperature=inverse_temperature,
            diversity=diversity,
        )
        super().__init__(section, channel_first)


class GaussianCodebook(QuantizerLayer):
    """A fixed codebook made from N(0, I): every channel cut into bins of equal probability, so that
    codes of latents that follow the prior are uniform.

    >>> GaussianCodebook(dim=3, levels=(8, 8, 8)).codebook_size
    512
    """

    def __init__(
        self, dim: int, levels: Sequence[int] = (8, 8, 8), *, channel_first: bool = False
    ) -> None:
        """levels: bins of each channel of a code; their product is the codebook size."""
        section = _settings(
            GaussianCodebook,
            settings.GaussianCodebookConfig,
            levels=tuple(levels),
            latent_dim=_width(dim, len(levels)),
        )
        super().__init__(section, channel_first)


class ScalarQuantizer(QuantizerLayer):
    """Entropy-constrained scalar quantisation: every channel rounded to a step, with a price for
    its bits. The term `rate` is what the codes cost, in bits.

    >>> ScalarQuantizer(dim=16)(torch.randn(2, 10, 16)).codes.shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        dim: int,
        *,
        channels: int | None = None,
        step: float = 0.75,
        levels: int = 127,
        rate: float = 0.1,
        channel_first: bool = False,
    ) -> None:
        """channels: with a code each; None = dim. step: between two values. levels: of a channel,
        an odd number. rate: weight of a bit in the choice of codes, in squared steps.
        """
        channels = channels or dim
        section = _settings(
            ScalarQuantizer,
            settings.ScalarConfig,
            channels=channels,
            step=step,
            levels=levels,
            rate=rate,
            latent_dim=_width(dim, channels),
        )
        super().__init__(section, channel_first)


# --------------------------------------------------------------------------------------- composites


class ResidualVQ(QuantizerLayer):
    """Quantizers in a row, each for what those before left over (Zeghidour et al. 2021, arXiv
    2107.03312).

    >>> quantizer = ResidualVQ(dim=16, num_stages=4, codebook_size=64)
    >>> codes = quantizer.encode(torch.randn(2, 10, 16))
    >>> codes.shape
    torch.Size([2, 10, 4])
    >>> codes[..., 2:] = -1                   # the first two stages alone
    >>> quantizer.decode(codes).shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        dim: int,
        num_stages: int = 4,
        codebook_size: int = 512,
        *,
        stage: QuantizerLayer | None = None,
        quantizer_dropout: float = 0.0,
        shared_codebook: bool = False,
        channel_first: bool = False,
    ) -> None:
        """
        Args:
            num_stages: quantizers in a row, Q.
            codebook_size: K of each, a VectorQuantizer of width dim.
            stage: a layer whose settings every stage has, in place of that; where its dim is
                another one, linear layers lie before the first stage and behind all.
            quantizer_dropout: share of the training batches that use only a random number of the
                first stages, so that fewer decode too.
            shared_codebook: one quantizer for all stages.
        """
        inner, width = _inner(stage, dim, codebook_size)
        section = _settings(
            ResidualVQ,
            settings.ResidualConfig,
            num_stages=num_stages,
            stage=inner,
            latent_dim=_width(dim, width),
            quantizer_dropout=quantizer_dropout,
            shared_codebook=shared_codebook,
        )
        super().__init__(section, channel_first)


class ProductVQ(QuantizerLayer):
    """Channels cut into groups, each with a quantizer of its own: multi-head quantisation (Jegou et
    al. 2011).

    >>> ProductVQ(dim=16, num_groups=2, codebook_size=64)(torch.randn(2, 10, 16)).codes.shape
    torch.Size([2, 10, 2])
    """

    def __init__(
        self,
        dim: int,
        num_groups: int = 2,
        codebook_size: int = 512,
        *,
        group: QuantizerLayer | None = None,
        shared_codebook: bool = False,
        channel_first: bool = False,
    ) -> None:
        """
        Args:
            num_groups: of channels; without `group` dim is a multiple of it.
            codebook_size: K of each, a VectorQuantizer of width dim / num_groups.
            group: a layer whose settings every group has, in place of that, such as a ResidualVQ.
            shared_codebook: one quantizer for all groups.
        """
        if group is None and dim % num_groups:
            raise VqkitError(
                f"vqkit.nn.ProductVQ: dim={dim} is no multiple of num_groups={num_groups}"
            )
        inner, width = _inner(group, dim // num_groups, codebook_size)
        section = _settings(
            ProductVQ,
            settings.ProductConfig,
            num_groups=num_groups,
            group=inner,
            latent_dim=_width(dim, num_groups * width),
            shared_codebook=shared_codebook,
        )
        super().__init__(section, channel_first)


class HierarchicalVQ(QuantizerLayer):
    """A coarse grid first, then a fine one conditioned on it (VQ-VAE-2, Razavi et al. 2019, arXiv
    1906.00446). Sides of the grid are even; codes lie on the coarse one.

    >>> quantizer = HierarchicalVQ(dim=16, codebook_size=64, channel_first=True)
    >>> quantizer(torch.randn(2, 16, 4, 4)).codes.shape
    torch.Size([2, 5, 2, 2])
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int = 512,
        *,
        code_dim: int = 16,
        top: QuantizerLayer | None = None,
        bottom: QuantizerLayer | None = None,
        grid_dims: Literal[1, 2, 3] = 2,
        channel_first: bool = False,
    ) -> None:
        """codebook_size, code_dim: of both, VectorQuantizers. top, bottom: layers whose settings
        they have in place of that. grid_dims: 1 for sequences, 2 for images, 3 for volumes.
        """
        inner_top, _ = _inner(top, code_dim, codebook_size)
        inner_bottom, _ = _inner(bottom, code_dim, codebook_size)
        section = _settings(
            HierarchicalVQ,
            settings.HierarchicalConfig,
            top=inner_top,
            bottom=inner_bottom,
            latent_dim=dim,
            grid_dims=grid_dims,
        )
        super().__init__(section, channel_first)


class PyramidVQ(QuantizerLayer):
    """Residual codes over several grids, a coarse one first and each finer one for what was left
    over (Tian et al. 2024, arXiv 2404.02905). Sides of the grid are multiples of 2^(num_grids - 1);
    codes lie on the coarsest.

    >>> quantizer = PyramidVQ(dim=16, num_grids=3, codebook_size=64, channel_first=True)
    >>> quantizer(torch.randn(2, 16, 8, 8)).codes.shape
    torch.Size([2, 21, 2, 2])
    """

    def __init__(
        self,
        dim: int,
        num_grids: int = 3,
        codebook_size: int = 512,
        *,
        stage: QuantizerLayer | None = None,
        grid_dims: Literal[1, 2, 3] = 2,
        quantizer_dropout: float = 0.0,
        channel_first: bool = False,
    ) -> None:
        """See ResidualVQ; a stage a grid. grid_dims: 1 for sequences, 2 for images, 3 for
        volumes.
        """
        inner, width = _inner(stage, dim, codebook_size)
        section = _settings(
            PyramidVQ,
            settings.PyramidConfig,
            num_grids=num_grids,
            stage=inner,
            latent_dim=_width(dim, width),
            grid_dims=grid_dims,
            quantizer_dropout=quantizer_dropout,
        )
        super().__init__(section, channel_first)


def _inner(layer: QuantizerLayer | None, dim: int, codebook_size: int) -> tuple[Any, int]:
    """What a composite is made of, as settings, and its width: that of a layer without its
    projections.
    """
    if layer is None:
        return {"kind": "vq", "codebook_size": codebook_size, "code_dim": dim}, dim
    if not isinstance(layer.quantizer, Quantizer) or layer.settings is None:
        raise VqkitError(f"vqkit.nn.{type(layer).__name__} cannot lie inside of another quantizer")
    return {**layer.settings.model_dump(), "latent_dim": None}, layer.quantizer.code_dim


# ----------------------------------------------------------------------------------- given vectors


class Codebook(QuantizerLayer):
    """The nearest of vectors that are given and stay: another model's codes, centres of k-means,
    embeddings. Its loss is the term `commitment`.

    >>> codebook = Codebook(torch.eye(4))
    >>> codebook.encode(torch.tensor([[0.1, 0.9, 0.0, 0.2]]))
    tensor([1])
    """

    def __init__(
        self,
        vectors: Tensor,
        *,
        estimator: Literal["straight_through", "rotation"] = "straight_through",
        channel_first: bool = False,
    ) -> None:
        """vectors: (K, D), at least two. estimator: how gradients pass."""
        if vectors.dim() != 2 or len(vectors) < 2 or not bool(vectors.isfinite().all()):
            raise ValueError(
                f"vectors must be finite (K, D) of two codes or more, got {tuple(vectors.shape)}"
            )
        super().__init__(_GivenVectors(vectors, estimator), channel_first)


class _GivenVectors(Quantizer):
    default_weights = {"commitment": 0.25}

    vectors: Tensor

    def __init__(self, vectors: Tensor, estimator: str) -> None:
        super().__init__(vectors.shape[1], [len(vectors)])
        self.estimate = rotation if estimator == "rotation" else straight_through
        self.is_straight_through = self.estimate is straight_through
        self.register_buffer("vectors", vectors.detach().float().clone())

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        codes = self.assign(tokens.detach())
        picked = self.lookup(codes)
        terms = {"commitment": F.mse_loss(tokens, picked)}
        return TokensQuantized(self.estimate(tokens, picked), codes, terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return nearest(tokens, self.vectors)[:, None]

    def lookup(self, codes: Tensor) -> Tensor:
        return self.vectors.index_select(0, codes[:, 0])


# ------------------------------------------------------------------- weights from another library

# Steps after which the decay of moving averages is the one that was set.
SETTLED = 1 << 20


@torch.no_grad()
def load_vector_quantize_pytorch(layer: QuantizerLayer, state: Mapping[str, Tensor]) -> None:
    """Fill a layer with what `state_dict()` gives of a module of vector-quantize-pytorch, after
    which both give the same codes.

    Which layer takes the state of which module: VectorQuantizer that of VectorQuantize, with
    `heads` and `separate_codebook_per_head` ProductVQ; ResidualVQ, SimVQ and LFQ that of their
    namesakes. Sizes, distance and projections must be those of the module: a state does not tell
    them all. VqkitError for a state of another kind or size, and for what has no counterpart here.
    """
    taken = _codes_from(layer, state)
    for name in ("project_in", "project_out"):
        for part in ("weight", "bias"):
            if f"{name}.{part}" in state:
                taken[f"{name}.{part}"] = state[f"{name}.{part}"]
    if isinstance(layer, LFQ):
        # There the first channel is the most significant bit.
        if "project_in.weight" not in taken:
            raise VqkitError("channels of LFQ come in another order: only with projections")
        taken["project_in.weight"] = taken["project_in.weight"].flip(0)
        taken["project_in.bias"] = taken["project_in.bias"].flip(0)
        taken["project_out.weight"] = taken["project_out.weight"].flip(1)
    own = layer.quantizer.state_dict()
    # Codes that an optimiser moves have no sums of tokens.
    taken = {name: value for name, value in taken.items() if name in own or "ema_sum" not in name}
    for name, value in taken.items():
        if name not in own or own[name].shape != value.shape:
            mine = tuple(own[name].shape) if name in own else "nothing"
            raise VqkitError(
                f"the state has {tuple(value.shape)} for {name}, and this layer has {mine}: give "
                "it the sizes of the module"
            )
    layer.quantizer.load_state_dict({**own, **taken})


def _codes_from(layer: QuantizerLayer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a state says of codebooks, by the names that it has in the quantizer of a layer."""
    taken: dict[str, Tensor] = {}
    match layer:
        case ResidualVQ():
            if not _fits_any_scale(layer.quantizer):
                raise VqkitError(
                    "stages that compare directions get residuals of length one here, and of their "
                    "own length there: only with distance=euclidean"
                )
            for number in range(layer.num_codebooks):
                found = _codebooks(state, f"layers.{number}.")
                taken |= _of_codebook(found, 0, f"stages.{number}.")
            return taken
        case ProductVQ():
            found = _codebooks(state, "")
            for head in range(len(found["embed"])):
                taken |= _of_codebook(found, head, f"groups.{head}.")
            return taken
        case VectorQuantizer():
            found = _codebooks(state, "")
            if len(found["embed"]) != 1:
                raise VqkitError(
                    f"the state has {len(found['embed'])} heads: fill a vqkit.nn.ProductVQ with as "
                    "many groups"
                )
            return _of_codebook(found, 0, "")
        case SimVQ():
            return {
                "frozen": _given(state, "frozen_codebook"),
                "map.weight": _given(state, "code_transform.weight"),
                "fitted": torch.tensor(True),
            }
        case LFQ():
            return {}
    raise VqkitError(
        f"vqkit.nn.{type(layer).__name__} has no counterpart in vector-quantize-pytorch that gives "
        "the same codes"
    )


def _fits_any_scale(quantizer: Bottleneck) -> bool:
    return isinstance(quantizer, Quantizer) and quantizer.fits_any_scale


def _codebooks(state: Mapping[str, Tensor], at: str) -> dict[str, Tensor]:
    """Codes (h, K, d) of h heads, how many tokens each wins, and sums of these."""
    names = ("embed", "cluster_size", "embed_avg")
    return {name: _given(state, f"{at}_codebook.{name}") for name in names}


def _of_codebook(found: Mapping[str, Tensor], head: int, at: str) -> dict[str, Tensor]:
    return {
        f"{at}codebook": found["embed"][head],
        f"{at}ema_count": found["cluster_size"][head],
        f"{at}ema_sum": found["embed_avg"][head],
        f"{at}updates": torch.tensor(SETTLED),
    }


def _given(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise VqkitError(f"the state has no {name}: it is of another module than this layer")
    return state[name]
