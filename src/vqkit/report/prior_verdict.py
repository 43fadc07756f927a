"""Is a prior healthy: does it predict, is it done learning, are its samples more than copies?"""

from __future__ import annotations

import math

import numpy as np

from .summary import PriorSummary
from .verdict import (
    Finding,
    Verdict,
    few_steps,
    if_healthy,
    joined,
    late_fall,
    on_items,
    series,
    too_few_images,
    train_longer,
    warned,
)
from .wording import count, finite, number, share

KEY = "bits_per_code"
# What a prior must save at least, as a share of the entropy without context.
LITTLE_SAVING = 0.02
# Shares of the bits per code that fell over the last fifth and over the last half, from which on a
# run was too short; the end of a cosine schedule alone brings less.
STEEP_FALLS = (0.03, 0.08)
# How far validation may be above training, as a share of the training bits per code.
LARGE_GAP = 0.05
# How far validation may be above its best, as a share of the best.
RISE = 0.01
# Share of the samples that may be near copies; by chance it is 0.01.
MEMORISED = 0.05
# The distance of an image from itself, in grey levels, with room for rounding.
SAME = 0.5


def judge_prior(summary: PriorSummary) -> Verdict:
    """The verdict on a prior, from its figures, curves, events and the distances of its samples."""
    return on_items(_judged(summary), summary.item)


def _judged(summary: PriorSummary) -> Verdict:
    """As `judge_prior`, in words on images."""
    checks = (
        _broken(summary),
        _saving(summary),
        _overfit(summary),
        _memorised(summary),
        _duplicates(summary),
        _falling(summary),
        warned(summary.events),
    )
    findings = tuple(filter(None, checks))
    figures = _figures(summary)
    if findings:
        sentence = f"{joined(findings)}."
        if figures:
            sentence += f" Result: {figures}."
        sentence += too_few_images(summary.metrics)
        return Verdict(False, "Look closer", sentence, findings, _next_steps(findings))
    parts = filter(None, (figures, _gap_words(summary), _copies_words(summary)))
    sentence = ("; ".join(parts) or "nothing to report") + "."
    return Verdict(True, *if_healthy(sentence, summary.metrics), (), _next_steps(()))


def near_copies(summary: PriorSummary) -> np.ndarray:
    """Which of the samples are nearer to a training image than 99 % of reconstructed held-out
    images are: bool (N,).

    About 1 % are by chance. Reconstructed, because samples are decoded images too: these are
    smoother than images and as a rule nearer to everything, copied or not. All False without
    held-out images.
    """
    yardstick = np.sort(np.asarray(summary.reconstructed_distances, np.float64))
    if not len(yardstick):
        return np.zeros(len(summary.distances), bool)
    distances = np.asarray(summary.distances, np.float64)
    farther = len(yardstick) - np.searchsorted(yardstick, distances, side="right")
    return 100 * farther >= 99 * len(yardstick)


def derived_figures(summary: PriorSummary) -> dict[str, float | None]:
    """Figures that follow from distances and curves; None where these were not measured.

    memorised: share of `near_copies` among the samples. overfit_bits: validation minus training,
    bits a code at the end.
    """
    memorised = None
    if len(summary.distances) and len(summary.reconstructed_distances):
        memorised = float(near_copies(summary).mean())
    overfit_bits = None
    gap = _gap(summary)
    if gap:
        train, validation = gap
        overfit_bits = validation - train
    return {"memorised": memorised, "overfit_bits": overfit_bits}


# ------------------------------------------------------------------------------------------- checks


def _broken(summary: PriorSummary) -> Finding | None:
    bits = summary.metrics.get(KEY)
    if not isinstance(bits, (int, float)) or math.isfinite(bits):
        return None
    return Finding(
        "bits per code is not a number", "The prior gives no probabilities.", "Lower train.lr."
    )


def _saving(summary: PriorSummary) -> Finding | None:
    saving = finite(summary.metrics.get("saving_vs_order0"))
    if saving is None or saving >= LITTLE_SAVING:
        return None
    text = "Against codes whose frequencies are known and nothing else, it saves "
    text += f"only {share(saving)} of the bits." if saving > 0 else "nothing."
    advice = (
        "It has learned no structure, so samples look like random codes. Train longer, or check "
        "the data."
    )
    return Finding("the prior hardly predicts anything", text, advice)


def _overfit(summary: PriorSummary) -> Finding | None:
    steps, values = series(summary.history, KEY, "validation")
    if not len(values):
        return None
    best = int(values.argmin())
    if len(values) > 2 and values[best] > 0 and values[-1] > (1 + RISE) * values[best]:
        return _risen(summary, int(steps[best]), float(values[best]), float(values[-1]))
    gap = _gap(summary)
    if gap is None:
        return None
    train, validation = gap
    if train <= 0 or validation <= (1 + LARGE_GAP) * train:
        return None
    text = (
        f"At the end, validation costs {number(validation)} bits per code and training "
        f"{number(train)}: {number(validation - train)} more, or {share(validation / train - 1)}."
    )
    advice = (
        "The prior learns its images by heart. Use more data, augment.shift or augment.flip, "
        "network.dropout, or a smaller network.width."
    )
    return Finding("the prior over-fits", text, advice)


def _risen(summary: PriorSummary, step: int, best: float, last: float) -> Finding:
    """Validation is above its best: by heart if training fell meanwhile, else unsteady."""
    text = (
        f"Validation was best at step {count(step)} ({number(best)} bits per code) and has risen "
        f"to {number(last)}"
    )
    then = _train_level(summary, step)
    now = _train_level(summary, None)
    if then is not None and now is not None and now >= then:
        advice = (
            "Training did not fall either: it became unsteady. Lower train.lr, or raise "
            "train.warmup."
        )
        return Finding("validation got worse again", text + " since.", advice)
    if then is not None and now is not None:
        text += (
            f" since, while training fell from {number(then)} to {number(now)}: from there on it "
            "learned by heart."
        )
    else:
        text += " since."
    if summary.metrics.get("stopped_by") == "plateau":
        advice = (
            "The weights of the best step were kept, so this costs nothing but time; for better "
            "samples,"
        )
    else:
        advice = "Set train.patience, so that the best weights are kept;"
    advice += " use more data, augment.shift or augment.flip, or network.dropout."
    return Finding("the prior over-fits", text, advice)


def _gap(summary: PriorSummary) -> tuple[float, float] | None:
    """Bits per code at the end on (training, validation)."""
    _, validation = series(summary.history, KEY, "validation")
    train = _train_level(summary, None)
    if train is None or not len(validation):
        return None
    return train, float(validation[-1])


def _train_level(summary: PriorSummary, step: int | None) -> float | None:
    """Training bits per code up to `step` (None: the end): mean over a tenth of the run, as single
    batches vary.
    """
    steps, values = series(summary.history, KEY, "train")
    if not len(steps):
        return None
    end = steps[-1] if step is None else step
    near = values[(steps >= end - 0.1 * steps[-1]) & (steps <= end)]
    if not len(near):
        return None
    return float(near.mean())


def _memorised(summary: PriorSummary) -> Finding | None:
    near = near_copies(summary)
    if near.sum() < 2 or near.mean() <= MEMORISED:
        return None
    by_chance = math.ceil(len(near) / 100)
    text = (
        f"{count(near.sum())} of {count(len(near))} samples are nearer to a training image than "
        "all but one in a hundred reconstructed held-out images; by chance it would be "
        f"{count(by_chance)}."
    )
    advice = (
        "Look at the nearest pairs below. Plain images are near to everything; if these are "
        "copies, use more data, augment.shift or augment.flip, network.dropout, or fewer steps, "
        "and do not publish them as new."
    )
    return Finding("samples are close to copies of training images", text, advice)


def _duplicates(summary: PriorSummary) -> Finding | None:
    same = np.asarray(summary.held_out_distances) < SAME
    if same.sum() < 2 or same.mean() <= 0.01:
        return None
    text = f"{share(same.mean())} of the held-out images are in the training set as well."
    advice = (
        "Validation looks better than it is, and copies cannot be told by distance. Remove "
        "duplicates from the data."
    )
    return Finding("held-out images are among the training images", text, advice)


def _falling(summary: PriorSummary) -> Finding | None:
    fall = late_fall(summary.history, KEY, STEEP_FALLS)
    # Training alone goes on falling while a prior learns by heart: more of it would be the wrong
    # advice.
    if _overfit(summary):
        return None
    if not fall:
        return few_steps(summary.metrics, summary.minutes)
    last = max(int(row["step"]) for row in summary.history)
    text = f"Bits per code fell by another {fall}."
    advice = train_longer(summary.metrics, 2 * last, summary.minutes)
    return Finding("bits per code is still falling", text, advice)


# -------------------------------------------------------------------------------------------- words


def _figures(summary: PriorSummary) -> str:
    bits = finite(summary.metrics.get(KEY))
    saving = finite(summary.metrics.get("saving_vs_order0"))
    if bits is None:
        return ""
    words = f"{number(bits)} bits per code"
    if saving is not None and saving >= LITTLE_SAVING:
        words += f" ({share(saving)} saved against codes without context)"
    return words


def _gap_words(summary: PriorSummary) -> str:
    gap = _gap(summary)
    if gap is None:
        return ""
    train, validation = gap
    difference = validation - train
    if difference <= 0:
        return "no over-fit"
    return f"no over-fit (validation is {number(difference)} bits above training)"


def _copies_words(summary: PriorSummary) -> str:
    if derived_figures(summary)["memorised"] is None:
        return ""
    near = near_copies(summary)
    return (
        f"no sign of copying ({count(near.sum())} of {count(len(near))} samples are nearly a "
        "training image)"
    )


def _next_steps(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    steps = [finding.advice for finding in findings if finding.advice]
    if not findings:
        steps.append(
            "For better samples: a longer train.max_minutes or train.steps, or a larger "
            "network.width."
        )
    steps.append(
        "Draw more: vqkit generate DIR --out new.png; --temperature 0.9 is safer, --temperature "
        "1.1 wilder."
    )
    steps.append(
        "If even samples with the right structure look blurred, that is the autoencoder: train it "
        "longer."
    )
    return tuple(steps)
