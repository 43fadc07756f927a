"""Curves and histograms for the report and the model card.

Each is drawn on one matplotlib Axes by a function that says whether it had anything to draw.
`svg` renders one for the page: its colours are placeholders that become CSS variables, so that the
browser chooses them (light or dark); its text stays text. `png` renders several side by side on
white, for the model card.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import VqkitError
from .verdict import series
from .wording import count, finite, large, quality

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito 2008, without yellow; black is the ink.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MAX_POINTS = 400
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vqkit",
    "text.parse_math": False,  # names of loss terms are not formulas
    "font.size": 10.5,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Palette:
    """Colours by role: for PNG as they are, for SVG as placeholders."""

    ink: str = "#1b1d21"
    muted: str = "#6b7078"
    rule: str = "#d9dce1"
    alert: str = "#d55e00"
    series: tuple[str, ...] = field(default=SERIES)

    def of(self, index: int) -> str:
        return self.series[index % len(self.series)]


PRINT = Palette()
_PLACEHOLDERS = Palette(
    "#fe0001", "#fe0002", "#fe0003", "#fe0004", tuple(f"#fe001{index}" for index in range(6))
)
_VARIABLES = {
    _PLACEHOLDERS.ink: "--ink",
    _PLACEHOLDERS.muted: "--muted",
    _PLACEHOLDERS.rule: "--rule",
    _PLACEHOLDERS.alert: "--alert",
    **{colour: f"--series-{index}" for index, colour in enumerate(_PLACEHOLDERS.series)},
}
Draw = Callable[["Axes", Palette], bool]


@dataclass(frozen=True)
class Key:
    """One entry of a legend, which the page writes in its own text."""

    label: str
    # A CSS variable.
    colour: str
    dashed: bool


@dataclass(frozen=True)
class Drawing:
    svg: str
    keys: tuple[Key, ...]


def check_installed() -> None:
    """VqkitError without matplotlib."""
    if find_spec("matplotlib") is None:
        raise VqkitError("drawing figures needs matplotlib: pip install 'vqkit[train]'")


def svg(name: str, draw: Draw) -> Drawing | None:
    """Inline SVG without prolog, namespaces or metadata, ids prefixed by `name`.

    None if there was nothing to draw.
    """
    check_installed()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(5.2, 2.6))
        figure.patch.set_alpha(0)
        figure.subplots_adjust(left=0.115, right=0.97, bottom=0.18, top=0.97)
        axes = figure.add_subplot()
        _style(axes, _PLACEHOLDERS)
        if not draw(axes, _PLACEHOLDERS):
            return None
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        return Drawing(_inline(name, buffer.getvalue()), _keys(axes))


def _keys(axes: Axes) -> tuple[Key, ...]:
    from matplotlib.colors import to_hex
    from matplotlib.lines import Line2D

    if not _needs_legend(axes):
        return ()
    keys = []
    handle: Any
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        if isinstance(handle, Line2D):
            colour = handle.get_color()
            dashed = handle.get_linestyle() != "-"
        else:
            colour = handle.get_edgecolor()
            dashed = False
        keys.append(Key(label, _VARIABLES[to_hex(colour)], dashed))
    return tuple(keys)


def png(panels: Mapping[str, Draw], width: float = 4.6, height: float = 3.0) -> bytes | None:
    """PNG of the panels that have something to draw, side by side on white, titled.

    None if none has.
    """
    check_installed()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(facecolor="white")
        drawn = []
        lines = 0
        for title, draw in panels.items():
            axes = figure.add_axes((0, 0, 1, 1))
            _style(axes, PRINT)
            if not draw(axes, PRINT):
                axes.remove()
                continue
            found = _legend(axes, PRINT)
            pad = 8 + 15 * found
            # With a height of its own it is not moved out of the way of ticks, of which there are
            # none above, after all of them were measured.
            axes.set_title(
                title, loc="left", y=1, color=PRINT.ink, fontsize=11, fontweight="bold", pad=pad
            )
            lines = max(lines, found)
            drawn.append(axes)
        if not drawn:
            return None
        # Room for ticks, names and titles, in inches: a layout that measures them takes as long as
        # all else.
        left, right, bottom, top = 0.62, 0.15, 0.51, 0.28 + 15 / 72 * lines
        figure.set_size_inches(width * len(drawn), height)
        for index, axes in enumerate(drawn):
            across = (width - left - right) / width
            start = (index + left / width) / len(drawn)
            box = (start, bottom / height, across / len(drawn), (height - bottom - top) / height)
            axes.set_position(box)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------- curves


def loss(history: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]] = ()) -> Draw:
    """Every loss term on both splits.

    Logarithmic when the values span more than a factor of eight.
    """
    terms = sorted(_keys_under("loss/", history), key=_reconstruction_first)

    def draw(axes: Axes, palette: Palette) -> bool:
        drawn = []
        # The total of a single term is that term.
        if len(terms) != 1:
            drawn += _curve(axes, history, "loss", palette.ink, "total")
        for index, key in enumerate(terms):
            drawn += _curve(axes, history, key, palette.of(index), key.removeprefix("loss/"))
        values = _joined(drawn)
        if len(values) and values.min() > 0 and values.max() > 8 * values.min():
            axes.set_yscale("log")
        return _finish(axes, palette, values, events)

    return draw


def _keys_under(prefix: str, history: Sequence[Mapping[str, Any]]) -> set[str]:
    return {key for row in history for key in row if key.startswith(prefix)}


def _joined(curves: Sequence[np.ndarray]) -> np.ndarray:
    """The values of all curves, of none an empty array."""
    return np.concatenate([np.zeros(0), *curves])


def _reconstruction_first(term: str) -> tuple[bool, str]:
    return term != "loss/reconstruction", term


def over_steps(
    history: Sequence[Mapping[str, Any]],
    keys: Mapping[str, str],
    events: Sequence[Mapping[str, Any]] = (),
    percent: bool = False,
    level: tuple[float, str] | None = None,
) -> Draw:
    """Figures (key -> label) over the steps; `level` is a horizontal line to compare with, and what
    it is.
    """

    def draw(axes: Axes, palette: Palette) -> bool:
        drawn = []
        scale = 100 if percent else 1
        for index, (key, label) in enumerate(keys.items()):
            drawn += _curve(axes, history, key, palette.of(index), label, scale)
        values = _joined(drawn)
        if percent and len(values):
            axes.set_ylim(min(values.min() - 5, 85), 101)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        if level is not None and len(values):
            _level(axes, palette, *level, float(values.max()))
        return _finish(axes, palette, values, events)

    return draw


def _level(axes: Axes, palette: Palette, level: float, words: str, highest: float) -> None:
    """A horizontal line with words above it, unless all values are far below."""
    if highest < 0.2 * level:
        return
    axes.axhline(level, color=palette.muted, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(0, max(1.12 * level, axes.get_ylim()[1]))
    axes.text(
        0.01,
        level * 1.02,
        words,
        color=palette.muted,
        fontsize=9,
        transform=axes.get_yaxis_transform(),
        verticalalignment="bottom",
    )


def bits_per_code(
    history: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]] = (),
    order0_bits: float | None = None,
) -> Draw:
    """Bits a code of a prior, in the canonical order and in random ones, against the entropy
    without context.
    """
    keys = {"bits_per_code": "in order", "bits_per_code_any_order": "in random orders"}

    def draw(axes: Axes, palette: Palette) -> bool:
        drawn = []
        for index, (key, label) in enumerate(keys.items()):
            drawn += _curve(axes, history, key, palette.of(index), label)
        values = _joined(drawn)
        if not len(values):
            return False
        low = values.min()
        # The first steps fall from far above: they are cut off, so that the gap between the splits
        # at the end can be seen.
        high = min(values.max(), 1.2 * float(np.median(values)))
        if order0_bits is not None:
            low = min(low, order0_bits)
            high = max(high, order0_bits)
        margin = 0.05 * max(high - low, 1e-3)
        axes.set_ylim(low - margin, high + margin)
        if order0_bits is not None:
            dashes: Any = (0, (4, 3))
            style: dict[str, Any] = {"color": palette.muted, "linewidth": 1, "linestyle": dashes}
            axes.axhline(order0_bits, label="without context", **style)
        return _finish(axes, palette, values, events)

    return draw


def weights(history: Sequence[Mapping[str, Any]]) -> Draw:
    """Loss weights that change while training, each as a share of its highest value, which the
    legend names.
    """
    keys = sorted(_keys_under("weight/", history))

    def draw(axes: Axes, palette: Palette) -> bool:
        drawn = []
        for index, key in enumerate(keys):
            highest = series(history, key, "train")[1].max(initial=0.0)
            if highest > 0:
                label = f"{key.removeprefix('weight/')}, up to {highest:.3g}"
                drawn += _curve(axes, history, key, palette.of(index), label, scale=100 / highest)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        return _finish(axes, palette, _joined(drawn), ())

    return draw


def _curve(
    axes: Axes,
    history: Sequence[Mapping[str, Any]],
    key: str,
    colour: str,
    label: str,
    scale: float = 1,
) -> list[np.ndarray]:
    """Training thin and light, validation bold; what is logged in training alone is bold too."""
    drawn = []
    curves = {split: series(history, key, split) for split in ("train", "validation")}
    for split, (steps, values) in curves.items():
        if not len(values):
            continue
        steps, values = thinned(steps, values * scale)
        style: dict[str, Any]
        if split == "validation" or not len(curves["validation"][1]):
            style = {"linewidth": 1.9, "zorder": 3, "label": label}
        else:
            style = {"linewidth": 1.0, "alpha": 0.5, "label": _hidden(label)}
        if split == "validation" and len(values) <= 40 or len(values) == 1:
            style |= {"marker": "o", "markersize": 3.6}
        axes.plot(steps, values, color=colour, **style)
        drawn.append(values)
    return drawn


def _hidden(label: str) -> str:
    """A label that matplotlib leaves out of the legend."""
    return f"_{label}"


def thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MAX_POINTS points, each the mean of its neighbours.

    The first and the last value stay.
    """
    if len(values) <= MAX_POINTS:
        return steps, values
    edges = np.linspace(0, len(values), MAX_POINTS + 1).astype(int)[:-1]
    sizes = np.diff([*edges, len(values)])
    means = np.add.reduceat(values, edges) / sizes
    inner = means[1:-1]
    return np.add.reduceat(steps, edges) / sizes, np.array([values[0], *inner, values[-1]])


def _finish(
    axes: Axes, palette: Palette, values: np.ndarray, events: Sequence[Mapping[str, Any]]
) -> bool:
    if not len(values):
        return False
    axes.set_xlabel("step", color=palette.muted)
    axes.locator_params(axis="x", integer=True, nbins=6)
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        low, high = axes.get_ylim()
        axes.yaxis.set_minor_formatter(lambda value, _: _minor_label(value, wide=high > 40 * low))
    _mark_events(axes, events, ("info", "action", "recovered"), palette.muted)
    _mark_events(axes, events, ("warning",), palette.alert)
    return True


def _mark_events(
    axes: Axes, events: Sequence[Mapping[str, Any]], levels: Sequence[str], colour: str
) -> None:
    """Triangles on the axis at the steps of the events of some levels."""
    steps = []
    for event in events:
        step = finite(event.get("step"))
        if step is not None and event.get("level") in levels:
            steps.append(step)
    if steps:
        axes.plot(
            steps,
            [0.0] * len(steps),
            "^",
            color=colour,
            markersize=6,
            clip_on=False,
            zorder=5,
            transform=axes.get_xaxis_transform(),
        )


def _minor_label(value: float, wide: bool) -> str:
    """Numbers between the powers of ten: 3 alone where there are many, else 2, 3 and 5."""
    digits = "3" if wide else "235"
    if f"{value:e}"[0] in digits:
        return f"{value:g}"
    return ""


# --------------------------------------------------------------------------------------- histograms


def code_usage(code_counts: Sequence[np.ndarray] | None) -> Draw:
    """Counts (K,) of each codebook in descending order, relative to uniform usage.

    The legend names how many are dead.
    """

    def draw(axes: Axes, palette: Palette) -> bool:
        if code_counts is None or not any(row.sum() for row in code_counts):
            return False
        num_books = len(code_counts)
        size = max(map(len, code_counts))
        relative = [-np.sort(-row) * (len(row) / max(row.sum(), 1)) for row in code_counts]
        for index, row in enumerate(relative):
            label = f"{count((row == 0).sum())} dead"
            if num_books > 1:
                label = f"codebook {index + 1}, {label}"
            if num_books > 6:
                label = _hidden(label)
            _ranked(axes, row, palette.of(index), label, fill=num_books == 1)
        axes.axhline(1, color=palette.muted, linewidth=1, linestyle=(0, (4, 3)), label="uniform")
        alive = np.concatenate([row[row > 0] for row in relative])
        if alive.max() > 12 * alive.min():
            axes.set_yscale("log")
            axes.set_ylim(alive.min() / 1.5, alive.max() * 1.5)
            axes.yaxis.set_minor_formatter(lambda value, _: "")
        else:
            axes.set_ylim(0, 1.1 * alive.max())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
        axes.set_xlim(0, size)
        axes.locator_params(axis="x", integer=True, nbins=6)
        axes.set_xlabel("codes, most used first", color=palette.muted)
        return True

    return draw


def _ranked(axes: Axes, row: np.ndarray, colour: str, label: str, fill: bool) -> None:
    """A descending staircase with at most about MAX_POINTS treads that ends where the dead codes
    begin.
    """
    alive = int((row > 0).sum())
    if not alive:
        return
    ranks = np.unique(np.linspace(0, alive - 1, MAX_POINTS).round().astype(int))
    edges = np.append(ranks, alive)
    heights = row[ranks]
    axes.stairs(heights, edges, color=colour, linewidth=1.8, label=label, baseline=None)
    if fill:
        axes.stairs(heights, edges, color=colour, fill=True, alpha=0.16, baseline=1e-9)
        if alive < len(row):
            axes.axvline(alive, color=colour, linewidth=1, linestyle=(0, (1, 2)))


def quality_histogram(measured: np.ndarray, label: str, unit: str = "dB") -> Draw:
    """How many items reach which quality, mean and median marked. label: of the axis.

    Exact reconstructions (infinite) are left out.
    """

    def draw(axes: Axes, palette: Palette) -> bool:
        values = np.asarray(measured, np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            return False
        bins = int(np.clip(2 * len(values) ** (1 / 3) * 1.5, 5, 48))
        axes.hist(values, bins=bins, color=palette.of(0), alpha=0.75, linewidth=0)
        mean = values.mean()
        axes.axvline(mean, color=palette.ink, linewidth=1.6, label=f"mean {quality(mean, unit)}")
        median = np.median(values)
        dashes: Any = (0, (4, 2))
        style: dict[str, Any] = {"color": palette.of(1), "linewidth": 1.6, "linestyle": dashes}
        axes.axvline(median, label=f"median {quality(median, unit)}", **style)
        axes.set_xlabel(label, color=palette.muted)
        axes.locator_params(axis="y", integer=True, nbins=5)
        return True

    return draw


# -------------------------------------------------------------------------------------------- style


def _style(axes: Axes, palette: Palette) -> None:
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(palette.muted)
    axes.grid(axis="y", color=palette.rule, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=palette.muted, length=0, pad=5)
    axes.tick_params(axis="x", length=3)
    axes.margins(x=0.01)
    axes.yaxis.set_major_formatter(_tick)
    axes.xaxis.set_major_formatter(_tick)


def _tick(value: float, _: float) -> str:
    if value >= 10000:
        return large(value)
    return f"{value:g}"


def _needs_legend(axes: Axes) -> bool:
    labels = axes.get_legend_handles_labels()[1]
    return len(labels) > 1 or labels == ["uniform"] or any(", up to " in label for label in labels)


def _legend(axes: Axes, palette: Palette) -> int:
    """Draw the legend above the axes if there is something to tell apart.

    Returns the number of its lines.
    """
    if not _needs_legend(axes):
        return 0
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=3,
        frameon=False,
        labelcolor=palette.ink,
        fontsize=9.5,
        handlelength=1.3,
        columnspacing=1.2,
        borderpad=0.2,
    )
    return -(-len(axes.get_legend_handles_labels()[1]) // 3)


def _inline(name: str, text: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text).replace("xlink:href", "href")
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, f"var({variable})")
    return text
