"""What a report is made of: plain results, no model and no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

# A text in parts, each with whether it differs from what it is compared with.
Passages: TypeAlias = Sequence[tuple[str, bool]]


def _no_images() -> np.ndarray:
    return np.zeros((0, 1, 1, 3), np.uint8)


@dataclass(frozen=True, eq=False)
class Ranked:
    """The images at one end of the PSNR ranking, most extreme first; n of each."""

    names: Sequence[str] = ()
    # Or what else items are ranked by.
    psnr: Sequence[float] = ()
    # uint8 (n, H, W, C) both.
    originals: np.ndarray = field(default_factory=_no_images)
    reconstructions: np.ndarray = field(default_factory=_no_images)
    # As in RunSummary.
    read: Sequence[tuple[Passages, Passages]] = ()


@dataclass(frozen=True, eq=False)
class RunSummary:
    """Everything that the report and the model card show.

    Whatever is missing is left out of the page.
    """

    title: str
    # How to reproduce the run.
    command: str
    # Resolved settings as commented YAML.
    config_yaml: str
    # Final figures on the evaluated split; usage and perplexity are None where codes cannot be
    # counted.
    metrics: Mapping[str, Any]
    # Rows of metrics.jsonl: step, split ("train" or "validation"), loss, loss/<term>, psnr, usage,
    # perplexity, lr.
    history: Sequence[Mapping[str, Any]] = ()
    # Step, level ("info" or "warning"), message.
    events: Sequence[Mapping[str, Any]] = ()
    # Name, counts per split, original sizes and modes, bad files with reasons, channels, size.
    data: Mapping[str, Any] = field(default_factory=dict)
    # int64 (K,) for each codebook, over the evaluated split.
    code_counts: Sequence[np.ndarray] | None = None
    # uint8 (N, H, W, C) both, C = 1..4.
    originals: np.ndarray = field(default_factory=_no_images)
    reconstructions: np.ndarray = field(default_factory=_no_images)
    names: Sequence[str] = ()
    # What an item is called, and the measure that items are ranked by.
    item: str = "image"
    quality: str = "PSNR"
    quality_unit: str = "dB"
    # Files to be played, of each original and its reconstruction, and their media type; none of
    # images.
    played: Sequence[tuple[bytes, bytes]] = ()
    media_type: str = ""
    # What is read instead of images, of each original and its reconstruction: passages, and whether
    # they differ; none of images.
    read: Sequence[tuple[Passages, Passages]] = ()
    # The model and other codecs on the same items: name, whether it is the model, and figures by
    # name, the rate first.
    beside: Sequence[tuple[str, bool, Mapping[str, float]]] = ()
    # Of all images of the split, or what else items are ranked by.
    psnr_per_image: np.ndarray = field(default_factory=lambda: np.zeros(0))
    worst: Ranked = field(default_factory=Ranked)
    best: Ranked = field(default_factory=Ranked)
    # Of a denoiser: noisy images in place of the originals.
    denoised: Ranked = field(default_factory=Ranked)
    # loss/reconstruction is the logarithm of an error, of any sign.
    is_log_loss: bool = False
    # Latents choose codes that cost few bits, so that codes are used unevenly.
    weighs_bits: bool = False
    # Different images whose codes the usage of a training row is of, at most; 0 = not known.
    window_images: int = 0
    # Two lines: the settings that a look at the data chose, and why; none where the user did.
    choice: Sequence[str] = ()
    # That the whole command had, where these ended training.
    minutes: float | None = None
    # Identifier of the licence of the weights; None = not said.
    licence: str | None = None

    @property
    def codebook_size(self) -> int | None:
        """Codes of every codebook; None where there are none, or where codebooks differ."""
        if self.code_counts is None:
            return None
        sizes = set(map(len, self.code_counts))
        if len(sizes) != 1:
            return None
        return sizes.pop()


@dataclass(frozen=True, eq=False)
class PriorSummary:
    """Everything that the report of a prior over codes shows.

    Whatever is missing is left out of the page.
    """

    title: str
    # How to reproduce the run.
    command: str
    # Resolved settings as commented YAML.
    config_yaml: str
    # Final figures: split, items, bits_per_code, bits_per_item, label_bits (None for captions),
    # bits_per_code_untold, order0_bits, saving_vs_order0 (share), step, stopped_by,
    # training_seconds, parameters, content_id and the like; `derived_figures` come to them.
    metrics: Mapping[str, Any]
    # Rows of metrics.jsonl: step, split ("train" or "validation"), loss and loss/<term> in nats a
    # code, bits_per_code, bits_per_code_any_order (training alone), lr, grad_norm, seconds.
    history: Sequence[Mapping[str, Any]] = ()
    # Step, level ("info" or "warning"), message.
    events: Sequence[Mapping[str, Any]] = ()
    # uint8 (N, H, W, C), C = 1..4, drawn code by code.
    samples: np.ndarray = field(default_factory=_no_images)
    # The same, drawn in num_steps steps.
    scattered: np.ndarray = field(default_factory=_no_images)
    num_steps: int = 0
    # Class or caption that each sample was told; empty when it was told nothing.
    labels: Sequence[str] = ()
    # uint8 (N, H, W, C), the training image nearest to each sample.
    nearest: np.ndarray = field(default_factory=_no_images)
    # (N,) of each sample to its nearest training image: root mean square over pixels, 0..255.
    distances: np.ndarray = field(default_factory=lambda: np.zeros(0))
    # (M,) the same of held-out images, encoded and decoded as samples are: the yardstick of
    # memorisation.
    reconstructed_distances: np.ndarray = field(default_factory=lambda: np.zeros(0))
    # (M,) the same of these images as they are: near 0 for those that are in the training set as
    # well.
    held_out_distances: np.ndarray = field(default_factory=lambda: np.zeros(0))
    # What an item is called.
    item: str = "image"
    # Files to be played, of each sample, each scattered one and each nearest item, and their media
    # type; none of images.
    played: Sequence[bytes] = ()
    played_scattered: Sequence[bytes] = ()
    played_nearest: Sequence[bytes] = ()
    media_type: str = ""
    # That the whole command had, where these ended training.
    minutes: float | None = None
