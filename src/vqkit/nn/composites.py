"""Layers of several quantizers: in a row, side by side, on several grids."""

from __future__ import annotations

from typing import Any, Literal

from ..config import quantizers as settings
from ..errors import VqkitError
from ..model.quantizers import Quantizer
from .layer import QuantizerLayer, settings_of


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
        section = settings_of(settings.ResidualConfig, locals(), width, stage=inner)
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
        section = settings_of(settings.ProductConfig, locals(), num_groups * width, group=inner)
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
        section = settings_of(
            settings.HierarchicalConfig,
            locals(),
            dim,
            top=inner_top,
            bottom=inner_bottom,
            latent_dim=dim,
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
        section = settings_of(settings.PyramidConfig, locals(), width, stage=inner)
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
