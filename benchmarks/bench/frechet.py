"""The Frechet distance of two sets of images in the principal components of their pixels."""

from __future__ import annotations

import numpy as np


def frechet(first: np.ndarray, second: np.ndarray, components: int = 64) -> float:
    """Frechet distance of two sets of images (N, H, W, C) in the principal components of the
    second.
    """
    from scipy.linalg import sqrtm

    flat = [images.reshape(len(images), -1) / 255.0 for images in (first, second)]
    axes = np.linalg.svd(flat[1] - flat[1].mean(0), full_matrices=False)[2][:components]
    (mean_a, cov_a), (mean_b, cov_b) = (_moments(x @ axes.T) for x in flat)
    root = sqrtm(cov_a @ cov_b)
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a + cov_b - 2 * root.real))


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(0), np.cov(x, rowvar=False)
