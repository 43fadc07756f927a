"""Priors over codes: a transformer that predicts any code from any others, and how codes are drawn from it."""

from .layout import Layout, halton_order
from .network import Condition, PriorNetwork
from .prior import Drawing, Prior, build_prior_network, caption_bytes, code_vectors
from .sampling import Sampling

__all__ = [
    "Condition",
    "Drawing",
    "Layout",
    "Prior",
    "PriorNetwork",
    "Sampling",
    "build_prior_network",
    "caption_bytes",
    "code_vectors",
    "halton_order",
]
