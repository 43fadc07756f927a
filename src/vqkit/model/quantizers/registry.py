"""From settings to quantizers: this `match` is the registry."""

from __future__ import annotations

from ...config import (
    BSQConfig,
    FamilyConfig,
    FSQConfig,
    GaussianCodebookConfig,
    HierarchicalConfig,
    LFQConfig,
    NoneConfig,
    ProductConfig,
    QuantizerConfig,
    ResidualConfig,
    SimVQConfig,
    VQConfig,
)
from .base import Bottleneck, Quantizer
from .continuous import NoQuantizer
from .fsq import FiniteScalarQuantizer
from .gaussian_codebook import build_gaussian_codebook
from .hierarchical import HierarchicalQuantizer
from .lookup_free import BinarySphericalQuantizer, LookupFreeQuantizer
from .product import ProductQuantizer
from .residual import ResidualQuantizer
from .simvq import SimVQ
from .vq import VectorQuantizer


def build_quantizer(config: QuantizerConfig) -> Bottleneck:
    """The bottleneck of a config. ValueError for settings that contradict one another."""
    match config:
        case HierarchicalConfig():
            top, bottom = build_quantizer(config.top), _positionwise(config.bottom)
            return HierarchicalQuantizer(top, bottom, config.latent_dim, config.grid_dims)
        case _:
            return _positionwise(config)


def _positionwise(config: NoneConfig | FamilyConfig | ResidualConfig | ProductConfig) -> Quantizer:
    match config:
        case NoneConfig():
            return NoQuantizer(config)
        case VQConfig():
            return VectorQuantizer(config)
        case SimVQConfig():
            return SimVQ(config)
        case FSQConfig():
            return FiniteScalarQuantizer(config)
        case LFQConfig():
            return LookupFreeQuantizer(config)
        case BSQConfig():
            return BinarySphericalQuantizer(config)
        case GaussianCodebookConfig():
            return build_gaussian_codebook(config)
        case ResidualConfig():
            stages = [_positionwise(config.stage) for _ in range(1 if config.shared_codebook else config.num_stages)]
            return ResidualQuantizer(stages, config.num_stages, config.latent_dim, config.quantizer_dropout)
        case ProductConfig():
            groups = [_positionwise(config.group) for _ in range(1 if config.shared_codebook else config.num_groups)]
            return ProductQuantizer(groups, config.num_groups, config.latent_dim)
