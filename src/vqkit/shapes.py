"""What one item of a signal looks like as numbers: the one thing that settings, data, models and
files agree on.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Shape(NamedTuple):
    """Channels, and the sides of what is encoded: (H, W) of an image, (T,) of a recording, (D, H,
    W) of a volume.
    """

    channels: int
    extent: tuple[int, ...]

    @property
    def num_positions(self) -> int:
        """Pixels of an image, samples of a recording."""
        return math.prod(self.extent)

    @property
    def num_values(self) -> int:
        """Numbers of an item: channels times positions."""
        return self.channels * self.num_positions
