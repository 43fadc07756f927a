"""Random changes of uint8 images, all as tensor operations on the whole batch.

Drawing and applying are apart: every rank draws the numbers of the global batch and applies its own
rows of them, so that two ranks together see exactly what one would.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch.nn import functional as F

from .config import AugmentConfig

_GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's conversion to L


@dataclass(frozen=True)
class Draw:
    """Random numbers of a batch, one row per image; None where the change is off.

    crop: (B, 3) side as a share of the image, then top and left as shares of the room that is left.
    shift: (B, 2) int64 pixels down and right. flip: (B,) bool. colour: (B, 3) factors of
    brightness, contrast and saturation.
    """

    crop: torch.Tensor | None
    shift: torch.Tensor | None
    flip: torch.Tensor | None
    colour: torch.Tensor | None

    def rows(self, start: int, stop: int) -> Draw:
        """The numbers of the images start..stop."""
        parts = {}
        for field in fields(self):
            numbers = getattr(self, field.name)
            parts[field.name] = None if numbers is None else numbers[start:stop]
        return Draw(**parts)


def draw(count: int, config: AugmentConfig, generator: torch.Generator) -> Draw:
    """Numbers for `count` images from an explicit generator."""
    crop = shift = flip = colour = None
    if config.crop < 1:
        crop = torch.rand(count, 3, generator=generator)
        crop[:, 0] = config.crop + (1 - config.crop) * crop[:, 0]
    if config.shift:
        shift = torch.randint(-config.shift, config.shift + 1, (count, 2), generator=generator)
    if config.flip:
        flip = torch.rand(count, generator=generator) < 0.5
    if config.colour:
        colour = 1 + config.colour * (2 * torch.rand(count, 3, generator=generator) - 1)
    return Draw(crop, shift, flip, colour)


def apply(
    images: torch.Tensor, drawn: Draw, interpolation: str = "smooth"
) -> torch.Tensor:  # (B, C, H, W) uint8 -> the same
    """Crop, shift, flip and recolour, in this order. The input is left as it is.

    interpolation: of crops, smooth or nearest.
    """
    if drawn.crop is not None:
        images = random_crop(images, drawn.crop, interpolation)
    if drawn.shift is not None or drawn.flip is not None:
        images = move(images, drawn.shift, drawn.flip)
    if drawn.colour is not None:
        images = recolour(images, drawn.colour)
    return images


def augment(
    images: torch.Tensor, config: AugmentConfig, generator: torch.Generator
) -> torch.Tensor:
    """A random variant of every image; uint8 (B, C, H, W) in and out."""
    return apply(images, draw(len(images), config, generator))


def move(
    images: torch.Tensor, shift: torch.Tensor | None, flip: torch.Tensor | None
) -> torch.Tensor:
    """Every image moved by its (down, right) pixels, the edge it left behind repeated, then
    mirrored if it is to be.

    Rows are copied whole; columns are gathered pixel by pixel, which shift and flip share.
    """
    batch, channels, height, width = images.shape
    columns = torch.arange(width).expand(batch, width)  # (B, W) where each column comes from
    if flip is not None:
        columns = torch.where(flip[:, None], width - 1 - columns, columns)
    if shift is not None:
        rows = (torch.arange(height) - shift[:, :1]).clamp_(0, height - 1)  # (B, H)
        columns = (columns - shift[:, 1:]).clamp_(0, width - 1)
        planes = torch.arange(batch * channels).view(batch, channels, 1) * height
        images = images.reshape(-1, width).index_select(0, (planes + rows[:, None]).flatten())
    index = columns[:, None, None].expand(-1, channels, height, -1)
    return images.view(batch, channels, height, width).gather(3, index)


def random_crop(
    images: torch.Tensor, crop: torch.Tensor, interpolation: str = "smooth"
) -> torch.Tensor:
    """A window of every image, side, top and left as `Draw.crop`, scaled back to full size:
    bilinear, or nearest, which takes pixels as they are.
    """
    side, top, left = crop.unbind(1)
    # Affine maps of output to input coordinates, both from -1 to 1.
    window = torch.zeros(len(images), 2, 3)
    window[:, 0, 0] = window[:, 1, 1] = side
    window[:, 0, 2] = (1 - side) * (2 * left - 1)
    window[:, 1, 2] = (1 - side) * (2 * top - 1)
    grid = F.affine_grid(window, list(images.shape), align_corners=False)
    mode = "nearest" if interpolation == "nearest" else "bilinear"
    sampled = F.grid_sample(
        images.float(), grid, mode=mode, padding_mode="border", align_corners=False
    )
    return sampled.round_().clamp_(0, 255).to(torch.uint8)


def recolour(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast (about the mean grey) and saturation of every image times its factors.

    Alpha stays.
    """
    colours = 3 if images.shape[1] >= 3 else 1
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(1)
    weights = torch.tensor(_GREY if colours == 3 else (1.0,)).view(1, -1, 1, 1)
    bright = images[:, :colours].float() * brightness
    grey = (bright * weights).sum(1, keepdim=True)
    middle = grey.mean((2, 3), keepdim=True)
    if colours == 3:
        bright = grey + (bright - grey) * saturation
    changed = (middle + (bright - middle) * contrast).round_().clamp_(0, 255).to(torch.uint8)
    return torch.cat([changed, images[:, colours:]], dim=1)
