"""How much of a content is kept and how much of a style is gained, without downloaded networks.

Shapes: N images, uint8 (N, H, W, 3); float (N, 3, H, W) in [0, 1] inside.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

PROJECTIONS = 64
TOKENS = 20_000
LEVELS = 3
LUMINANCE = 0.299, 0.587, 0.114


def to_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def luminance(images: Tensor) -> Tensor:
    return (images * torch.tensor(LUMINANCE).view(3, 1, 1)).sum(1, keepdim=True)


# ------------------------------------------------------------------------------------------ content


def edge_agreement(results: np.ndarray, contents: np.ndarray) -> float:
    """Mean correlation of the size of the luminance gradient (Sobel)."""
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    kernels = torch.stack([kernel, kernel.T])[:, None]

    def edges(images: np.ndarray) -> Tensor:
        size = F.conv2d(luminance(to_tensor(images)), kernels).square().sum(1).sqrt().flatten(1)
        return F.normalize(size - size.mean(1, keepdim=True), dim=1)

    return float((edges(results) * edges(contents)).sum(1).mean())


def luminance_ssim(results: np.ndarray, contents: np.ndarray) -> float:
    from vqkit.signals.image.measures import ssim

    grey = [
        (luminance(to_tensor(images)) * 255).round().to(torch.uint8)
        for images in (results, contents)
    ]
    return float(ssim(*grey).mean())


# -------------------------------------------------------------------------------------------- style


def sliced_wasserstein(one: Tensor, other: Tensor) -> float:
    """Mean over fixed directions of the 1-Wasserstein distance of two clouds (n, D), in deviations
    of the second.
    """
    generator = torch.Generator().manual_seed(0)
    parts = [
        cloud[torch.randperm(len(cloud), generator=generator)[:TOKENS]] for cloud in (one, other)
    ]
    directions = F.normalize(torch.randn(one.shape[1], PROJECTIONS, generator=generator), dim=0)
    first, second = (
        (part / parts[1].std(0).clamp(min=1e-6) @ directions).sort(0).values for part in parts
    )
    return float((first - second).abs().mean())


def random_features(images: np.ndarray) -> Tensor:
    """Tokens (n, 64) of two convolutions with seeded random weights, which no model here has
    seen.
    """
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(32, 3, 5, 5, generator=generator) / 75**0.5
    second = torch.randn(64, 32, 3, 3, generator=generator) / 288**0.5
    found = F.relu(F.conv2d(to_tensor(images) - 0.5, first, padding=2))
    return (
        F.relu(F.conv2d(F.avg_pool2d(found, 2), second, padding=1))
        .permute(0, 2, 3, 1)
        .flatten(0, 2)
    )


def laplacian_patches(images: np.ndarray) -> list[Tensor]:
    """Of each level of a Laplacian pyramid, patches of 3x3 as tokens (n, 27)."""
    here = to_tensor(images)
    found = []
    for _ in range(LEVELS):
        smaller = F.avg_pool2d(here, 2)
        band = here - F.interpolate(smaller, scale_factor=2, mode="bilinear")
        found.append(F.unfold(band, 3).transpose(1, 2).flatten(0, 1))
        here = smaller
    return found


def style_distances(results: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Of all results together from all images of the wanted style."""
    bands = zip(laplacian_patches(results), laplacian_patches(wanted), strict=True)
    colours = [to_tensor(images).permute(0, 2, 3, 1).flatten(0, 2) for images in (results, wanted)]
    return {
        "features": sliced_wasserstein(random_features(results), random_features(wanted)),
        "laplacian": float(np.mean([sliced_wasserstein(*pair) for pair in bands])),
        "colours": sliced_wasserstein(*colours),
    }


# -------------------------------------------------------------------------------------- classifiers


def classifier(classes: int) -> nn.Sequential:
    def block(given: int, width: int) -> list[nn.Module]:
        return [nn.Conv2d(given, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.GELU()]

    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, classes)]
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.GELU(),
        *block(32, 64),
        *block(64, 128),
        *block(128, 128),
        *head,
    )


def train_classifier(
    images: np.ndarray, labels: np.ndarray, steps: int, seed: int
) -> nn.Sequential:
    """AdamW, one cycle, shifts of up to two pixels."""
    torch.manual_seed(seed)
    given = to_tensor(images)
    wanted = torch.from_numpy(np.ascontiguousarray(labels))
    model = classifier(int(wanted.max()) + 1)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, max(steps, 2))
    for _ in range(steps):
        chosen = torch.randint(len(given), (64,))
        down, right = torch.randint(5, (2,)).tolist()
        batch = F.pad(given[chosen], (2, 2, 2, 2), value=1.0)[
            :, :, down : down + 32, right : right + 32
        ]
        loss = F.cross_entropy(model(batch), wanted[chosen], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def classified(model: nn.Module, images: np.ndarray) -> np.ndarray:
    return torch.cat([model(part).argmax(1) for part in to_tensor(images).split(256)]).numpy()
