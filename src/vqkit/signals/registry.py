"""From settings to signals.

This `match` is the registry, and each signal is imported when it is first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Signal

if TYPE_CHECKING:
    from ..settings import DataConfig


def signal_of(settings: DataConfig) -> Signal:
    """The signal that data settings are of."""
    match settings.signal:
        case "image":
            from .image.signal import IMAGE

            return IMAGE
