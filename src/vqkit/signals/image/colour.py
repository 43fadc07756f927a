"""How far apart two colours look: sRGB -> CIE Lab -> CIEDE2000."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Linear sRGB to CIE XYZ (the primaries of ITU-R BT.709), and the white of D65, 2 degree observer.
XYZ_OF_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.95047, 1.0, 1.08883)
# 25^7, beside which a chroma counts as large (Sharma et al. 2005, equations 4 and 20).
LARGE_CHROMA = 25.0**7


def lab(rgb: Tensor) -> Tensor:
    """sRGB in levels of 0 to 255 (..., 3) -> CIE Lab under D65 (..., 3) float64, L in [0, 100]."""
    values = rgb.double() / 255.0
    linear = torch.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    xyz = linear @ linear.new_tensor(XYZ_OF_RGB).T / linear.new_tensor(WHITE)
    stretched = torch.where(
        xyz > (6 / 29) ** 3, xyz.clamp(min=0) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29
    )
    x, y, z = stretched.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def ciede2000(one: Tensor, other: Tensor) -> Tensor:
    """CIEDE2000 between two colours in CIE Lab, (..., 3) twice -> (...); about 1 can just be seen.

    Sharma, Wu and Dalal 2005, "The CIEDE2000 color-difference formula: implementation notes,
    supplementary test data, and mathematical observations", equations 2 to 22, all weights 1.
    """
    mean_plain_chroma = (_chroma(one[..., 1:]) + _chroma(other[..., 1:])) / 2
    stretch = 1.5 - 0.5 * _share_of_large(mean_plain_chroma)
    chroma, hue = _polar(one, stretch)
    other_chroma, other_hue = _polar(other, stretch)
    has_hue = chroma * other_chroma != 0

    # Hues go around: the difference is the shorter way, and the mean lies in its middle. A grey
    # has no hue, so that the mean is that of the other colour, whose sum with 0 it is.
    apart = other_hue - hue
    turned = torch.where(apart > 180, apart - 360, apart)
    turned = torch.where(apart < -180, apart + 360, turned)
    hue_difference = torch.where(has_hue, turned, 0.0)
    total = hue + other_hue
    is_far = has_hue & (apart.abs() > 180)
    mean_hue = torch.where(has_hue, total / 2, total)
    mean_hue = torch.where(is_far & (total < 360), (total + 360) / 2, mean_hue)
    mean_hue = torch.where(is_far & (total >= 360), (total - 360) / 2, mean_hue)

    mean_lightness = (one[..., 0] + other[..., 0]) / 2
    mean_chroma = (chroma + other_chroma) / 2
    from_middle = (mean_lightness - 50) ** 2
    lightness_weight = 1 + 0.015 * from_middle / (20 + from_middle).sqrt()
    chroma_weight = 1 + 0.045 * mean_chroma
    hue_weight = 1 + 0.015 * mean_chroma * _hue_factor(mean_hue)
    blue = 30 * torch.exp(-(((mean_hue - 275) / 25) ** 2))
    rotation = -2 * _share_of_large(mean_chroma) * torch.sin(torch.deg2rad(2 * blue))

    lightness = (other[..., 0] - one[..., 0]) / lightness_weight
    colourful = (other_chroma - chroma) / chroma_weight
    half = torch.deg2rad(hue_difference / 2)
    hued = 2 * (chroma * other_chroma).sqrt() * torch.sin(half) / hue_weight
    squared = lightness**2 + colourful**2 + hued**2 + rotation * colourful * hued
    # Rounding alone makes it negative.
    return squared.clamp(min=0).sqrt()


def _polar(colour: Tensor, stretch: Tensor) -> tuple[Tensor, Tensor]:
    """Chroma and hue, degrees in [0, 360), with a stretched (equations 5 to 7)."""
    a = stretch * colour[..., 1]
    b = colour[..., 2]
    hue = torch.rad2deg(torch.atan2(b, a)) % 360
    return torch.hypot(a, b), torch.where((a == 0) & (b == 0), 0.0, hue)


def _chroma(ab: Tensor) -> Tensor:
    return torch.hypot(ab[..., 0], ab[..., 1])


def _share_of_large(chroma: Tensor) -> Tensor:
    return (chroma**7 / (chroma**7 + LARGE_CHROMA)).sqrt()


def _hue_factor(hue: Tensor) -> Tensor:
    """T of equation 15, of a hue in degrees."""
    angle = torch.deg2rad(hue)
    return (
        1
        - 0.17 * torch.cos(angle - math.radians(30))
        + 0.24 * torch.cos(2 * angle)
        + 0.32 * torch.cos(3 * angle + math.radians(6))
        - 0.20 * torch.cos(4 * angle - math.radians(63))
    )
