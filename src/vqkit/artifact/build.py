"""From settings to untrained models, by the kind of signal that the settings are of."""

from __future__ import annotations

from functools import partial

from ..data.normalisation import Normalisation
from ..errors import VqkitError
from ..model.autoencoder import Autoencoder
from ..settings import Config
from ..shapes import Shape
from ..signals.registry import signal_of


def build_model(config: Config, shape: Shape, normalisation: Normalisation) -> Autoencoder:
    """The untrained model for items of this shape.

    VqkitError for settings that contradict one another.
    """
    signal = signal_of(config.data)
    try:
        return Autoencoder(
            config.model,
            shape,
            config.losses,
            normalisation.std,
            normalisation.mean,
            partial(signal.backbone, settings=config.data, is_causal=config.model.causal),
        )
    except ValueError as error:
        raise VqkitError(f"these settings do not go together: {error}") from error
