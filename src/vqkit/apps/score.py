"""How likely is a picture: bits of its codes under the prior, in total and place by place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..artifact import Artifact
from ..data.images import Target, decode, pillow_warnings, reason
from ..errors import VqkitError


@dataclass(frozen=True)
class Score:
    """One file, or why it could not be read.

    bits: of all codes under the prior. bits_per_dim: per value of the image, the codes alone. percentile: share of
    the held-out images of training that cost less, None where the prior does not know; near 1 is an anomaly.
    held_out: how many these are, where the prior knows. pixels:
    uint8 (H, W, C), what was scored. surprise: (h, w) float64, bits of each position. covered: height and width of all
    positions together, pixels: more than the picture has if it is no multiple of the model's tiles.
    """

    source: Path
    bits: float = 0.0
    bits_per_dim: float = 0.0
    percentile: float | None = None
    held_out: int | None = None
    pixels: np.ndarray | None = None
    surprise: np.ndarray | None = None
    covered: tuple[int, int] = (0, 0)
    error: str | None = None


def score(
    artifact: Artifact, files: Sequence[Path], *, classes: Sequence[str] = (), prompts: Sequence[str] = ()
) -> Iterator[Score]:
    """Score picture files, brought to the size of training as in training; yields as it goes, skips what is broken.

    classes, prompts: one for all files. Errors: VqkitError without a prior, for several classes or prompts, and for one
    that it does not know.
    """
    prior = artifact.wanted_prior()
    if max(len(classes), len(prompts)) > 1:
        raise VqkitError("files are scored under one class or prompt; score those of another in a second call")
    condition = prior.told(1, classes, prompts)
    seen = artifact.config.data
    target = Target(artifact.size, artifact.channels, seen.background, seen.fit, value_range=artifact.value_range)
    quantiles, held_out = np.array(prior.metrics.get("bits_quantiles") or []), prior.metrics.get("images")
    for file in files:
        try:
            with pillow_warnings():
                pixels = decode(file, target)
        except Exception as error:  # see data.images.load_picture
            yield Score(file, error=f"cannot read {file}: {reason(error)}")
            continue
        surprise = prior.code_bits(artifact.encode(pixels), condition)[0].sum(0).numpy()
        bits = float(surprise.sum())
        rank = float(np.searchsorted(quantiles, bits) / len(quantiles)) if len(quantiles) else None
        height, width = (
            -(-side // step) * step for side, step in zip(pixels.shape[:2], artifact.model.tile, strict=True)
        )
        yield Score(file, bits, bits / pixels.size, rank, held_out, pixels, surprise, (height, width))


def surprise_map(found: Score) -> np.ndarray:
    """uint8 (H, W, 3): the picture in grey, red where its codes were unlikely, the brighter the more."""
    assert found.pixels is not None and found.surprise is not None
    height, width = found.pixels.shape[:2]
    bits = torch.from_numpy(found.surprise)[None, None]
    wide = torch.nn.functional.interpolate(bits, found.covered, mode="nearest")[0, 0, :height, :width].numpy()
    heat = np.clip(wide / max(float(found.surprise.max()), 1e-9), 0, 1)[..., None]
    grey = found.pixels[..., : 3 if found.pixels.shape[2] >= 3 else 1].mean(2, keepdims=True)
    calm = np.repeat(0.6 * grey, 3, 2)
    return np.rint((1 - heat) * calm + heat * np.array([255.0, 60.0, 20.0])).astype(np.uint8)
