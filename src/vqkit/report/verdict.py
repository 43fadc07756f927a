"""Is the run healthy? One sentence, the reasons against, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .summary import RunSummary
from .wording import count, decibel, finite, number, share

ENOUGH_USAGE = 0.90
STEEP_FALL = 0.05  # of the loss, over the last fifth of the run
LARGE_GAP = 0.15  # of the training loss
RISE = 0.05  # of the best validation loss


@dataclass(frozen=True)
class Finding:
    """Something that speaks against the run: `short` goes into the sentence, `text` and `advice` below it."""

    short: str
    text: str
    advice: str = ""


@dataclass(frozen=True)
class Verdict:
    healthy: bool
    word: str
    sentence: str
    findings: tuple[Finding, ...]
    next_steps: tuple[str, ...]


def judge(summary: RunSummary) -> Verdict:
    """The verdict on a run, from its figures, history, events and gallery."""
    checks = (_broken(summary), _usage(summary), _no_better_than_mean(summary), _falling(summary), _gap(summary))
    findings = tuple(found for found in (*checks, warned(summary.events)) if found)
    if findings:
        figures = _figures(summary.metrics)
        sentence = f"{joined(findings)}." + (f" Result: {figures}." if figures else "")
        return Verdict(False, "Look closer", sentence, findings, _next_steps(summary, findings))
    parts = [part for part in (_usage_words(summary), _figures(summary.metrics)) if part]
    return Verdict(True, "Healthy", (", ".join(parts) or "nothing to report") + ".", (), _next_steps(summary, ()))


def joined(findings: Sequence[Finding]) -> str:
    """The short forms of at least one finding as a list in words."""
    shorts = [found.short for found in findings]
    return shorts[0] if len(shorts) == 1 else ", ".join(shorts[:-1]) + " and " + shorts[-1]


def lowest_usage(summary: RunSummary) -> float | None:
    """Share of codes that occur, of the codebook with the fewest; None where codes cannot be counted."""
    shares = [finite(summary.metrics.get("usage"))]
    shares += [float((row > 0).mean()) for row in _counts(summary)]
    return min((value for value in shares if value is not None), default=None)


def reachable_usage(code_counts: Sequence[np.ndarray] | None) -> float:
    """Usage that uniformly drawn codes would reach: 1 - exp(-draws / K) when the split is small, else 1."""
    rows = () if code_counts is None else code_counts
    ratio = min((float(row.sum()) / len(row) for row in rows), default=math.inf)
    return 1.0 if ratio >= 5 else 1 - math.exp(-ratio)


def _counts(summary: RunSummary) -> Sequence[np.ndarray]:
    return () if summary.code_counts is None else summary.code_counts


# ------------------------------------------------------------------------------------------------------------ checks


def _broken(summary: RunSummary) -> Finding | None:
    psnr = summary.metrics.get("psnr")
    if isinstance(psnr, (int, float)) and math.isnan(psnr):
        return Finding(
            "PSNR is not a number", "The reconstructions hold values that are not numbers.", "Lower train.lr."
        )
    return None


def _usage(summary: RunSummary) -> Finding | None:
    usage, reachable = lowest_usage(summary), reachable_usage(summary.code_counts)
    if usage is None or usage >= ENOUGH_USAGE * reachable:
        return None
    text = f"{share(usage)} of the codes occur in the evaluated split"
    rows = _counts(summary)
    if len(rows):
        dead = sum(int((row == 0).sum()) for row in rows)
        text += f": {count(dead)} of {count(sum(map(len, rows)))} never do"
        weak = [index + 1 for index, row in enumerate(rows) if (row > 0).mean() < ENOUGH_USAGE * reachable]
        text += f" (codebooks {', '.join(map(str, weak))})" if len(rows) > 1 and len(weak) <= 8 else ""
    advice = "You pay for bits that carry nothing. Try a smaller codebook, a smaller code_dim, distance: cosine"
    advice += " or a higher revive_threshold." if "revive_threshold" in summary.config_yaml else ", or fewer levels."
    return Finding(f"only {share(usage)} of the codes are used", text + ".", advice)


def _no_better_than_mean(summary: RunSummary) -> Finding | None:
    if len(summary.originals) < 8 or summary.originals.shape != summary.reconstructions.shape:
        return None
    originals = summary.originals.astype(np.float32)
    error = float(np.square(originals - summary.reconstructions).mean())
    baseline = float(np.square(originals - originals.mean(axis=0)).mean())
    if error < 0.98 * baseline or baseline == 0:
        return None
    text = "The reconstructions are no closer to the originals than the average picture is: the codes carry nothing."
    advice = "Lower losses.kl (model.variational) or train.lr, raise warmup, and check that the data are as you think."
    return Finding("the reconstructions are no better than the average picture", text, advice)


def _falling(summary: RunSummary) -> Finding | None:
    fall = fall_at_end(summary.history)
    if fall is None or fall < STEEP_FALL:
        return None
    last = max(int(row["step"]) for row in summary.history)
    text = f"The loss fell by another {share(fall)} in the last fifth of the run."
    return Finding("the loss is still falling", text, f"Train longer: train.steps={round_up(2 * last)}.")


def _gap(summary: RunSummary) -> Finding | None:
    key, (steps, values) = _loss_key(summary.history), (np.zeros(0), np.zeros(0))
    if key:
        steps, values = series(summary.history, key, "validation")
    if key is None or not len(values):
        return None
    if len(values) > 2 and values.min() > 0 and values[-1] > (1 + RISE) * values.min():
        best = int(steps[values.argmin()])
        rise = share(values[-1] / values.min() - 1)
        text = f"The validation loss was lowest at step {count(best)} and has risen by {rise} since."
        advice = "The model memorises. Set train.patience, use more data or data.augment, or make the model smaller."
        return Finding("validation got worse again", text, advice)
    train_steps, train = series(summary.history, key, "train")
    train = train[train_steps >= 0.9 * max(steps[-1], 1)]
    if not len(train) or train.mean() <= 0 or values[-1] <= (1 + LARGE_GAP) * train.mean():
        return None
    gap = share(values[-1] / train.mean() - 1)
    text = f"At the end, the validation loss ({number(values[-1])}) is {gap} above training ({number(train.mean())})."
    advice = "The model memorises. Use more data or data.augment, or make the model smaller."
    return Finding("validation is far behind training", text, advice)


def warned(events: Sequence[Mapping[str, Any]]) -> Finding | None:
    """The warnings of a run that it did not recover from, as one finding."""
    warnings: list[Mapping[str, Any]] = []
    for event in events:  # what the run recovered from speaks no longer against it
        level = event.get("level")
        warnings = [] if level == "recovered" else [*warnings, event] if level == "warning" else warnings
    if not warnings:
        return None
    short = "there was a warning" if len(warnings) == 1 else f"there were {len(warnings)} warnings"
    last = warnings[-1]
    text = f"Step {count(last.get('step', 0))}: {str(last.get('message', '')).rstrip('.')}."
    if len(warnings) > 1:
        text = f"The last of {len(warnings)}, at step {count(last.get('step', 0))}: {text.partition(': ')[2]}"
    return Finding(short, text)


# ----------------------------------------------------------------------------------------------------------- history


def series(history: Sequence[Mapping[str, Any]], key: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one figure on one split, in the order of steps; rows where it is missing are left out."""
    rows = [(finite(row.get("step")), finite(row.get(key))) for row in history if row.get("split") == split]
    kept = sorted((step, value) for step, value in rows if step is not None and value is not None)
    return np.array([step for step, _ in kept]), np.array([value for _, value in kept])


def fall_at_end(history: Sequence[Mapping[str, Any]], key: str | None = None) -> float | None:
    """Share of the loss (or `key`) that vanished over the last fifth of the run; None if it cannot be told from noise.

    A line is fitted to the logarithm of the loss, on the validation split where it has at least five values there.
    """
    key = key or _loss_key(history)
    for split in ("validation", "train") if key else ():
        steps, values = series(history, str(key), split)
        late = steps >= 0.8 * steps[-1] if len(steps) else np.zeros(0, bool)
        if late.sum() < 5 or values[late].min() <= 0 or steps[late][0] == steps[-1]:
            continue
        x, y = steps[late] / steps[-1], np.log(values[late])
        slope, intercept = np.polyfit(x, y, 1)
        residual = y - slope * x - intercept
        noise = math.sqrt(float(residual @ residual) / (len(x) - 2) / float(np.square(x - x.mean()).sum()))
        return 1 - math.exp(0.2 * slope) if slope < -2 * noise else None
    return None


def _loss_key(history: Sequence[Mapping[str, Any]]) -> str | None:
    keys = {key for row in history for key in row}
    return next((key for key in ("loss/reconstruction", "loss") if key in keys), None)


# ------------------------------------------------------------------------------------------------------------- words


def _usage_words(summary: RunSummary) -> str:
    usage, reachable = lowest_usage(summary), reachable_usage(summary.code_counts)
    if usage is None:
        return "no codes to count"
    if usage >= 1:
        return "every code is used"
    if reachable < 1:
        return f"{share(usage)} of the codes occur, as many as a split this small can show"
    return f"{share(usage)} of the codes are used"


def _figures(metrics: Mapping[str, Any]) -> str:
    psnr, bits, bpp = (metrics.get(key) for key in ("psnr", "bits_per_image", "bpp"))
    quality = "exact reconstruction" if psnr == math.inf else "" if finite(psnr) is None else decibel(psnr)
    rate = f"{count(bits)} bits per image" if finite(bits) else f"{number(bpp)} bits per pixel" if finite(bpp) else ""
    return " at ".join(part for part in (quality, rate) if part)


def round_up(steps: int) -> int:
    """To two significant digits, as a person would set it."""
    unit = 10 ** max(len(str(steps)) - 2, 0)
    return -(-steps // unit) * unit


def _next_steps(summary: RunSummary, findings: Sequence[Finding]) -> tuple[str, ...]:
    steps = [found.advice for found in findings if found.advice]
    if not findings:
        if lowest_usage(summary) is not None:
            steps.append("For better pictures at more bits: a larger codebook, a smaller patch_size, or more levels.")
        else:
            steps.append("For codes and real compression, choose model.quantizer.kind=vq or fsq.")
        steps.append("For better pictures at the same bits: more train.steps, or a larger width.")
    if len(summary.worst.names):
        steps.append("Look at the worst images: what they share is what the model or its training data lack.")
    return tuple(steps)
