"""vqkit: train a discrete autoencoder on your own files, see that it is healthy, and use it.

    model = vqkit.train("photos", "runs/photos")  # later: vqkit.load("runs/photos")
    codes = model.encode(images)
    images = model.decode(codes)

Quantizers for networks of your own are in vqkit.nn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import TrainingDiverged, VqkitError

if TYPE_CHECKING:
    from .artifact.model import Model
    from .artifact.pair import Pair
    from .artifact.record import Artifact
    from .coding import FormatError
    from .pipelines.autoencoder import train
    from .pipelines.coders import train_coder
    from .pipelines.pairs import train_pairs
    from .pipelines.prior import train_prior
    from .pipelines.sharpen import sharpen
    from .report.shown import Report
    from .settings import Config
    from .training.progress import live

__version__ = "0.1.0"
__all__ = [
    "Artifact",
    "Config",
    "FormatError",
    "Model",
    "Pair",
    "Report",
    "TrainingDiverged",
    "VqkitError",
    "__version__",
    "live",
    "load",
    "sharpen",
    "train",
    "train_coder",
    "train_pairs",
    "train_prior",
]

_LAZY = {
    "Artifact": "artifact.record",
    "Config": "settings",
    "FormatError": "coding",
    "Model": "artifact.model",
    "Pair": "artifact.pair",
    "Report": "report.shown",
    "live": "training.progress",
    "sharpen": "pipelines.sharpen",
    "train": "pipelines.autoencoder",
    "train_coder": "pipelines.coders",
    "train_pairs": "pipelines.pairs",
    "train_prior": "pipelines.prior",
}


def load(folder: Any, device: Any = "auto") -> Model | Any:
    """The trained model of an artifact folder, ready for `encode`, `decode`, `reconstruct` and the
    rest.

    folder: its path, or hf://user/name[@revision], of which the files of the artifact are fetched
    from the Hugging Face hub.

    Of the folder of a pair, see `train_pairs`, it is a `Pair`, with `generate` and `score`.

    device: auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:1 or mps. A UserWarning
    says which files of the folder could not be used, if any. VqkitError for what is no artifact, or
    is damaged.
    """
    import warnings

    from .artifact.model import Model
    from .artifact.pair_store import is_pair, load_pair
    from .artifact.store import load_artifact

    if is_pair(folder):
        pair = load_pair(folder, device)
        for problem in pair.problems:
            warnings.warn(problem, stacklevel=2)
        return pair
    artifact = load_artifact(folder)
    for problem in artifact.problems:
        warnings.warn(problem, stacklevel=2)
    return Model(artifact, device)


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: torch takes seconds, `vqkit --help` must
    not wait for it.
    """
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module 'vqkit' has no attribute '{name}'")
