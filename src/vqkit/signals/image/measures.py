"""Quality of images beside their originals, and how images are shown."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .colour import ciede2000, lab

# Reported for an image that comes back without any error, so that means stay finite.
MAX_PSNR = 100.0
# Values of an image that are compared together.
VALUES_TOGETHER = 1 << 22
# Side of the window of SSIM, and deviation of its Gaussian weights.
WINDOW = 11
SIGMA = 1.5
# Side of the blocks that are looked at for smooth areas, and the deviation in levels of 0 to 255
# below which all channels of a smooth one are: sky and walls, where an error of colour is seen.
BLOCK = 8
SMOOTH = 4.0
# Colours under transparent pixels, as images are shown.
WHITE = 255.0


def psnr(values: Tensor, original: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of every image, dB: (B, C, H, W) uint8 twice -> (B,) float32.

    A few rows at a time, where images are large: differences take four times the memory of values.
    """
    rows = max(1, VALUES_TOGETHER // (values.shape[1] * values.shape[3]))
    mse = torch.zeros(len(values), device=values.device)
    for one, other in zip(values.split(rows, 2), original.split(rows, 2), strict=True):
        share = one.shape[2] / values.shape[2]
        mse += share * (one.float() - other.float()).square().flatten(1).mean(1)
    return (10.0 * torch.log10(255.0**2 / mse)).clamp(max=MAX_PSNR)


def ssim(values: Tensor, original: Tensor) -> Tensor:
    """Structural similarity of every image (Wang et al. 2004): (B, C, H, W) uint8 twice -> (B,)
    float32.

    Gaussian window of 11 pixels, sigma 1.5, averaged where the window lies inside of the image;
    images that are smaller than the window are widened by repeating their edge.
    """
    missing = [max(0, WINDOW - side) for side in original.shape[2:]]
    edges = (0, missing[1], 0, missing[0])
    first = F.pad(values.float(), edges, mode="replicate")
    second = F.pad(original.float(), edges, mode="replicate")
    mean, other_mean = _windowed(first), _windowed(second)
    variance = _windowed(first.square()) - mean.square()
    other_variance = _windowed(second.square()) - other_mean.square()
    covariance = _windowed(first * second) - mean * other_mean
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean * other_mean + c1) / (mean.square() + other_mean.square() + c1)
    structure = (2 * covariance + c2) / (variance + other_variance + c2)
    return (luminance * structure).flatten(1).mean(1)


def _windowed(values: Tensor) -> Tensor:
    """Means under the window of SSIM, where it lies inside: (B, C, H, W) -> (B, C, H-10, W-10)."""
    offset = torch.arange(WINDOW, device=values.device) - WINDOW // 2
    weight = torch.exp(-0.5 * (offset / SIGMA).square())
    weight = (weight / weight.sum()).to(values.dtype)
    planes = values.flatten(0, 1)[:, None]
    planes = F.conv2d(planes, weight.view(1, 1, -1, 1))
    planes = F.conv2d(planes, weight.view(1, 1, 1, -1))
    return planes[:, 0].unflatten(0, values.shape[:2])


def colour_error(values: Tensor, original: Tensor) -> Tensor:
    """CIEDE2000 of every image on the smooth areas of the original: (B, C, H, W) uint8 twice, C 3
    or 4 -> (B,) float32, the mean over its smooth blocks; NaN for an image without one.
    """
    pairs = zip(values, original, strict=True)
    return torch.stack([smooth_errors(one, other).mean() for one, other in pairs]).float()


def smooth_errors(values: Tensor, original: Tensor) -> Tensor:
    """Mean CIEDE2000 of each smooth block of an image: (C, H, W) uint8 twice, C 3 or 4 -> (N,)
    float64.

    Blocks are squares of 8 pixels of which none of the original's colours deviates by 4 levels or
    more; what is left over at the right and at the bottom belongs to none. Pixels that are
    transparent lie on white.
    """
    if min(original.shape[1:]) < BLOCK:
        return torch.empty(0, dtype=torch.float64)
    blocks = _blocks(original)
    is_smooth = (blocks.std(1, correction=0) < SMOOTH).all(-1)
    far = ciede2000(lab(_blocks(values)[is_smooth]), lab(blocks[is_smooth]))
    return far.mean(1)


def _blocks(image: Tensor) -> Tensor:
    """(C, H, W) -> (number of blocks, pixels of a block, 3) float64."""
    colours = image[:3].double()
    if len(image) == 4:
        opacity = image[3:].double() / 255
        colours = opacity * colours + (1 - opacity) * WHITE
    blocks = colours.unfold(1, BLOCK, BLOCK).unfold(2, BLOCK, BLOCK)  # (3, rows, columns, 8, 8)
    return blocks.permute(1, 2, 3, 4, 0).reshape(-1, BLOCK * BLOCK, 3)
