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
    """Everything that the report and the model card show.

    Whatever is missing is left out of the page.
    """

    title: str
    command: str
    """how to reproduce the run"""
    config_yaml: str
    """resolved settings as commented YAML"""
    metrics: Mapping[str, Any]
    """final figures on the evaluated split; usage and perplexity are None where codes cannot
    be counted
    """
    history: Sequence[Mapping[str, Any]] = ()
    """rows of metrics.jsonl: step, split ("train" or "validation"), loss, loss/<term>, psnr,
    usage, perplexity, lr
    """
    events: Sequence[Mapping[str, Any]] = ()
    """step, level ("info" or "warning"), message"""
    data: Mapping[str, Any] = field(default_factory=dict)
    """name, counts per split, original sizes and modes, bad files with reasons, channels, size"""
    code_counts: Sequence[np.ndarray] | None = (
        None  # int64 (K,) for each codebook, over the evaluated split
    )
    originals: np.ndarray = field(default_factory=_no_images)  # uint8 (N, H, W, C), C = 1..4
    reconstructions: np.ndarray = field(default_factory=_no_images)  # uint8 (N, H, W, C)
    names: Sequence[str] = ()
    psnr_per_image: np.ndarray = field(
        default_factory=lambda: np.zeros(0)
    )  # dB, all images of the split
    worst: Ranked = field(default_factory=Ranked)
    best: Ranked = field(default_factory=Ranked)
    denoised: Ranked = field(default_factory=Ranked)
    """of a denoiser: noisy images in place of the originals"""
    is_log_loss: bool = False
    """loss/reconstruction is the logarithm of an error, of any sign"""
    weighs_bits: bool = False
    """latents choose codes that cost few bits, so that codes are used unevenly"""
    window_images: int = 0
    """different images whose codes the usage of a training row is of, at most; 0 = not known"""

    @property
    def codebook_size(self) -> int | None:
        """Codes of every codebook; None where there are none, or where codebooks differ."""
        sizes = (
            {len(counts) for counts in self.code_counts} if self.code_counts is not None else set()
        )
        return sizes.pop() if len(sizes) == 1 else None


@dataclass(frozen=True, eq=False)
class PriorSummary:
    """Everything that the report of a prior over codes shows.

    Whatever is missing is left out of the page.
    """

    title: str
    command: str
    """how to reproduce the run"""
    config_yaml: str
    """resolved settings as commented YAML"""
    metrics: Mapping[str, Any]
    """final figures: split, items, bits_per_code, bits_per_item, label_bits (None for captions),
    bits_per_code_untold, order0_bits, saving_vs_order0 (share), step, stopped_by, training_seconds, parameters,
    content_id and the like; `derived_figures` come to them"""
    history: Sequence[Mapping[str, Any]] = ()
    """rows of metrics.jsonl: step, split ("train" or "validation"), loss and loss/<term> in nats a code, bits_per_code,
    bits_per_code_any_order (training alone), lr, grad_norm, seconds"""
    events: Sequence[Mapping[str, Any]] = ()
    """step, level ("info" or "warning"), message"""
    samples: np.ndarray = field(
        default_factory=_no_images
    )  # uint8 (N, H, W, C), C = 1..4, drawn code by code
    scattered: np.ndarray = field(
        default_factory=_no_images
    )  # uint8 (N, H, W, C), drawn in num_steps steps
    num_steps: int = 0
    labels: Sequence[str] = ()
    """class or caption that each sample was told; empty when it was told nothing"""
    nearest: np.ndarray = field(
        default_factory=_no_images
    )  # uint8 (N, H, W, C), training image nearest to each sample
    distances: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(N,) of each sample to its nearest training image: root mean square over pixels, 0..255"""
    reconstructed_distances: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(M,) the same of held-out images, encoded and decoded as samples are: the yardstick of
    memorisation
    """
    held_out_distances: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(M,) the same of these images as they are: near 0 for those that are in the training
    set as well
    """
