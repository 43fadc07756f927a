"""Figures of the notebooks: one style, and rows of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

INK = "#1f2328"
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8b929a"
COLOURS = [BLUE, ORANGE, GREEN, RED, "#cc79a7", GREY]

plt.rcParams.update(
    {
        "figure.dpi": 96,
        "figure.facecolor": "white",
        "font.size": 10.5,
        "axes.titlesize": 11.5,
        "axes.titlelocation": "left",
        "axes.titleweight": "semibold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "lines.linewidth": 2.0,
        "legend.frameon": False,
        "xtick.color": INK,
        "ytick.color": INK,
    }
)


def subplots(*shape: int, **settings: Any) -> Any:
    """plt.subplots whose labels never lie over one another."""
    return plt.subplots(*shape, layout="constrained", **settings)


def pixels(values: Any) -> np.ndarray:
    """Images in any form, (N, C, H, W) tensors or (N, H, W, C) arrays, uint8 or floats in [0, 1],
    as (N, H, W, C) floats in [0, 1].
    """
    array = values
    if hasattr(array, "detach"):
        array = np.moveaxis(array.detach().cpu().numpy(), 1, -1)
    array = array / 255 if array.dtype == np.uint8 else array
    return array.clip(0, 1).astype(float)


def mosaic(images: Any, columns: int, gap: int = 2) -> np.ndarray:
    """Images (N, ...) side by side, `columns` in a row, on white."""
    shown = pixels(images)
    if shown.shape[-1] == 1:
        shown = shown.repeat(3, -1)
    count, height, width, _ = shown.shape
    lines = -(-count // columns)
    sheet = np.ones((lines * (height + gap) - gap, columns * (width + gap) - gap, 3))
    for number, image in enumerate(shown):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def rows(named: Mapping[str, Any], width: float = 9.0) -> None:
    """A row of images for each name, which stands to the left of it."""
    sheets = {name: mosaic(images, len(images)) for name, images in named.items()}
    shape = next(iter(sheets.values())).shape
    height = (width - 1.6) * shape[0] / shape[1]
    figure, axes = subplots(len(sheets), 1, figsize=(width, (height + 0.06) * len(sheets)))
    for axis, (name, sheet) in zip(np.atleast_1d(axes), sheets.items(), strict=True):
        axis.imshow(sheet, interpolation="nearest")
        axis.set_axis_off()
        axis.text(-0.012, 0.5, name, transform=axis.transAxes, ha="right", va="center")
    plt.show()


def grids(named: Mapping[str, Any], columns: int, width: float = 9.0) -> None:
    """A mosaic for each name, side by side, under its name."""
    figure, axes = subplots(1, len(named), figsize=(width, width / len(named) + 0.35))
    for axis, (name, images) in zip(np.atleast_1d(axes), named.items(), strict=True):
        axis.imshow(mosaic(images, columns), interpolation="nearest")
        axis.set_axis_off()
        axis.set_title(name)
    plt.show()
