"""The HTML page of a prior: what it draws, whether it copies, how it learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_text
from . import figures
from .prior_verdict import derived_figures, judge_prior, near_copies
from .summary import PriorSummary
from .tables import PRIOR_HEADLINE, headline, metric_rows, rows_of
from .templates import (
    Pair,
    fill,
    image_uri,
    kicker,
    media_uri,
    num_shown,
    shown_size,
    titled,
    told_events,
)
from .wording import finite, of_items

# Samples that are shown however large they are.
MIN_SHOWN = 24
MAX_PAIRS = 48


def write_prior_report(summary: PriorSummary, path: Path) -> None:
    """Write the report of a prior: at `path` there is the old file or the whole new one, nothing
    between.

    ValueError if samples, nearest images, distances and labels do not belong together.
    """
    write_text(Path(path), render_prior(summary))


def render_prior(summary: PriorSummary) -> str:
    """The page as text.

    All strings of the summary are escaped: labels and captions are not to be trusted.
    """
    _check(summary)
    metrics = {**summary.metrics, **derived_figures(summary)}
    return fill(
        "prior.html",
        summary=summary,
        verdict=judge_prior(summary),
        tiles=rows_of(headline(metrics, PRIOR_HEADLINE), summary.item),
        pixels=shown_size(*summary.samples.shape[1:]),
        grids=_grids(summary),
        pairs=_pairs(summary),
        num_samples=len(summary.samples),
        yardstick=of_items(_yardstick(summary.reconstructed_distances), summary.item),
        training=titled(_training_figures(summary)),
        metric_rows=rows_of(metric_rows(metrics), summary.item),
        kicker=kicker(metrics, summary.item),
        **told_events(summary.events),
    )


def _check(summary: PriorSummary) -> None:
    samples = summary.samples
    nearest = summary.nearest
    distances = summary.distances
    if len(nearest) and (nearest.shape != samples.shape or distances.shape != (len(samples),)):
        raise ValueError(
            f"cannot pair samples {samples.shape} with {nearest.shape} at distances "
            f"{distances.shape}"
        )
    if len(summary.labels) not in (0, len(samples)):
        raise ValueError(
            f"{len(samples)} samples need as many labels or none, got {len(summary.labels)}"
        )


def _grids(summary: PriorSummary) -> list[dict[str, Any]]:
    """Samples drawn code by code and in few steps, as many as a browser can open."""
    steps = "1 step" if summary.num_steps == 1 else f"{summary.num_steps} steps"
    many = of_items("Many codes at a time, scattered over the image.", summary.item)
    grids = []
    for name, title, lead, images, played in (
        ("samples", "Samples", "Drawn code by code.", summary.samples, summary.played),
        ("scattered", f"In {steps}", many, summary.scattered, summary.played_scattered),
    ):
        if not len(images):
            continue
        shown = []
        for index, image in enumerate(images[: _num_shown(summary)]):
            shown.append((image_uri(image), _label(summary, index), _sound(summary, played, index)))
        if len(shown) < len(images):
            lead += f" {len(shown)} of {len(images)} are shown."
        grids.append({"name": name, "title": title, "lead": lead, "images": shown})
    return grids


def _pairs(summary: PriorSummary) -> list[Pair]:
    """Each sample with its training image, nearest first."""
    if not len(summary.nearest):
        return []
    copies = near_copies(summary)
    kept = min(_num_shown(summary), MAX_PAIRS)
    order = np.argsort(summary.distances, kind="stable")[:kept]
    pairs = []
    for index in order:
        label = _label(summary, index)
        pairs.append(
            Pair(
                image_uri(summary.samples[index]),
                image_uri(summary.nearest[index]),
                f"sample of {label}" if label else "sample",
                of_items("nearest training image", summary.item),
                f"{float(summary.distances[index]):.1f}",
                label,
                bool(copies[index]),
                _both(summary, index),
            )
        )
    return pairs


def _num_shown(summary: PriorSummary) -> int:
    # What is played is heard one after the other.
    return MIN_SHOWN if summary.played else num_shown(summary.samples, MIN_SHOWN)


def _sound(summary: PriorSummary, played: Sequence[bytes], index: int) -> str:
    """The URI of what is played of an item; none of images."""
    return media_uri(played[index], summary.media_type) if played else ""


def _both(summary: PriorSummary, index: int) -> tuple[str, str] | None:
    if not summary.played:
        return None
    return (
        _sound(summary, summary.played, index),
        _sound(summary, summary.played_nearest, index),
    )


def _label(summary: PriorSummary, index: int) -> str:
    if not len(summary.labels):
        return ""
    return str(summary.labels[index])


def _yardstick(distances: np.ndarray) -> str:
    """How near reconstructed held-out images come to the training set, in words.

    Empty if nobody measured it.
    """
    if not len(distances):
        return ""
    nearest, median = np.quantile(distances, [0.01, 0.5])
    return (
        f"Reconstructed held-out images: 1 of 100 is nearer than {nearest:.1f}, half are nearer "
        f"than {median:.1f}."
    )


def _training_figures(summary: PriorSummary) -> dict[str, figures.Draw]:
    history = summary.history
    events = summary.events
    order0 = finite(summary.metrics.get("order0_bits"))
    return {
        "Bits per code": figures.bits_per_code(history, events, order0),
        "Learning rate": figures.over_steps(history, {"lr": "learning rate"}),
        "Norm of the gradient": figures.over_steps(history, {"grad_norm": "norm"}, events),
    }
