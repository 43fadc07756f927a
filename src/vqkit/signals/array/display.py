"""Arrays to look at: curves of series, middle slices of volumes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

HEIGHT = 96
MAX_WIDTH = 512
# Channels of a series that are drawn.
MOST = 8
LANE = 48
COLOURS = ((31, 92, 153), (196, 78, 32), (36, 128, 84), (120, 72, 150))
BACKGROUND = 250
GAP = 2


def curves(values: Tensor) -> np.ndarray:
    """(B, C, T) -> uint8 (B, H, W, 3): a lane for each of the first channels, all items at the same
    scale, from the least to the largest of their values.
    """
    series = values[:, :MOST].float().numpy()
    num_channels, length = series.shape[1:]
    width = min(MAX_WIDTH, length)
    lane = max(HEIGHT // num_channels, LANE)
    image = np.full((len(series), lane * num_channels, width, 3), BACKGROUND, np.uint8)
    edges = np.linspace(0, length, width + 1).astype(int)
    for channel in range(num_channels):
        part = series[:, channel]
        low, high = float(part.min()), float(part.max())
        scaled = (part - low) / max(high - low, 1e-12)
        rows = np.rint((1 - scaled) * (lane - 5)).astype(int) + 2
        colour = COLOURS[channel % len(COLOURS)]
        for column in range(width):
            # A column goes on from the last sample of the one before, so that a curve has no gaps.
            window = rows[:, max(0, edges[column] - 1) : max(edges[column + 1], edges[column] + 1)]
            top, bottom = window.min(1), window.max(1)
            for item in range(len(rows)):
                lines = slice(channel * lane + top[item], channel * lane + bottom[item] + 1)
                image[item, lines, column] = colour
    return image


def slices(values: Tensor) -> np.ndarray:
    """(B, C, D, H, W) -> uint8 (B, H', W', 1): the middle slices along each axis, side by side, of
    the mean of all channels, from the least to the largest value of all items.
    """
    volumes = values.float().mean(1).numpy()
    low, high = float(volumes.min()), float(volumes.max())
    levels = np.rint((volumes - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    depth, height, width = levels.shape[1:]
    planes = [levels[:, depth // 2], levels[:, :, height // 2], levels[:, :, :, width // 2]]
    rows = max(plane.shape[1] for plane in planes)
    padded = []
    for plane in planes:
        around = ((0, 0), (0, rows - plane.shape[1]), (0, GAP))
        padded.append(np.pad(plane, around, constant_values=BACKGROUND))
    return np.concatenate(padded, 2)[..., None]
