"""From settings to quantizers. A new family is one line in `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...config import quantizers as settings
from . import continuous, fsq, gaussian_codebook, lookup_free, scalar, simvq, vq
from .base import Bottleneck, Quantizer
from .hierarchical import HierarchicalQuantizer
from .product import ProductQuantizer
from .pyramid import PyramidQuantizer
from .residual import ResidualQuantizer

# What builds a family from its settings.
FAMILIES: dict[type[settings.QuantizerSection], Callable[[Any], Quantizer]] = {
    settings.NoneConfig: continuous.NoQuantizer,
    settings.VQConfig: vq.VectorQuantizer,
    settings.SimVQConfig: simvq.SimVQ,
    settings.FSQConfig: fsq.FiniteScalarQuantizer,
    settings.LFQConfig: lookup_free.LookupFreeQuantizer,
    settings.BSQConfig: lookup_free.BinarySphericalQuantizer,
    settings.GaussianCodebookConfig: gaussian_codebook.build_gaussian_codebook,
    settings.ScalarConfig: scalar.ScalarQuantizer,
}


def build_quantizer(config: settings.QuantizerConfig) -> Bottleneck:
    """The bottleneck of a config. ValueError for settings that contradict one another."""
    if isinstance(config, settings.HierarchicalConfig):
        top = build_quantizer(config.top)
        bottom = _positionwise(config.bottom)
        return HierarchicalQuantizer(top, bottom, config.latent_dim, config.grid_dims)
    if isinstance(config, settings.PyramidConfig):
        stages = [_positionwise(config.stage) for _ in range(config.num_grids)]
        dropout = config.quantizer_dropout
        return PyramidQuantizer(stages, config.latent_dim, config.grid_dims, dropout)
    return _positionwise(config)


def _positionwise(config: settings.QuantizerSection) -> Quantizer:
    """A quantizer that takes every position by itself: a family, or several in a row or side by
    side.
    """
    match config:
        case settings.ResidualConfig():
            count = 1 if config.shared_codebook else config.num_stages
            stages = [_positionwise(config.stage) for _ in range(count)]
            dropout = config.quantizer_dropout
            return ResidualQuantizer(stages, config.num_stages, config.latent_dim, dropout)
        case settings.ProductConfig():
            count = 1 if config.shared_codebook else config.num_groups
            groups = [_positionwise(config.group) for _ in range(count)]
            return ProductQuantizer(groups, config.num_groups, config.latent_dim)
        case _:
            return FAMILIES[type(config)](config)
