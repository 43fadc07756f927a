"""Noise on uint8 images (C, H, W): what a denoiser is trained against, and measured with.

Every function takes the image, how strong, and the generator of all that is random in it, and gives
a new image. Values are rounded and cut to 0 to 255, as every image file does.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .config import NoiseConfig

# Level of blocks that are missing.
GREY = 128


def gaussian(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Normal noise of deviation `sigma`, in levels of 0 to 255."""
    return _to_pixels(image + sigma * torch.randn(image.shape, generator=generator))


def poisson(image: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    """Shot noise: a white pixel counts `photons` on average, and darker ones fewer."""
    counts = torch.poisson(image * (photons / 255), generator=generator)
    return _to_pixels(counts * (255 / photons))


def salt_and_pepper(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the pixels becomes black or white, half of them each."""
    drawn = torch.rand(image.shape[1:], generator=generator)
    return image.masked_fill(drawn < share / 2, 0).masked_fill(drawn > 1 - share / 2, 255)


def speckle(image: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Every value times a normal number of mean 1 and this deviation."""
    return _to_pixels(image * (1 + deviation * torch.randn(image.shape, generator=generator)))


def jpeg(image: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    """What a JPEG file of this quality keeps, with alpha, if there is any, as it was."""
    colours = 1 if len(image) < 3 else 3
    pixels = image[:colours].permute(1, 2, 0).numpy()
    file = io.BytesIO()
    if colours == 1:
        pixels = pixels[:, :, 0]
    Image.fromarray(pixels).save(file, "JPEG", quality=round(quality))
    decoded = torch.from_numpy(np.array(Image.open(file))).view(*image.shape[1:], colours)
    return torch.cat([decoded.permute(2, 0, 1), image[colours:]])


def missing_blocks(image: Tensor, side: float, generator: torch.Generator) -> Tensor:
    """Three squares in grey, their side a share of the image's shorter one."""
    height, width = image.shape[1:]
    length = max(1, round(side * min(height, width)))
    found = image.clone()
    for top, left in torch.rand(3, 2, generator=generator).tolist():
        row = int(top * (height - length + 1))
        column = int(left * (width - length + 1))
        found[:, row : row + length, column : column + length] = GREY
    return found


class Kind(NamedTuple):
    """What makes the noise, and its strength where it is weakest and where it is strongest."""

    add: Callable[[Tensor, float, torch.Generator], Tensor]
    weakest: float
    strongest: float


# What training sees beside Gaussian noise.
OTHERS = {
    "poisson": Kind(poisson, 64.0, 4.0),
    "salt_and_pepper": Kind(salt_and_pepper, 0.01, 0.3),
    "speckle": Kind(speckle, 0.05, 0.6),
    "jpeg": Kind(jpeg, 60.0, 8.0),
    "missing_blocks": Kind(missing_blocks, 0.08, 0.25),
}


def add_noise(images: Tensor, config: NoiseConfig, seeds: Sequence[int]) -> Tensor:
    """uint8 (B, C, H, W) with noise as the settings say, each image's drawn from its own seed."""
    noisy = [_drawn(image, config, seed) for image, seed in zip(images, seeds, strict=True)]
    return torch.stack(noisy)


def _drawn(image: Tensor, config: NoiseConfig, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    what, strength, which = torch.rand(3, generator=generator).tolist()
    if what < config.clean:
        return image
    if what < config.clean + (1 - config.clean) * config.others:
        kind = list(OTHERS.values())[int(which * len(OTHERS))]
        # Even steps of the ratio: half of the images would else have hardly any shot noise.
        parameter = kind.weakest * (kind.strongest / kind.weakest) ** strength
        return kind.add(image, parameter, generator)
    return gaussian(image, config.sigma * strength, generator)


def _to_pixels(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)
