"""The HTML page of a run: everything embedded, nothing requested, readable without JavaScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_text
from . import figures
from .images import code_map, data_uri
from .summary import Passages, Ranked, RunSummary
from .tables import Row, bad_files, data_rows, headline, metric_rows, rows_of, spread_rows
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
from .verdict import judge
from .wording import count, quality

# Pairs that are shown however large they are.
MIN_SHOWN = 4
# Of texts, which are read one after the other.
MAX_READ = 12
MAX_MAPS = 8


def write_report(summary: RunSummary, path: Path) -> None:
    """Write report.html for a run: at `path` there is the old file or the whole new one, nothing
    between.

    ValueError if originals and reconstructions do not pair up.
    """
    write_text(Path(path), render(summary))


def render(summary: RunSummary) -> str:
    """The page as text.

    All strings of the summary are escaped: names of files are not to be trusted.
    """
    item = summary.item
    return fill(
        "report.html",
        summary=summary,
        verdict=judge(summary),
        tiles=rows_of(headline(summary.metrics, codebook_size=summary.codebook_size), item),
        gallery=_gallery(summary),
        num_examples=len(summary.originals),
        pixels=shown_size(*summary.originals.shape[1:]),
        ranked=_ranked(summary),
        denoised=_of(summary.denoised, summary.quality_unit, "noisy", "denoised"),
        training=titled(_training_figures(summary)),
        codes=titled({"How often each code is used": figures.code_usage(summary.code_counts)}),
        maps=_maps(summary.code_counts),
        histogram=titled(
            {
                f"{summary.quality} of every {item}": figures.quality_histogram(
                    summary.psnr_per_image,
                    f"{summary.quality}, {summary.quality_unit}",
                    summary.quality_unit,
                )
            }
        ),
        spread=rows_of(spread_rows(summary.psnr_per_image, summary.quality_unit), item),
        beside=_beside(summary),
        metric_rows=rows_of(metric_rows(summary.metrics), item),
        data_rows=data_rows(summary.data),
        bad_files=bad_files(summary.data),
        kicker=kicker(summary.metrics, item),
        **told_events(summary.events),
    )


def _beside(summary: RunSummary) -> dict[str, Any]:
    """The table of codecs: its columns, and the rows with whether they are of the model."""
    if not summary.beside:
        return {}

    def described(figures_of: Mapping[str, float]) -> list[Row]:
        return [row for key, value in figures_of.items() for row in metric_rows({key: value})]

    columns = [row.label for row in described(summary.beside[0][2])]
    rows = []
    for name, is_ours, figures_of in summary.beside:
        rows.append((name, is_ours, [row.value for row in described(figures_of)]))
    return {"columns": columns, "rows": rows}


def _pairs(
    originals: np.ndarray,
    reconstructions: np.ndarray,
    names: Sequence[str],
    psnr: Sequence[float],
    unit: str,
    first: str = "original of",
    second: str = "reconstruction of",
    read: Sequence[tuple[Passages, Passages]] = (),
) -> list[Pair]:
    if originals.shape != reconstructions.shape:
        raise ValueError(
            f"cannot pair originals {originals.shape} with reconstructions {reconstructions.shape}"
        )
    pairs = []
    for index in range(len(originals)):
        name = str(names[index]) if index < len(names) else f"image {index + 1}"
        figure = quality(psnr[index], unit) if index < len(psnr) else ""
        passages = read[index] if read else None
        pairs.append(
            Pair(
                "" if passages else image_uri(originals[index]),
                "" if passages else image_uri(reconstructions[index]),
                f"{first} {name}",
                f"{second} {name}",
                figure,
                name,
                read=passages,
            )
        )
    return pairs


def _gallery(summary: RunSummary) -> list[Pair]:
    kept = MAX_READ if summary.read else num_shown(summary.originals, MIN_SHOWN)
    originals = summary.originals[:kept]
    reconstructions = summary.reconstructions[:kept]
    pairs = _pairs(
        originals, reconstructions, summary.names, (), summary.quality_unit, read=summary.read
    )
    if not summary.played:
        return pairs
    heard = []
    for pair, files in zip(pairs, summary.played, strict=False):
        first, second = (media_uri(file, summary.media_type) for file in files)
        heard.append(replace(pair, played=(first, second)))
    return heard


def _ranked(summary: RunSummary) -> list[tuple[str, list[Pair]]]:
    unit = summary.quality_unit
    groups = [("Worst", _of(summary.worst, unit)), ("Best", _of(summary.best, unit))]
    return [(title, pairs) for title, pairs in groups if pairs]


def _of(
    ranked: Ranked, unit: str, first: str = "original of", second: str = "reconstruction of"
) -> list[Pair]:
    return _pairs(
        ranked.originals,
        ranked.reconstructions,
        ranked.names,
        ranked.psnr,
        unit,
        first,
        second,
        ranked.read,
    )


def _training_figures(summary: RunSummary) -> dict[str, figures.Draw]:
    history = summary.history
    events = summary.events
    return {
        "Loss": figures.loss(history, events),
        "Quality, dB": figures.over_steps(
            history, {"psnr": "PSNR", "spectral_snr": "spectral SNR"}, events
        ),
        "Quality, %": figures.over_steps(history, {"byte_accuracy": "byte accuracy"}, events),
        "Usage of the codes": figures.over_steps(history, {"usage": "usage"}, events, percent=True),
        "Perplexity": figures.over_steps(
            history, {"perplexity": "perplexity"}, events, level=_all_alike(summary.codebook_size)
        ),
        "Loss weights": figures.weights(history),
        "Patches that the discriminator tells right": figures.over_steps(
            history,
            {
                "adversary/accuracy_items": "originals",
                "adversary/accuracy_fakes": "reconstructions",
                "adversary/accuracy_pairs": "pairs",
            },
            events,
            percent=True,
            level=(50, "chance"),
        ),
        "Weight of the adversary": figures.over_steps(
            history,
            {
                "adversary/weight": "weight",
                "adversary/gradient_ratio": "gradient of all other terms over the adversarial one",
            },
            events,
        ),
        "Fine detail beside the originals, dB": figures.over_steps(
            history, {"detail": "detail"}, events
        ),
        "Learning rate": figures.over_steps(history, {"lr": "learning rate"}),
        "Norm of the gradient": figures.over_steps(history, {"grad_norm": "norm"}, events),
    }


def _all_alike(codebook_size: int | None) -> tuple[float, str] | None:
    """The perplexity of codes that are all used alike."""
    if codebook_size is None:
        return None
    return codebook_size, f"{count(codebook_size)} codes, all used alike"


def _maps(code_counts: Sequence[np.ndarray] | None) -> list[dict[str, Any]]:
    if code_counts is None:
        return []
    maps = []
    for index, counts in enumerate(code_counts[:MAX_MAPS]):
        image = code_map(counts)
        maps.append(
            {
                "uri": data_uri(image),
                "columns": image.width,
                "rows": image.height,
                "name": f"Codebook {index + 1}" if len(code_counts) > 1 else "The codebook",
                "dead": int((counts == 0).sum()),
                "size": len(counts),
            }
        )
    return maps
