"""Networks and bottlenecks. Nothing here knows of optimisers, loggers or files."""

from .autoencoder import Autoencoder, Output
from .quantizers import build_quantizer

__all__ = ["Autoencoder", "Output", "build_quantizer"]
