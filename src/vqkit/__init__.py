"""vqkit: train a discrete autoencoder on your own files, see that it is healthy, and use it.

vqkit.train("photos", "runs/photos")        model = vqkit.load("runs/photos")
codes = model.encode(images)                images = model.decode(codes)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import TrainingDiverged, VqkitError

if TYPE_CHECKING:
    from .artifact import Artifact
    from .coding import FormatError
    from .config import Config
    from .run import train
    from .run_prior import train_prior

__version__ = "0.1.0"
__all__ = [
    "Artifact",
    "Config",
    "FormatError",
    "TrainingDiverged",
    "VqkitError",
    "__version__",
    "load",
    "train",
    "train_prior",
]

_LAZY = {
    "Artifact": "artifact",
    "Config": "config",
    "FormatError": "coding",
    "train": "run",
    "train_prior": "run_prior",
}


def load(folder: Any) -> Artifact:
    """The trained model of an artifact folder, ready for `encode`, `decode` and `reconstruct`."""
    from .artifact import Artifact

    return Artifact.load(folder)


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: torch takes seconds, `vqkit --help` must not wait for it."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module 'vqkit' has no attribute '{name}'")
