"""Settings that no kind of signal changes, and how settings are read from a YAML file and
overrides.

A recipe is a complete YAML file; `load` merges `key.subkey=value` overrides into it and checks the
result, `dump` writes it back with every field's description as a comment. Only the errors are
imported from outside.
"""

from .loading import (
    default_override,
    dump,
    from_tree,
    load,
    recipe_names,
    recipe_summary,
    recipe_text,
)
from .prior import PriorNetworkConfig
from .quantizers import (
    BSQConfig,
    FSQConfig,
    GaussianCodebookConfig,
    HierarchicalConfig,
    LFQConfig,
    NoneConfig,
    ProductConfig,
    PyramidConfig,
    QuantizerConfig,
    ResidualConfig,
    ScalarConfig,
    SimVQConfig,
    VQConfig,
)
from .sections import (
    CoderConfig,
    DataSection,
    LossConfig,
    TrainConfig,
    TransformConfig,
    WeightConfig,
)

__all__ = [
    "BSQConfig",
    "CoderConfig",
    "DataSection",
    "FSQConfig",
    "GaussianCodebookConfig",
    "HierarchicalConfig",
    "LFQConfig",
    "LossConfig",
    "NoneConfig",
    "PriorNetworkConfig",
    "ProductConfig",
    "PyramidConfig",
    "QuantizerConfig",
    "ResidualConfig",
    "ScalarConfig",
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
