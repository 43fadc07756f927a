"""Figures and data summary as rows of text, the same on the page and on the model card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .usage import ENOUGH_IMAGES, num_judged
from .wording import count, decibel, duration, finite, large, number, of_items, quality, share


@dataclass(frozen=True)
class Row:
    label: str
    value: str
    note: str = ""


def _bits(value: Any) -> str:
    if float(value) >= 100:
        return count(value)
    return number(value)


def _perplexity(value: Any) -> str:
    if float(value) > 99_999:
        return large(value)
    return number(value)


def _percent(value: Any) -> str:
    return share(float(value) / 100)


def _rates(value: Any) -> str:
    points = []
    for name, point in value.items():
        points.append(f"{name} {point['bits']:.0f} bits, {point['psnr']:.1f} dB")
    return "; ".join(points)


# By key: the label, how the value is written, and what it means.
METRICS: dict[str, tuple[str, Callable[[Any], str], str]] = {
    "psnr": ("PSNR", decibel, "mean over images; higher is closer to the original"),
    "byte_accuracy": ("Bytes that are right", _percent, "a byte wrong is a letter wrong"),
    "exact_64_bytes": (
        "Runs of 64 bytes without an error",
        _percent,
        "one behind the other; the rest of an item is a run of its own",
    ),
    "valid_utf8": ("Valid UTF-8", _percent, "images whose original is that"),
    "edits_per_100_bytes": (
        "Edits in 100 bytes",
        number,
        "insertions, deletions and replacements that make the original",
    ),
    "bits_per_byte": ("Bits a byte", number, "of codes, without entropy coding"),
    "spectral_snr": (
        "Spectral SNR",
        decibel,
        "of magnitudes, whatever their phases; mean over images; higher is closer",
    ),
    "log_mel": (
        "Log-mel distance",
        decibel,
        "of magnitudes in bands of the mel scale; lower is closer",
    ),
    "ssim": ("SSIM", lambda value: f"{float(value):.3f}", "structural similarity; 1 = identical"),
    "ciede2000": (
        "CIEDE2000",
        number,
        "colour error on smooth areas such as sky; lower is better, about 1 can just be seen",
    ),
    "usage": (
        "Usage",
        share,
        "share of the codes that occur in the whole split, mean over codebooks",
    ),
    "perplexity": (
        "Perplexity",
        _perplexity,
        "how many codes, all used alike, would carry as much",
    ),
    "bits_per_code": (
        "Bits per code",
        number,
        "what a code costs under the prior; lower is better",
    ),
    "bits_per_code_untold": (
        "Bits per code, untold",
        number,
        "the same when the prior is told no class or caption",
    ),
    "order0_bits": (
        "Bits without context",
        number,
        "per code, from its frequency among training codes alone",
    ),
    "saving_vs_order0": ("Saving", share, "of the bits without context; a class is paid for"),
    "label_bits": ("Bits of the class", number, "per image; what naming its class costs"),
    "bits_per_item": ("Bits per image", _bits, ""),
    "bpp": ("Bits per pixel", number, ""),
    "kbps": ("Kilobits per second", number, "of codes of fixed length"),
    "latency": ("Latency of live use", str, "what comes in is out again after so long"),
    "coder_bits_per_code": (
        "Bits per code in files",
        number,
        "under the integer prior, on validation images",
    ),
    "lossless_bits_per_value": (
        "Bits per pixel, lossless",
        number,
        "and channel, on validation images",
    ),
    "rates": ("Rates of files", _rates, "per image; vqkit compress --rate NAME"),
    "rates_split": ("Split of the rates", str, ""),
    "memorised": (
        "Near copies",
        share,
        "samples nearer to a training image than 99 % of reconstructed held-out images; 1 % is "
        "chance",
    ),
    "overfit_bits": ("Over-fit", number, "bits per code at the end: validation minus training"),
    "items": ("Images", count, "in the evaluated split"),
    "cut_from": ("Cut from", count, "images of the evaluated split; the items are patches"),
    "split": ("Split", str, ""),
    "parameters": ("Parameters", large, ""),
    "step": ("Steps", count, "of the optimiser"),
    "stopped_by": ("Stopped by", str, ""),
    "adversary": (
        "Adversarial stage",
        lambda stage: (
            f"steps {count(stage['began_at'])} to {count(stage['ended_at'])}, weights from "
            f"{stage['in_use']} it"
        ),
        "which weights are in use",
    ),
    "training_seconds": ("Training time", duration, ""),
    "items_per_second": ("Training speed", count, "images a second"),
    "peak_memory_mb": ("Peak memory", lambda value: f"{count(value)} MB", ""),
    "version": ("vqkit", str, ""),
    "content_id": (
        "Content id",
        str,
        "SHA-256 of the weights; with the coder's, it names the model in .vq files",
    ),
}
DATA_LABELS = {"sizes": "Original sizes (width × height)", "modes": "Original modes"}
PRIOR_HEADLINE = (
    "bits_per_code",
    "saving_vs_order0",
    "bits_per_item",
    "memorised",
    "training_seconds",
    "parameters",
)
HEADLINE = (
    "psnr",
    "ssim",
    "spectral_snr",
    "log_mel",
    "byte_accuracy",
    "exact_64_bytes",
    "usage",
    "perplexity",
    "bits_per_item",
    "bpp",
    "kbps",
    "bits_per_byte",
    "training_seconds",
)
UNITS = (" dB", " %")


def metric_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """All figures that are there, the known ones first and explained.

    What does not apply (None) is left out.
    """
    known = [key for key in METRICS if key in metrics]
    others = [key for key in metrics if key not in METRICS]
    rows = []
    for key in known + others:
        if metrics[key] is not None:
            rows.append(_row(key, metrics[key]))
    return rows


def rows_of(rows: Sequence[Row], item: str) -> list[Row]:
    """Rows that speak of images, as ones of other items."""
    return [Row(of_items(row.label, item), row.value, of_items(row.note, item)) for row in rows]


def _row(key: str, value: Any) -> Row:
    label, write, note = METRICS.get(key, (key.replace("_", " ").capitalize(), plain, ""))
    try:
        return Row(label, write(value), note)
    except (TypeError, ValueError, OverflowError):
        return Row(label, plain(value), note)


def headline(
    metrics: Mapping[str, Any], keys: Sequence[str] = HEADLINE, codebook_size: int | None = None
) -> list[Row]:
    """At most six figures: label, value without unit, and as the note its unit or what it is to be
    compared with.
    """
    rows = []
    for key in keys:
        if metrics.get(key) is None:
            continue
        row = _row(key, metrics[key])
        unit = next((unit for unit in UNITS if row.value.endswith(unit)), "")
        value = row.value.removesuffix(unit)
        note = _compared_with(key, metrics, codebook_size)
        # Only usage keeps its per cent beside the comparison: the others count something.
        if key == "usage" or not note:
            note = unit + note
        rows.append(Row(row.label, value, note.strip()))
    return rows[:6]


def _compared_with(key: str, metrics: Mapping[str, Any], codebook_size: int | None) -> str:
    """What a figure of the headline is to be compared with, in words after it; may be empty."""
    if key == "perplexity" and codebook_size:
        size = large(codebook_size) if codebook_size > 99_999 else count(codebook_size)
        return f" of {size}"
    if key == "bits_per_item":
        files = bits_in_files(metrics)
        return f" {count(files)} in files" if files else ""
    judged = num_judged(metrics)
    if key == "usage" and judged and judged < ENOUGH_IMAGES:
        return f" in {count(judged)} image{'' if judged == 1 else 's'}"
    return ""


def bits_in_files(metrics: Mapping[str, Any]) -> float | None:
    """Bits that all codes of an image take in files, measured; None where no coder was fitted."""
    rates = metrics.get("rates")
    if not isinstance(rates, Mapping):
        return None
    full = rates.get("full")
    if not isinstance(full, Mapping):
        return None
    return finite(full.get("bits"))


def spread_rows(psnr_per_image: np.ndarray, unit: str = "dB") -> list[Row]:
    """PSNR at both ends of the ranking and in between."""
    values = np.asarray(psnr_per_image, np.float64)
    if not len(values) or np.isnan(values).any():
        return []
    shown = {
        "Worst image": 0,
        "1 of 20 is below": 5,
        "Half are below": 50,
        "1 of 20 is above": 95,
        "Best image": 100,
    }
    rows = []
    for label, percent in shown.items():
        rows.append(Row(label, quality(np.percentile(values, percent, method="nearest"), unit)))
    return rows


def plain(value: Any) -> str:
    """Any value as a person would write it: numbers short, lists with commas, mappings as key:
    value.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return count(value)
    if finite(value) is None:
        return str(value)
    return number(value)


def data_rows(data: Mapping[str, Any]) -> list[Row]:
    """The data summary without its bad files."""
    rows = []
    for key, value in data.items():
        if key.startswith("bad"):
            continue
        if key in ("size", "image_size") and isinstance(value, (list, tuple)):
            value = " × ".join(str(side) for side in reversed(value)) + " (width × height)"
        text = _counted(value) if _holds_counts(value) else plain(value)
        rows.append(Row(DATA_LABELS.get(key, key.replace("_", " ").capitalize()), text))
    return rows


def _holds_counts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(item, int) for item in value.values())


def _counted(counts: Mapping[Any, Any], most: int = 12) -> str:
    """{(28, 28): 900, ...} as "28 × 28 (900), ...", the `most` first entries."""
    parts = []
    for key, value in list(counts.items())[:most]:
        name = " × ".join(map(str, key)) if isinstance(key, tuple) else str(key)
        parts.append(f"{name} ({plain(value)})")
    rest = len(counts) - len(parts)
    return ", ".join(parts) + (f" and {rest} more" if rest else "") or "none"


def bad_files(data: Mapping[str, Any]) -> list[Row]:
    """Name and reason of every file that was left out, from a mapping or a list of pairs, mappings
    or names.
    """
    entries: Any = data.get("bad_files") or data.get("bad") or ()
    if isinstance(entries, Mapping):
        return [Row(str(name), plain(reason)) for name, reason in entries.items()]
    if isinstance(entries, str) or not isinstance(entries, Iterable):
        return [Row(plain(entries), "")]
    return [_bad_file(entry) for entry in entries]


def _bad_file(entry: Any) -> Row:
    if isinstance(entry, Mapping):
        first = str(next(iter(entry.values()), ""))
        name = _first_of(entry, ("name", "path", "file"), first)
        reason = _first_of(entry, ("reason", "error", "message"), "")
        return Row(name, reason)
    if isinstance(entry, (list, tuple)) and len(entry) == 2:
        return Row(str(entry[0]), str(entry[1]))
    return Row(str(entry), "")


def _first_of(entry: Mapping[Any, Any], keys: Sequence[str], default: str) -> str:
    """The value of the first of the keys that an entry has."""
    for key in keys:
        if key in entry:
            return str(entry[key])
    return default
