"""Model card (README.md with Hugging Face metadata) and its images."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..files import write_bytes, write_text
from ..printable import one_line, printable
from . import figures
from .images import comparison_sheet, png_bytes
from .summary import RunSummary
from .tables import Row, bad_files, data_rows, metric_rows
from .verdict import judge
from .wording import count

SHEET_IMAGES = 32
MAX_BAD_FILES = 20
PRIOR_BEGIN, PRIOR_END = "<!-- prior: begin -->", "<!-- prior: end -->"
PRIOR_FIGURES = ("bits_per_code", "bits_per_code_untold", "order0_bits", "saving_vs_order0", "bits_per_item",
                 "label_bits", "memorised", "items", "split", "parameters", "training_seconds")  # fmt: skip


def write_card(summary: RunSummary, folder: Path) -> None:
    """Write README.md and samples/*.png into an artifact's folder; images first, so that no link is
    ever dead.
    """
    folder = Path(folder)
    images = _images(summary)
    for name, content in images.items():
        write_bytes(folder / "samples" / name, content)
    write_text(folder / "README.md", card_text(summary, folder.resolve().name, list(images)))


def _images(summary: RunSummary) -> dict[str, bytes]:
    found: dict[str, bytes | None] = {}
    if len(summary.originals):
        sheet = comparison_sheet(
            summary.originals[:SHEET_IMAGES], summary.reconstructions[:SHEET_IMAGES]
        )
        found["reconstructions.png"] = png_bytes(sheet)
    if len(summary.denoised.originals):
        sheet = comparison_sheet(summary.denoised.originals, summary.denoised.reconstructions)
        found["denoised.png"] = png_bytes(sheet)
    curves = {"Loss": figures.loss(summary.history, summary.events)}
    for key, title in (("psnr", "PSNR, dB"), ("usage", "Usage of the codes")):
        curves[title] = figures.over_steps(
            summary.history, {key: title}, summary.events, percent=key == "usage"
        )
    found["curves.png"] = figures.png(curves)
    found["codes.png"] = figures.png(
        {"How often each code is used": figures.code_usage(summary.code_counts)}, 6.4, 3.4
    )
    return {name: content for name, content in found.items() if content}


def card_text(summary: RunSummary, directory: str, images: Sequence[str]) -> str:
    """The Markdown of the card. `directory` is how the artifact is named in the commands."""
    verdict = judge(summary)
    blocks = [
        _header(),
        f"# {escaped(summary.title)}",
        f"**{verdict.word}:** {escaped(verdict.sentence)}",
    ]
    blocks += [f"- {escaped(found.text)} {escaped(found.advice)}" for found in verdict.findings]
    if "reconstructions.png" in images:
        blocks.append("![Originals above their reconstructions](samples/reconstructions.png)")
        blocks.append("Every original is above its reconstruction; none of them was trained on."
                      if summary.metrics.get("split") in ("validation", "test") else
                      "Every original is above its reconstruction.")  # fmt: skip
    if "denoised.png" in images:
        blocks.append("![Noisy images above what the model makes of them](samples/denoised.png)")
        blocks.append("Noisy images, of 25 of 255 levels, above what the model makes of them.")
    blocks += ["## Figures", _table(("Figure", "Value", "Meaning"), metric_rows(summary.metrics))]
    if "curves.png" in images:
        blocks.append("![Loss, PSNR and usage over the steps](samples/curves.png)")
    if "codes.png" in images:
        blocks.append("![How often each code is used](samples/codes.png)")
    blocks += [
        "## Use",
        _usage(directory, "denoised.png" in images),
        *_data(summary),
        *_limits(summary),
        "## Reproduce",
    ]
    blocks += [
        _fenced("sh", summary.command),
        "The settings in full:",
        _fenced("yaml", summary.config_yaml),
    ]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """One line of text that Markdown and HTML show as it is."""
    text = html.escape(one_line(" ".join(str(text).split())), quote=False)
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", text)


def _header() -> str:
    tags = ["vq-vae", "autoencoder", "image-compression", "image-tokenizer", "vqkit"]
    header = yaml.safe_dump(
        {"library_name": "vqkit", "pipeline_tag": "image-to-image", "tags": tags}, sort_keys=False
    )
    license_lines = "# The weights are yours: name a license before you share them.\nlicense: other\nlicense_name: not-chosen\n"
    return f"---\n{license_lines}{header}---"


def _table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = (row.label, row.value, row.note)[: len(heads)]
        lines.append("| " + " | ".join(escaped(cell) for cell in cells) + " |")
    return "\n".join(lines)


def _fenced(language: str, text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{printable(text.strip())}\n{fence}"


def _usage(directory: str, denoises: bool) -> str:
    python = f"import vqkit\n\nmodel = vqkit.load({directory!r})\ncodes = model.encode(images)"
    shell = f"vqkit reconstruct {shlex.quote(directory)} FILES... --out reconstructed"
    shell += f"\nvqkit denoise {shlex.quote(directory)} FILES... --out denoised" if denoises else ""
    return f"{_fenced('sh', shell)}\n\n{_fenced('python', python)}"


def _data(summary: RunSummary) -> list[str]:
    blocks = ["## Data"]
    if rows := data_rows(summary.data):
        blocks.append(_table(("What", "Value"), rows))
    if bad := bad_files(summary.data):
        blocks.append(f"{count(len(bad))} files could not be read and were left out:")
        lines = [
            f"- {escaped(row.label)}" + (f": {escaped(row.value)}" if row.value else "")
            for row in bad[:MAX_BAD_FILES]
        ]
        rest = len(bad) - len(lines)
        blocks.append("\n".join(lines + ([f"- and {count(rest)} more"] if rest else [])))
    return blocks if len(blocks) > 1 else []


def _limits(summary: RunSummary) -> list[str]:
    split = summary.metrics.get("split")
    where = f"the {split} split" if split else "the evaluated split"
    lines = [
        f"- The figures hold for images like those of {where}; other images come out worse, "
        "without a warning.",
        "- Reconstruction is lossy: small text, faces and thin lines go first. Not for uses where "
        "they matter.",
        "- The model reproduces what is in its training data, including what is wrong or "
        "one-sided in them.",
    ]
    if len(summary.psnr_per_image):
        lines.insert(1, f"- The worst image reaches {float(min(summary.psnr_per_image)):.1f} dB.")
    return ["## Limits", "\n".join(lines)]


# -------------------------------------------------------------------------------------------- prior


def prior_section(metrics: Mapping[str, Any]) -> str:
    """Markdown about the prior between its markers: samples, how to draw more, figures."""
    figures_there = {key: metrics[key] for key in PRIOR_FIGURES if key in metrics}
    blocks = [PRIOR_BEGIN, "## Prior", "A prior over the codes draws new images:"]
    blocks += [
        "![Samples of the prior](prior/samples.png)",
        _fenced("sh", "vqkit generate DIR --out new.png"),
    ]
    blocks += [_table(("Figure", "Value", "Meaning"), metric_rows(figures_there)), PRIOR_END]
    return "\n\n".join(blocks)


def add_prior_to_card(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Append the section about the prior to README.md of an artifact's folder, or replace it; the
    rest stays as it is.

    Does nothing where there is no README.md. Errors: those of the disk; the card is then what it
    was.
    """
    path = Path(folder) / "README.md"
    if not path.exists():
        return
    text = path.read_bytes().decode("utf-8")  # not read_text, which would change the ends of lines
    section = prior_section(metrics)
    # the last begin before an end: of a pair that someone cut in half, nothing but our own text may
    # go
    begin, end = re.escape(PRIOR_BEGIN), re.escape(PRIOR_END)
    replaced, found = re.subn(
        f"{begin}(?:(?!{begin}).)*?{end}", lambda _: section, text, count=1, flags=re.DOTALL
    )
    gap = "\n" if text.endswith("\n") else "\n\n"
    write_text(path, replaced if found else f"{text}{gap}{section}\n")
