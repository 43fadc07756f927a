"""Quality of images beside their originals, and how images are shown."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Reported for an image that comes back without any error, so that means stay finite.
MAX_PSNR = 100.0
# Values of an image that are compared together.
VALUES_TOGETHER = 1 << 22
# Side of the window of SSIM.
WINDOW = 11


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
    from torchmetrics.functional.image import structural_similarity_index_measure

    missing = [max(0, WINDOW - side) for side in original.shape[2:]]
    edges = (0, missing[1], 0, missing[0])
    first = F.pad(values.float(), edges, mode="replicate")
    second = F.pad(original.float(), edges, mode="replicate")
    _, similarity = structural_similarity_index_measure(
        first, second, data_range=255.0, reduction="none", return_full_image=True
    )
    rim = WINDOW // 2
    return similarity[:, :, rim:-rim, rim:-rim].flatten(1).mean(1)
