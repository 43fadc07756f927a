"""The HTML page of a pair: what either half makes of the other, and how the prior learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_text
from . import figures
from .tables import Row
from .templates import fill, image_uri, kicker, media_uri, shown_size, titled, told_events
from .verdict import Finding, Verdict, few_steps, joined, series, warned
from .wording import count, duration, number, share

# Share of the pairs whose halves must be known from those of others: half is chance.
BELONGING = 0.6
# How far validation may be above its best, as a share of the best.
RISE = 0.02
# Figures at the head of the page.
NUM_TILES = 6


@dataclass(frozen=True, eq=False)
class Shown:
    """An item: text, or an image uint8 (H, W, C) with a file that is played."""

    text: str = ""
    image: np.ndarray | None = None
    sound: bytes = b""
    media_type: str = ""

    @property
    def uri(self) -> str:
        return "" if self.image is None else image_uri(self.image)

    @property
    def played(self) -> str:
        return media_uri(self.sound, self.media_type) if self.sound else ""


@dataclass(frozen=True, eq=False)
class ShownRow:
    """What was given, what belongs to it, and what was made for it."""

    given: Shown
    real: Shown
    made: Sequence[Shown]


@dataclass(frozen=True, eq=False)
class Direction:
    """Examples, from items of one kind to items of another."""

    given: str
    made: str
    rows: Sequence[ShownRow]


@dataclass(frozen=True, eq=False)
class PairSummary:
    """Everything that the report of a pair shows.

    metrics: as `evaluate_pair` gives them, with figures of training. history, events: as of a
    prior's report. minutes: that the whole command had, where these ended training.
    """

    title: str
    command: str
    config_yaml: str
    metrics: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]] = ()
    events: Sequence[Mapping[str, Any]] = ()
    directions: Sequence[Direction] = field(default_factory=list)
    minutes: float | None = None


def write_pair_report(summary: PairSummary, path: Path) -> None:
    """Write the report: at `path` there is the old file or the whole new one."""
    write_text(path, render_pair(summary))


def render_pair(summary: PairSummary) -> str:
    """The page as text. All strings of the summary are escaped."""
    rows = pair_rows(summary.metrics)
    curves = {"Loss": figures.over_steps(summary.history, {"loss": "nats a code"}, summary.events)}
    curves["Bits a code"] = figures.over_steps(
        summary.history, {f"bits/{name}": text for name, text in TERMS.items()}
    )
    images = [
        one.image
        for direction in summary.directions
        for row in direction.rows
        for one in (row.given, *row.made)
        if one.image is not None
    ]
    return fill(
        "pair.html",
        summary=summary,
        verdict=judge_pair(summary),
        tiles=[replace(row, note="") for row in rows[:NUM_TILES]],
        pixels=shown_size(*(images[0].shape if images else (96, 96, 3))),
        training=titled(curves),
        metric_rows=rows,
        kicker=kicker(summary.metrics, "pair"),
        **told_events(summary.events),
    )


TERMS = {
    "first": "first",
    "second": "second",
    "first_given_second": "first, told the second",
    "second_given_first": "second, told the first",
}


def pair_rows(metrics: Mapping[str, Any]) -> list[Row]:
    known = (
        ("saved_bits", "Saved bits", number, "that halves of a pair save one another"),
        (
            "belonging",
            "Belonging",
            share,
            "pairs told from wrong ones; 50 % is chance",
        ),
        ("first_bits_told", "First, told", number, "bits of the first half, the second known"),
        ("second_bits_told", "Second, told", number, "bits of the second half, the first known"),
        ("training_seconds", "Training", duration, ""),
        ("parameters", "Parameters", count, ""),
        ("first_bits", "First alone", number, "bits of the first half"),
        ("second_bits", "Second alone", number, "bits of the second half"),
        ("saved_shuffled", "Saved by wrong ones", number, "bits, of halves of different pairs"),
        ("items", "Pairs", count, "in the evaluated split"),
        ("split", "Split", str, ""),
        ("step", "Steps", count, ""),
    )
    rows = []
    for key, label, form, note in known:
        if metrics.get(key) is not None:
            rows.append(Row(label, form(metrics[key]), note))
    return rows


def judge_pair(summary: PairSummary) -> Verdict:
    """The verdict on a pair, from its figures and curves."""
    checks = (
        _belonging(summary),
        _overfit(summary),
        few_steps(summary.metrics, summary.minutes),
        warned(summary.events),
    )
    findings = tuple(filter(None, checks))
    metrics = summary.metrics
    told = ""
    if "saved_bits" in metrics:
        told = (
            f"halves of a pair save one another {number(metrics['saved_bits'])} bits, those of "
            f"different pairs {number(metrics['saved_shuffled'])}"
        )
    if findings:
        advice = tuple(finding.advice for finding in findings if finding.advice)
        return Verdict(
            False, "Look closer", f"{joined(findings)}. Result: {told}.", findings, advice
        )
    steps = ("vqkit generate DIR --from ... draws more; --cfg 2 follows what is given closer.",)
    return Verdict(True, "Healthy", f"{told}.", (), steps)


def _belonging(summary: PairSummary) -> Finding | None:
    found = summary.metrics.get("belonging")
    if found is None or found >= BELONGING or summary.metrics["items"] < 20:
        return None
    return Finding(
        "halves hardly tell anything of one another",
        f"Only {share(found)} of the pairs are told from ones put together wrongly.",
        "Check that files of one name belong together; else train longer, or on more pairs.",
    )


def _overfit(summary: PairSummary) -> Finding | None:
    steps, values = series(summary.history, "loss", "validation")
    if len(values) < 3 or values[-1] <= (1 + RISE) * values.min():
        return None
    best = int(steps[int(values.argmin())])
    return Finding(
        "the prior over-fits",
        f"Validation was best at step {count(best)} and has risen since.",
        "Use more pairs, augment, network.dropout, or a smaller network.width.",
    )
