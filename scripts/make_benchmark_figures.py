"""Draw the figures of docs/benchmarks from the tables of the same pages.

    python scripts/make_benchmark_figures.py

A page says its figures in a table; what is drawn is read from there, so that both are the same.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "benchmarks"
FIGURES = ROOT / "docs" / "figures" / "benchmarks"
INK, GREY, BLUE = "#1f2328", "#8b929a", "#0072b2"
COLOURS = {"vqkit": BLUE, "JPEG": "#cc79a7", "WebP": "#e69f00", "AVIF": "#009e73"}
Points = list[tuple[float, float]]


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def rows(text: str, begin: str) -> list[list[str]]:
    """The cells of the table whose first line begins so, without its head; bold or not."""
    table = text.split(begin, 1)[1].split("\n\n", 1)[0]
    lines = [line for line in table.split("\n")[1:] if line.startswith("|")]
    cells = [line.strip("|").replace("**", "").split("|") for line in lines]
    return [[cell.strip() for cell in row] for row in cells if not set(row[0]) <= set("-: ")]


def middle(cell: str) -> float:
    """A number, or the middle of 'a to b'."""
    found = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", cell)]
    return sum(found) / len(found)


def photographs() -> dict[str, Points]:
    """Bits a pixel and dB of images of 256x256."""
    text = page("photos").split("## 256x256", 1)[1].split("\n## ", 1)[0]
    found = {
        "vqkit": [(float(row[1]), float(row[2])) for row in rows(text, "| ours: stages, gain |")]
    }
    for name, line in re.findall(r"^(\w+), bits a pixel: dB: (.*)\.$", text, re.M):
        pairs = re.findall(r"([\d.]+): ([\d.]+)", line)
        found[name] = [(float(bits), float(psnr)) for bits, psnr in pairs]
    return found


def speech() -> dict[str, list[tuple[float, float, float]]]:
    """kbps, STOI and PESQ of a voice that was never heard, by codec."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows(page("speech"), "| codec | voice never heard: kbps |"):
        point = (middle(row[1]), middle(row[2]), middle(row[3]))
        found.setdefault(row[0].split()[0], []).append(point)
    return found


def families() -> dict[str, tuple[float, float | None]]:
    """PSNR of each quantizer on Fashion-MNIST, and of its twin in the other library."""
    text = page("families").split("## Fashion-MNIST", 1)[1].split("\n## ", 1)[0]
    table = {row[0]: float(row[2]) for row in rows(text, "| quantizer |")}
    ours = {name: psnr for name, psnr in table.items() if not name.startswith("peer ")}
    return {name: (psnr, table.get(f"peer {name}")) for name, psnr in ours.items()}


def search() -> dict[str, tuple[float, float]]:
    """Milliseconds of a training step, ours and the peer's, by size of the codebook."""
    found = {}
    for row in rows(page("search"), "| K x d |"):
        both = [re.match(r"([\d.]+) ms", cell) for cell in row[1:3]]
        if re.fullmatch(r"\d+ x \d+", row[0]) and all(both):
            found[row[0]] = tuple(float(one[1]) for one in both if one)
    return found  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------- drawing


def panels(count: int, width: float, height: float) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e6e8eb")
        axis.set_axisbelow(True)
        axis.tick_params(colors=INK, labelsize=9)
    return figure, axes


def draw_photographs() -> Figure:
    figure, (axis,) = panels(1, 6.4, 3.6)
    for name, points in photographs().items():
        axis.plot(*zip(*points, strict=True), color=COLOURS[name], linewidth=2, label=name)
    axis.set(xscale="log", xlim=(0.08, 1.6), ylim=(21, 38), xlabel="bits a pixel", ylabel="dB")
    axis.set_xticks([0.1, 0.2, 0.5, 1.0], ["0.1", "0.2", "0.5", "1"])
    axis.legend(frameon=False)
    return figure


def draw_speech() -> Figure:
    figure, axes = panels(2, 8.4, 3.2)
    for name, points in speech().items():
        kbps, *measures = zip(*points, strict=True)
        for axis, values in zip(axes, measures, strict=True):
            colour = BLUE if name == "vqkit" else {"Codec2": "#d55e00"}.get(name, GREY)
            axis.plot(kbps, values, marker="o", markersize=5, color=colour, label=name)
    for axis, title in zip(axes, ("STOI", "PESQ, narrowband"), strict=True):
        axis.set_xscale("log")
        axis.set_xticks([0.7, 1, 2, 4, 8], ["0.7", "1", "2", "4", "8"])
        axis.minorticks_off()
        axis.set_xlabel("kbit/s, every byte counted")
        axis.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes[0].legend(frameon=False)
    return figure


def draw_families() -> Figure:
    figure, (axis,) = panels(1, 6.6, 4.2)
    found = sorted(families().items(), key=lambda item: item[1][0])
    for row, (_, (mine, theirs)) in enumerate(found):
        if theirs is not None:
            axis.plot([mine, theirs], [row, row], color="#d0d4d9", linewidth=2, zorder=1)
            axis.plot(theirs, row, "o", color=GREY, markersize=7)
        axis.plot(mine, row, "o", color=BLUE, markersize=8)
    axis.set_yticks(range(len(found)), [name for name, _ in found])
    axis.set_xlabel("PSNR on Fashion-MNIST at 441 bits, dB")
    axis.plot([], [], "o", color=BLUE, markersize=8, label="vqkit")
    axis.plot([], [], "o", color=GREY, markersize=7, label="vector-quantize-pytorch")
    axis.legend(frameon=False, loc="lower right")
    return figure


def draw_search() -> Figure:
    figure, (axis,) = panels(1, 6.4, 2.4)
    found = search()
    for row, both in enumerate(found.values()):
        axis.plot(both, [row, row], color="#d0d4d9", linewidth=2, zorder=1)
        for value, colour in zip(both, (BLUE, GREY), strict=True):
            axis.plot(value, row, "o", color=colour, markersize=8)
            axis.annotate(f"{value:g} ms", (value, row + 0.17), ha="center", fontsize=8)
    axis.plot([], [], "o", color=BLUE, markersize=8, label="vqkit")
    axis.plot([], [], "o", color=GREY, markersize=8, label="vector-quantize-pytorch")
    axis.set_xscale("log")
    axis.margins(x=0.08, y=0.2)
    axis.set_yticks(range(len(found)), list(found))
    axis.set_xlabel("milliseconds of a training step of 4,096 tokens")
    axis.legend(frameon=False, loc="lower right")
    return figure


DRAWN: Mapping[str, Any] = {
    "photos": draw_photographs,
    "speech": draw_speech,
    "families": draw_families,
    "search": draw_search,
}


def main() -> None:
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWN.items():
        buffer = io.BytesIO()
        draw().savefig(buffer, format="png", dpi=110)
        image = Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE)
        image.save(FIGURES / f"{name}.png", "PNG", optimize=True)


if __name__ == "__main__":
    main()
