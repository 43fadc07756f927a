"""What the pages share: templates that fill in, drawings that are titled, sizes at which images are
shown.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from ..printable import printable
from . import figures
from .images import data_uri, to_image, with_palette
from .summary import Passages
from .wording import count

MAX_EVENTS = 200
# Bytes of uncompressed pixels, so that large images do not make a page that no browser opens.
MAX_GALLERY_BYTES = 24_000_000


@dataclass(frozen=True)
class Pair:
    """Two images side by side, as URIs with what they show.

    Under them a figure and a name, or nothing ("").
    """

    first: str
    second: str
    first_shows: str
    second_shows: str
    figure: str = ""
    name: str = ""
    is_copy: bool = False
    # URIs of what can be played of either; none of images.
    played: tuple[str, str] | None = None
    # What is read in the place of images: passages, and whether they differ.
    read: tuple[Passages, Passages] | None = None


def image_uri(pixels: np.ndarray) -> str:
    """uint8 (H, W, C) as the source of an <img>."""
    return data_uri(to_image(pixels))


def drawing_uri(pixels: np.ndarray) -> str:
    """A drawing of at most 256 colours, uint8 (H, W, C), as the source of an <img>: half as long as
    with `image_uri`.
    """
    return data_uri(with_palette(pixels))


def media_uri(content: bytes, media_type: str) -> str:
    """A file as the source of an <audio>."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def num_shown(images: np.ndarray, at_least: int) -> int:
    """How many pairs of images uint8 (N, H, W, C) a page takes: as many as MAX_GALLERY_BYTES allow,
    or `at_least`.
    """
    return max(at_least, MAX_GALLERY_BYTES // max(2 * images[:1].nbytes, 1))


def fill(name: str, **values: Any) -> str:
    """The page of the template `name` as text.

    All strings are escaped: names of files are not to be trusted.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_controls,
    )
    return environment.get_template(name).render(values)


def _without_controls(value: Any) -> Any:
    """Text without what acts on terminals and editors; markup of our own as it is."""
    if type(value) is not str:
        return value
    return printable(value)


def _source(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def kicker(metrics: Mapping[str, Any], item: str = "image") -> list[str]:
    """The small line above the title: version, split, step."""
    parts = [f"vqkit {metrics['version']}" if metrics.get("version") else "vqkit"]
    if metrics.get("split"):
        split = f"{metrics['split']} split"
        if metrics.get("items"):
            split += f", {count(metrics['items'])} {item}s"
            if metrics.get("cut_from"):
                split += f" cut from {count(metrics['cut_from'])}"
        parts.append(split)
    if metrics.get("step"):
        parts.append(f"step {count(metrics['step'])}")
    return parts


def shown_size(height: int, width: int, channels: int) -> dict[str, Any]:
    """Width of one image on a wide screen in CSS pixels: a whole multiple of its own if it is
    small.
    """
    side = max(height, width)
    scale = max(1, round(96 / side)) * min(1.0, 256 / side)
    return {
        "wide": round(width * scale),
        "ratio": f"{width} / {height}",
        "large": side > 120,
        "transparent": channels in (2, 4),
    }


def titled(drawings: Mapping[str, figures.Draw]) -> list[dict[str, Any]]:
    """Title, SVG and legend of those that have something to draw.

    The SVG is ours; matplotlib escapes its texts.
    """
    from markupsafe import Markup

    found = []
    for index, (title, draw) in enumerate(drawings.items()):
        drawing = figures.svg(f"{title.split(maxsplit=1)[0].strip(',').lower()}-{index}", draw)
        if drawing:
            found.append({"title": title, "svg": Markup(drawing.svg), "legend": drawing.keys})
    return found


def told_events(events: Any) -> dict[str, Any]:
    """The events as the pages list them: the last MAX_EVENTS, how many there were, and whether any
    was a warning.
    """
    events = list(events)
    has_warnings = any(event.get("level") == "warning" for event in events)
    return {"events": events[-MAX_EVENTS:], "num_events": len(events), "has_warnings": has_warnings}
