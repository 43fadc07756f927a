"""Is the run healthy? One sentence, the reasons against, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .summary import RunSummary
from .tables import bits_in_files
from .usage import EVALUATED, Usage, has_codes, num_judged, usage_of
from .wording import count, decibel, finite, number, of_items, share

LOSS = "loss/reconstruction"
# Shares of the loss that fell over the last fifth and over the last half, from which on a run was
# too short. Long runs with a cosine schedule had up to 0.18 over the last half.
STEEP_FALLS = (0.05, 0.25)
# Steps below which the curve looks like that of any run with a cosine, so that it does not tell.
FEW_STEPS = 200
# Values of training that are averaged at least.
FEW_VALUES = 3
# Images of a split whose figures may be chance.
FEW_IMAGES = 20
# How far validation may be above training, as a share of the training loss.
LARGE_GAP = 0.15
# How far validation may be above its best, as a share of the best.
RISE = 0.05


@dataclass(frozen=True)
class Finding:
    """Something that speaks against the run.

    `short` goes into the verdict's sentence, `text` and `advice` below it.
    """

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
    return on_items(_judged(summary), summary.item)


def on_items(verdict: Verdict, item: str) -> Verdict:
    """A verdict in words on images as one on other items."""
    findings = []
    for one in verdict.findings:
        findings.append(
            Finding(*(of_items(text, item) for text in (one.short, one.text, one.advice)))
        )
    return replace(
        verdict,
        sentence=of_items(verdict.sentence, item),
        findings=tuple(findings),
        next_steps=tuple(of_items(step, item) for step in verdict.next_steps),
    )


def _judged(summary: RunSummary) -> Verdict:
    """As `judge`, in words on images."""
    checks = (
        _broken(summary),
        _usage(summary),
        _no_better_than_mean(summary),
        _falling(summary),
        _gap(summary),
        warned(summary.events),
    )
    findings = tuple(filter(None, checks))
    figures = _figures(summary.metrics)
    if findings:
        sentence = f"{joined(findings)}."
        if figures:
            sentence += f" Result: {figures}."
        sentence += _stage_words(summary.metrics)
        sentence += too_few_images(summary.metrics)
        return Verdict(False, "Look closer", sentence, findings, _next_steps(summary, findings))
    parts = filter(None, (_usage_words(summary), figures))
    sentence = (", ".join(parts) or "nothing to report") + "." + _stage_words(summary.metrics)
    return Verdict(True, *if_healthy(sentence, summary.metrics), (), _next_steps(summary, ()))


def if_healthy(sentence: str, metrics: Mapping[str, Any]) -> tuple[str, str]:
    """Word and sentence of a verdict without findings."""
    doubt = too_few_images(metrics)
    return "Probably healthy" if doubt else "Healthy", sentence + doubt


def too_few_images(metrics: Mapping[str, Any]) -> str:
    """A further sentence where the split that was measured is too small to judge by, or was trained
    on, else nothing.
    """
    split = metrics.get("split", "evaluated")
    if split == "train":
        return (
            " No image was held out: the figures are of images that it was trained on, and say "
            "nothing about others."
        )
    images = num_judged(metrics)
    if images is None or images >= FEW_IMAGES:
        return ""
    if images == 1:
        return f" One {split} image is too little to judge by: others may give other figures."
    return (
        f" The {count(images)} {split} images are too few to judge by: others may give other "
        "figures."
    )


def joined(findings: Sequence[Finding]) -> str:
    """The short forms of at least one finding as a list in words."""
    *others, last = [finding.short for finding in findings]
    if not others:
        return last
    return f"{', '.join(others)} and {last}"


# ------------------------------------------------------------------------------------------- checks


def _broken(summary: RunSummary) -> Finding | None:
    psnr = summary.metrics.get("psnr")
    if isinstance(psnr, (int, float)) and math.isnan(psnr):
        return Finding(
            "PSNR is not a number",
            "The reconstructions hold values that are not numbers.",
            "Lower train.lr.",
        )
    return None


def _usage(summary: RunSummary) -> Finding | None:
    usage = usage_of(summary)
    if usage is None or not usage.weak:
        return None
    weakest = usage.weak[0]
    several = len(usage.shares) > 1
    codes = f"{share(usage.lowest)} of the codes"
    if several:
        codes += f" of codebook {weakest + 1}"
    text = f"{codes} occur {usage.where}"
    if summary.code_counts is not None and usage.where == EVALUATED:
        row = summary.code_counts[weakest]
        text += f": {count((row == 0).sum())} of {count(len(row))} never do"
    if several:
        text += f". The mean over all {len(usage.shares)} codebooks is {share(usage.mean)}"
    if 1 < len(usage.weak) <= 8:
        names = ", ".join(str(index + 1) for index in sorted(usage.weak))
        text += f"; codebooks {names} have too few"
    return Finding(f"only {codes} are used", text + ".", _usage_advice(summary))


def _usage_advice(summary: RunSummary) -> str:
    if summary.weighs_bits:
        return (
            "Codes that weigh bits are used unevenly by intention, but not as much: lower the "
            "quantizer's rate."
        )
    advice = (
        "You pay for bits that carry nothing. Try a smaller codebook, a smaller code_dim, "
        "distance: cosine"
    )
    if "revive_threshold" in summary.config_yaml:
        return advice + " or a higher revive_threshold."
    return advice + ", or fewer levels."


def _no_better_than_mean(summary: RunSummary) -> Finding | None:
    heard = finite(summary.metrics.get("spectral_snr"))
    if heard is not None:
        return None if heard > 1 else _carries_nothing()
    if len(summary.originals) < 8 or summary.originals.shape != summary.reconstructions.shape:
        return None
    originals = summary.originals.astype(np.float32)
    error = float(np.square(originals - summary.reconstructions).mean())
    baseline = float(np.square(originals - originals.mean(axis=0)).mean())
    if error < 0.98 * baseline or baseline == 0:
        return None
    return _carries_nothing()


def _carries_nothing() -> Finding:
    text = (
        "The reconstructions are no closer to the originals than the average image is: the codes "
        "carry nothing."
    )
    advice = (
        "Lower losses.kl (model.variational) or train.lr, raise warmup, and check that the data "
        "are as you think."
    )
    return Finding("the reconstructions are no better than the average image", text, advice)


def _falling(summary: RunSummary) -> Finding | None:
    history = _history(summary)
    fall = late_fall(history, _loss_key(history), STEEP_FALLS)
    if not fall:
        return few_steps(summary.metrics, summary.minutes)
    text = f"The {_loss_name(summary)} fell by another {fall}."
    last = max(int(row["step"]) for row in history)
    advice = train_longer(summary.metrics, 2 * last, summary.minutes)
    return Finding("the loss is still falling", text, advice)


def _gap(summary: RunSummary) -> Finding | None:
    history = _history(summary)
    key = _loss_key(history)
    if key is None:
        return None
    steps, values = series(history, key, "validation")
    if not len(values):
        return None
    name = _loss_name(summary)
    if len(values) > 2 and values.min() > 0 and values[-1] > (1 + RISE) * values.min():
        best = int(steps[values.argmin()])
        rise = share(values[-1] / values.min() - 1)
        text = (
            f"The validation {name} was lowest at step {count(best)} and has risen by {rise} since."
        )
        advice = (
            "The model memorises. Set train.patience, use more data or data.augment, or make the "
            "model smaller."
        )
        return Finding("validation got worse again", text, advice)
    train_steps, train = series(history, key, "train")
    train = train[train_steps >= 0.9 * max(steps[-1], 1)]
    if not len(train) or train.mean() <= 0 or values[-1] <= (1 + LARGE_GAP) * train.mean():
        return None
    gap = share(values[-1] / train.mean() - 1)
    text = (
        f"At the end, the validation {name} ({number(values[-1])}) is {gap} above training "
        f"({number(train.mean())})"
    )
    if summary.is_log_loss:
        text += f": {10 * math.log10(values[-1] / train.mean()):.1f} dB"
    text += "."
    advice = "The model memorises. Use more data or data.augment, or make the model smaller."
    return Finding("validation is far behind training", text + _few_images(summary), advice)


def _few_images(summary: RunSummary) -> str:
    splits = summary.data.get("splits")
    if not isinstance(splits, Mapping):
        return ""
    images = finite(splits.get("validation"))
    if images is None or images >= FEW_IMAGES:
        return ""
    return f" With {count(images)} validation images, a part of that may be chance."


def few_steps(metrics: Mapping[str, Any], minutes: float | None) -> Finding | None:
    """A run too short to have learned much, unless it stopped because validation got no better."""
    steps = finite(metrics.get("step"))
    if steps is None or steps >= FEW_STEPS or metrics.get("stopped_by") == "plateau":
        return None
    text = f"{count(steps)} steps are a trial of the settings; a finished model takes thousands."
    advice = train_longer(metrics, 1000, minutes)
    return Finding(f"it trained for {count(steps)} steps only", text, advice)


def train_longer(metrics: Mapping[str, Any], steps: int, minutes: float | None) -> str:
    """Advice for a run that ended too early, by what ended it.

    minutes: of the command, where these ended it.
    """
    if metrics.get("stopped_by") == "max_minutes":
        if minutes is not None:
            return f"Train longer: --minutes {2 * minutes:g}, in a new folder."
        return "Train longer: raise train.max_minutes."
    return f"Train longer: train.steps={round_up(steps)}."


def warned(events: Sequence[Mapping[str, Any]]) -> Finding | None:
    """The warnings of a run that it did not recover from, as one finding."""
    warnings: list[Mapping[str, Any]] = []
    for event in events:
        level = event.get("level")
        if level == "recovered":
            # What the run recovered from speaks no longer against it.
            warnings.clear()
        elif level == "warning":
            warnings.append(event)
    if not warnings:
        return None
    last = warnings[-1]
    step = count(last.get("step", 0))
    message = str(last.get("message", "")).rstrip(".")
    if len(warnings) == 1:
        return Finding("there was a warning", f"Step {step}: {message}.")
    text = f"The last of {len(warnings)}, at step {step}: {message}."
    return Finding(f"there were {len(warnings)} warnings", text)


# ------------------------------------------------------------------------------------------ history


def series(
    history: Sequence[Mapping[str, Any]], key: str, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one figure on one split, in the order of steps.

    Rows where it is missing are left out.
    """
    points = []
    for row in history:
        step = finite(row.get("step"))
        value = finite(row.get(key))
        if row.get("split") == split and step is not None and value is not None:
            points.append((step, value))
    points.sort()
    steps, values = np.array(points).reshape(-1, 2).T
    return steps, values


def late_fall(
    history: Sequence[Mapping[str, Any]], key: str | None, steep: tuple[float, float]
) -> str:
    """How much of the loss `key` vanished late in the run, in words.

    Empty if that was little or cannot be told.

    steep: from which shares on a fall over the last fifth, or over the last half, is worth saying.
    The half is for runs whose learning rate falls to zero, after which no loss falls, or that were
    too short for five values in a fifth.
    """
    if key is None:
        return ""
    for fall, limit, part in (
        (fall_at_end(history, key), steep[0], "fifth"),
        (fall_over_half(history, key), steep[1], "half"),
    ):
        if fall is not None and fall >= limit:
            return f"{share(fall)} in the last {part} of the run"
    return ""


def fall_at_end(history: Sequence[Mapping[str, Any]], key: str = LOSS) -> float | None:
    """Share of the loss `key` that vanished over the last fifth of the run.

    None if it cannot be told from noise.

    A line is fitted to the logarithm of the loss, on the validation split where it has at least
    five values there.
    """
    for split in ("validation", "train"):
        steps, values = series(history, key, split)
        if not len(steps):
            continue
        late = steps >= 0.8 * steps[-1]
        if late.sum() < 5 or values[late].min() <= 0 or steps[late][0] == steps[-1]:
            continue
        x = steps[late] / steps[-1]
        y = np.log(values[late])
        slope, intercept = np.polyfit(x, y, 1)
        residual = y - slope * x - intercept
        # The standard error of the slope: twice that is what chance alone may reach.
        variance = float(residual @ residual) / (len(x) - 2)
        noise = math.sqrt(variance / float(np.square(x - x.mean()).sum()))
        if slope >= -2 * noise:
            return None
        return 1 - math.exp(0.2 * slope)
    return None


def fall_over_half(history: Sequence[Mapping[str, Any]], key: str = LOSS) -> float | None:
    """Share of the loss `key` that vanished over the last half of the run, below 0 if it rose.

    Of validation two values are enough, one from about the middle: both are of the same images.
    Without them, of training, whose batches differ: the means of several values about the middle
    and at the end. None where there are too few.
    """
    steps, values = series(history, key, "validation")
    if len(steps) and steps[0] <= 0.55 * steps[-1]:
        if values.min() <= 0:
            return None
        return 1 - float(values[-1] / np.interp(0.5 * steps[-1], steps, values))
    steps, values = series(history, key, "train")
    if not len(steps) or values.min() <= 0:
        return None
    middle = values[(steps >= 0.4 * steps[-1]) & (steps <= 0.6 * steps[-1])]
    late = values[steps >= 0.8 * steps[-1]]
    if min(len(middle), len(late)) < FEW_VALUES:
        return None
    return 1 - float(late.mean() / middle.mean())


def _history(summary: RunSummary) -> Sequence[Mapping[str, Any]]:
    """The rows, with the error itself in place of its logarithm: of numbers of any sign there are
    no shares.
    """
    if not summary.is_log_loss:
        return summary.history
    rows = []
    for row in summary.history:
        log = finite(row.get(LOSS))
        rows.append(row if log is None else {**row, LOSS: math.exp(log)})
    return rows


def _loss_key(history: Sequence[Mapping[str, Any]]) -> str | None:
    for key in (LOSS, "loss"):
        if any(key in row for row in history):
            return key
    return None


def _loss_name(summary: RunSummary) -> str:
    return "mean squared error" if summary.is_log_loss else "loss"


# -------------------------------------------------------------------------------------------- words


def _usage_words(summary: RunSummary) -> str:
    usage = usage_of(summary)
    if not has_codes(summary):
        return ""
    if usage is None:
        split = summary.metrics.get("split", "evaluated")
        return f"{split} images too few to tell how many codes are used"
    words = _share_words(usage)
    if usage.where == EVALUATED:
        return words
    return f"{words} in training"


def _stage_words(metrics: Mapping[str, Any]) -> str:
    """A further sentence on the weights in use, where there was an adversarial stage."""
    stage = metrics.get("adversary")
    if not isinstance(stage, Mapping) or not stage.get("ended_at"):
        return ""
    return f" The weights from {stage.get('in_use')} the adversarial stage are in use."


def _share_words(usage: Usage) -> str:
    if usage.lowest >= 1:
        return "every code is used"
    if usage.where == EVALUATED and usage.reachable < 1:
        return f"{share(usage.mean)} of the codes occur, as many as a split this small can show"
    return f"{share(usage.mean)} of the codes are used"


def _figures(metrics: Mapping[str, Any]) -> str:
    """Quality and rate in words, as far as they are known."""
    return " at ".join(filter(None, (_quality(metrics), _rate(metrics))))


def _quality(metrics: Mapping[str, Any]) -> str:
    quality = metrics.get("psnr", metrics.get("spectral_snr"))
    if quality == math.inf:
        return "exact reconstruction"
    if finite(quality) is not None:
        return decibel(quality)
    accuracy = finite(metrics.get("byte_accuracy"))
    return "" if accuracy is None else f"{share(accuracy / 100)} of bytes right"


def _rate(metrics: Mapping[str, Any]) -> str:
    bits = metrics.get("bits_per_item")
    bits_per_pixel = metrics.get("bpp")
    if finite(bits):
        rate = f"{count(bits)} bits per image"
    elif finite(bits_per_pixel):
        rate = f"{number(bits_per_pixel)} bits per pixel"
    else:
        return ""
    files = bits_in_files(metrics)
    if files:
        rate += f", {count(files)} in files"
    return rate


def round_up(steps: int) -> int:
    """To two significant digits, as a person would set it."""
    unit = 10 ** max(len(str(steps)) - 2, 0)
    return -(-steps // unit) * unit


def _next_steps(summary: RunSummary, findings: Sequence[Finding]) -> tuple[str, ...]:
    steps = [finding.advice for finding in findings if finding.advice]
    if not findings:
        if has_codes(summary):
            steps.append(
                "For better images at more bits: a larger codebook, a smaller patch_size, or more "
                "levels."
            )
        else:
            steps.append("For codes and real compression, choose model.quantizer.kind=vq or fsq.")
        steps.append("For better images at the same bits: more train.steps, or a larger width.")
    if len(summary.worst.names):
        steps.append(
            "Look at the worst images: what they share is what the model or its training data lack."
        )
    return tuple(steps)
