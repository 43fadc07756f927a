"""One self-contained HTML page: everything embedded, nothing requested, readable without JavaScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_bytes
from . import figures
from .pictures import code_map, data_uri, to_image
from .summary import Ranked, RunSummary
from .tables import bad_files, data_rows, headline, metric_rows, spread_rows
from .verdict import judge
from .wording import count, decibel

MAX_GALLERY_BYTES = 24_000_000
"""of uncompressed pixels, so that large pictures do not make a page that no browser opens"""
MAX_MAPS = 8
MAX_EVENTS = 200


@dataclass(frozen=True)
class Pair:
    name: str
    original: str
    reconstruction: str
    psnr: str


def write_report(summary: RunSummary, path: Path) -> None:
    """Write report.html for a run: at `path` there is the old file or the whole new one, nothing between.

    ValueError if originals and reconstructions do not pair up.
    """
    write_bytes(Path(path), render(summary).encode("utf-8"))


def render(summary: RunSummary) -> str:
    """The page as text. All strings of the summary are escaped: names of files are not to be trusted."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = (resources.files(__package__) / "report.html").read_text(encoding="utf-8")
    height, width = summary.originals.shape[1:3]
    return environment.from_string(source).render(
        summary=summary,
        verdict=judge(summary),
        tiles=headline(summary),
        gallery=_gallery(summary),
        num_examples=len(summary.originals),
        pixels=_shown_size(height, width),
        ranked=_ranked(summary),
        training=_titled(Markup, _training_figures(summary)),
        codes=_titled(Markup, {"How often each code is used": figures.code_usage(summary.code_counts)}),
        maps=_maps(summary.code_counts),
        histogram=_titled(Markup, {"PSNR of every image": figures.psnr_histogram(summary.psnr_per_image)}),
        spread=spread_rows(summary.psnr_per_image),
        events=list(summary.events)[-MAX_EVENTS:],
        has_warnings=any(event.get("level") == "warning" for event in summary.events),
        num_events=len(summary.events),
        metric_rows=metric_rows(summary.metrics),
        data_rows=data_rows(summary.data),
        bad_files=bad_files(summary.data),
        kicker=_kicker(summary.metrics),
    )


def _kicker(metrics: Mapping[str, Any]) -> list[str]:
    parts = [f"vqkit {metrics['version']}" if metrics.get("version") else "vqkit"]
    if metrics.get("split"):
        parts.append(
            f"{metrics['split']} split" + (f", {count(metrics['images'])} images" if metrics.get("images") else "")
        )
    if metrics.get("step"):
        parts.append(f"step {count(metrics['step'])}")
    return parts


def _shown_size(height: int, width: int) -> dict[str, Any]:
    """Width of one picture on a wide screen in CSS pixels: a whole multiple of its own if it is small."""
    side = max(height, width)
    scale = max(1, round(96 / side)) * min(1.0, 300 / side)
    return {"wide": round(width * scale), "ratio": f"{width} / {height}", "large": side > 120}


def _pairs(
    originals: np.ndarray, reconstructions: np.ndarray, names: Sequence[str], psnr: Sequence[float]
) -> list[Pair]:
    if originals.shape != reconstructions.shape:
        raise ValueError(f"cannot pair originals {originals.shape} with reconstructions {reconstructions.shape}")
    pairs = []
    for index, (original, reconstruction) in enumerate(zip(originals, reconstructions, strict=True)):
        name = str(names[index]) if index < len(names) else f"image {index + 1}"
        quality = decibel(psnr[index]) if index < len(psnr) else ""
        pairs.append(Pair(name, data_uri(to_image(original)), data_uri(to_image(reconstruction)), quality))
    return pairs


def _gallery(summary: RunSummary) -> list[Pair]:
    originals, reconstructions = summary.originals, summary.reconstructions
    kept = max(4, MAX_GALLERY_BYTES // max(2 * originals[:1].nbytes, 1))
    return _pairs(originals[:kept], reconstructions[:kept], summary.names, ())


def _ranked(summary: RunSummary) -> list[tuple[str, list[Pair]]]:
    def pairs(ranked: Ranked) -> list[Pair]:
        return _pairs(ranked.originals, ranked.reconstructions, ranked.names, ranked.psnr)

    found = [("Worst", pairs(summary.worst)), ("Best", pairs(summary.best))]
    return [(title, group) for title, group in found if group]


def _training_figures(summary: RunSummary) -> dict[str, figures.Draw]:
    history, events = summary.history, summary.events
    return {
        "Loss": figures.loss(history, events),
        "PSNR, dB": figures.over_steps(history, {"psnr": "PSNR"}, events),
        "Usage of the codes": figures.over_steps(history, {"usage": "usage"}, events, percent=True),
        "Perplexity": figures.over_steps(history, {"perplexity": "perplexity"}, events, level=summary.codebook_size),
        "Loss weights": figures.weights(history),
        "Learning rate": figures.over_steps(history, {"lr": "learning rate"}),
        "Norm of the gradient": figures.over_steps(history, {"grad_norm": "norm"}, events),
    }


def _titled(markup: type, drawings: Mapping[str, figures.Draw]) -> list[dict[str, Any]]:
    """Title, SVG and legend of those that have something to draw. The SVG is ours; matplotlib escapes its texts."""
    found = []
    for index, (title, draw) in enumerate(drawings.items()):
        drawing = figures.svg(f"{title.split(maxsplit=1)[0].strip(',').lower()}-{index}", draw)
        if drawing:
            found.append({"title": title, "svg": markup(drawing.svg), "legend": drawing.keys})
    return found


def _maps(code_counts: Sequence[np.ndarray] | None) -> list[dict[str, Any]]:
    if code_counts is None:
        return []
    maps = []
    for index, counts in enumerate(code_counts[:MAX_MAPS]):
        image = code_map(counts)
        maps.append({"uri": data_uri(image), "columns": image.width, "rows": image.height,
                     "name": f"Codebook {index + 1}" if len(code_counts) > 1 else "The codebook",
                     "dead": int((counts == 0).sum()), "size": len(counts)})  # fmt: skip
    return maps
