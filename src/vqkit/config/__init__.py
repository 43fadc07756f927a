"""Every setting of vqkit: frozen sections in the order of the data flow, loaded from one YAML file and overrides.

A recipe is a complete YAML file; `load` merges `key.subkey=value` overrides into it and checks the result, `dump`
writes it back with every field's description as a comment. Only the errors are imported from outside.
"""

from .loading import default_override, dump, from_tree, load, recipe_names, recipe_summary, recipe_text
from .prior import PriorConfig, PriorNetworkConfig
from .quantizers import (
    BSQConfig,
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
from .sections import (
    AugmentConfig,
    CoderConfig,
    Config,
    ConvConfig,
    DataConfig,
    LossConfig,
    MLPConfig,
    ModelConfig,
    NetworkConfig,
    NoiseConfig,
    PatchConfig,
    TrainConfig,
    TransformConfig,
    WeightConfig,
)

__all__ = [
    "AugmentConfig",
    "BSQConfig",
    "CoderConfig",
    "Config",
    "ConvConfig",
    "DataConfig",
    "FSQConfig",
    "GaussianCodebookConfig",
    "HierarchicalConfig",
    "LFQConfig",
    "LossConfig",
    "MLPConfig",
    "ModelConfig",
    "NetworkConfig",
    "NoiseConfig",
    "NoneConfig",
    "PatchConfig",
    "PriorConfig",
    "PriorNetworkConfig",
    "ProductConfig",
    "QuantizerConfig",
    "ResidualConfig",
    "SimVQConfig",
    "TrainConfig",
    "TransformConfig",
    "VQConfig",
    "WeightConfig",
    "default_override",
    "dump",
    "from_tree",
    "load",
    "recipe_names",
    "recipe_summary",
    "recipe_text",
]
