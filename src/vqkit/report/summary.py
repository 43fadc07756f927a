"""What a report is made of: plain results, no model and no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


def _no_images() -> np.ndarray:
    return np.zeros((0, 1, 1, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class Ranked:
    """The images at one end of the PSNR ranking, most extreme first; n of each."""

    names: Sequence[str] = ()
    psnr: Sequence[float] = ()
    """dB"""
    originals: np.ndarray = field(default_factory=_no_images)  # uint8 (n, H, W, C)
    reconstructions: np.ndarray = field(default_factory=_no_images)  # uint8 (n, H, W, C)


@dataclass(frozen=True, eq=False)
class RunSummary:
    """Everything that the report and the model card show. Whatever is missing is left out of the page."""

    title: str
    command: str
    """how to reproduce the run"""
    config_yaml: str
    """resolved settings as commented YAML"""
    metrics: Mapping[str, Any]
    """final figures on the evaluated split; usage and perplexity are None where codes cannot be counted"""
    history: Sequence[Mapping[str, Any]] = ()
    """rows of metrics.jsonl: step, split ("train" or "validation"), loss, loss/<term>, psnr, usage, perplexity, lr"""
    events: Sequence[Mapping[str, Any]] = ()
    """step, level ("info" or "warning"), message"""
    data: Mapping[str, Any] = field(default_factory=dict)
    """name, counts per split, original sizes and modes, bad files with reasons, channels, size"""
    code_counts: Sequence[np.ndarray] | None = None  # int64 (K,) for each codebook, over the evaluated split
    originals: np.ndarray = field(default_factory=_no_images)  # uint8 (N, H, W, C), C = 1..4
    reconstructions: np.ndarray = field(default_factory=_no_images)  # uint8 (N, H, W, C)
    names: Sequence[str] = ()
    psnr_per_image: np.ndarray = field(default_factory=lambda: np.zeros(0))  # dB, all images of the split
    worst: Ranked = field(default_factory=Ranked)
    best: Ranked = field(default_factory=Ranked)

    @property
    def codebook_size(self) -> int | None:
        """Codes of every codebook; None where there are none, or where codebooks differ."""
        sizes = {len(counts) for counts in self.code_counts} if self.code_counts is not None else set()
        return sizes.pop() if len(sizes) == 1 else None
