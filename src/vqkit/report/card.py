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
from .pair_page import PairSummary, judge_pair, pair_rows
from .summary import RunSummary
from .tables import Row, bad_files, data_rows, metric_rows, rows_of
from .verdict import judge
from .wording import count, quality

SHEET_IMAGES = 32
# What reconstructions lose first.
LOST = {
    "image": "small text, faces and thin lines",
    "recording": "soft sounds, music behind a voice and how a speaker differs from others",
    "text": "names, numbers and words that are rare",
}
# What the hub calls each kind of item.
KINDS = {"image": "image", "recording": "audio", "text": "text"}
MAX_BAD_FILES = 20
# Those that the Hugging Face hub has identifiers for, and that weights come under; others are
# "other", with a name.
LICENCES = frozenset(
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause "
    "bsd-3-clause-clear bsl-1.0 cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 "
    "cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 creativeml-openrail-m ecl-2.0 "
    "epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 mit "
    "mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 pddl postgresql unlicense "
    "wtfpl zlib".split()
)
LICENCE_MISSING = "# The weights are yours: name a licence before you share them"
PRIOR_BEGIN = "<!-- prior: begin -->"
PRIOR_END = "<!-- prior: end -->"
CHECK_BEGIN = "<!-- check: begin -->"
CHECK_END = "<!-- check: end -->"
PRIOR_FIGURES = (
    "bits_per_code",
    "bits_per_code_untold",
    "order0_bits",
    "saving_vs_order0",
    "bits_per_item",
    "label_bits",
    "memorised",
    "items",
    "split",
    "parameters",
    "training_seconds",
)


def write_card(summary: RunSummary, folder: Path) -> None:
    """Write README.md and samples/*.png into an artifact's folder.

    Images first, so that no link is ever dead.
    """
    folder = Path(folder)
    images = _images(summary)
    for name, content in images.items():
        write_bytes(folder / "samples" / name, content)
    write_text(folder / "README.md", card_text(summary, folder.resolve().name, list(images)))


def _images(summary: RunSummary) -> dict[str, bytes]:
    images: dict[str, bytes] = {}
    if len(summary.originals):
        originals = summary.originals[:SHEET_IMAGES]
        sheet = comparison_sheet(originals, summary.reconstructions[:SHEET_IMAGES])
        images["reconstructions.png"] = png_bytes(sheet)
    if len(summary.denoised.originals):
        sheet = comparison_sheet(summary.denoised.originals, summary.denoised.reconstructions)
        images["denoised.png"] = png_bytes(sheet)
    history = summary.history
    events = summary.events
    measures = {"psnr": "PSNR, dB", "spectral_snr": "Spectral SNR, dB"}
    usage = {"usage": "Usage of the codes"}
    curves = {
        "Loss": figures.loss(history, events),
        "Quality, dB": figures.over_steps(history, measures, events),
        "Quality, %": figures.over_steps(history, {"byte_accuracy": "byte accuracy"}, events),
        "Usage of the codes": figures.over_steps(history, usage, events, percent=True),
    }
    drawn = figures.png(curves)
    if drawn:
        images["curves.png"] = drawn
    code_usage = {"How often each code is used": figures.code_usage(summary.code_counts)}
    drawn = figures.png(code_usage, 6.4, 3.4)
    if drawn:
        images["codes.png"] = drawn
    return images


def card_text(summary: RunSummary, directory: str, images: Sequence[str]) -> str:
    """The Markdown of the card. `directory` is how the artifact is named in the commands."""
    verdict = judge(summary)
    blocks = [
        _header(summary.item, summary.licence),
        f"# {escaped(summary.title)}",
        f"**{verdict.word}:** {escaped(verdict.sentence)}",
    ]
    for finding in verdict.findings:
        blocks.append(f"- {escaped(finding.text)} {escaped(finding.advice)}")
    if summary.choice:
        blocks.append(f"The settings were chosen by a look at the {summary.item}s:")
        blocks.append("\n".join(f"- {escaped(line)}" for line in summary.choice))
    if "reconstructions.png" in images:
        blocks.append("![Originals above their reconstructions](samples/reconstructions.png)")
        if summary.metrics.get("split") in ("validation", "test"):
            held_out = "; none of them was trained on"
        else:
            held_out = ""
        blocks.append(f"Every original is above its reconstruction{held_out}.")
    if "denoised.png" in images:
        blocks.append("![Noisy images above what the model makes of them](samples/denoised.png)")
        blocks.append("Noisy images, of 25 of 255 levels, above what the model makes of them.")
    blocks += [
        "## Figures",
        _table(("Figure", "Value", "Meaning"), rows_of(metric_rows(summary.metrics), summary.item)),
    ]
    if "curves.png" in images:
        blocks.append("![Loss, quality and usage over the steps](samples/curves.png)")
    if "codes.png" in images:
        blocks.append("![How often each code is used](samples/codes.png)")
    blocks += [
        "## Use",
        _usage(directory, "denoised.png" in images, summary.item),
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


def write_pair_card(summary: PairSummary, kinds: tuple[str, str], folder: Path) -> None:
    """Write README.md into the folder of a pair. kinds: of items, as the two halves have them."""
    first, second = (KINDS.get(kind, kind) for kind in kinds)
    tags = [f"{first}-to-{second}", f"{second}-to-{first}", "vq-vae", "vqkit"]
    metadata = {"library_name": "vqkit", "pipeline_tag": tags[0], "tags": tags}
    verdict = judge_pair(summary)
    name = shlex.quote(Path(folder).resolve().name)
    shell = f"vqkit generate {name} --from TEXT-OR-FILE --out new\nvqkit score {name} ITEMS..."
    blocks = [
        _header_of(metadata, None),
        f"# {escaped(summary.title)}",
        f"**{verdict.word}:** {escaped(verdict.sentence)}",
        f"One prior over the codes of {first} and {second}. The halves are in `first/` and "
        "`second/`, each with a licence of its own, where they are models; the licence above is of "
        "the prior.",
        _fenced("sh", shell),
        _table(("Figure", "Value", "Meaning"), pair_rows(summary.metrics)),
    ]
    write_text(Path(folder) / "README.md", "\n\n".join(blocks) + "\n")


def escaped(text: str) -> str:
    """One line of text that Markdown and HTML show as it is."""
    text = html.escape(one_line(" ".join(str(text).split())), quote=False)
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", text)


def _header(item: str, licence: str | None) -> str:
    kind = KINDS.get(item, item)
    tags = ["vq-vae", "autoencoder", f"{kind}-compression", f"{kind}-tokenizer", "vqkit"]
    metadata = {"library_name": "vqkit", "pipeline_tag": f"{kind}-to-{kind}", "tags": tags}
    return _header_of(metadata, licence)


def _header_of(metadata: Mapping[str, Any], licence: str | None) -> str:
    header = yaml.safe_dump(dict(metadata), sort_keys=False)
    return f"---\n{_licence_lines(licence)}{header}---"


def _licence_lines(licence: str | None) -> str:
    """How the hub wants a licence to be named."""
    if licence is None:
        return (
            f"{LICENCE_MISSING} (vqkit check DIR --licence ID).\n"
            "license: other\n"
            "license_name: not-chosen\n"
        )
    if licence.lower() in LICENCES:
        return f"license: {licence.lower()}\n"
    return yaml.safe_dump({"license": "other", "license_name": licence.lower()}, sort_keys=False)


def _table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        cells = (row.label, row.value, row.note)[: len(heads)]
        lines.append("| " + " | ".join(map(escaped, cells)) + " |")
    return "\n".join(lines)


def _fenced(language: str, text: str) -> str:
    # A fence ends at one of at least its length, so it is longer than any that the text has.
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{printable(text.strip())}\n{fence}"


def _usage(directory: str, denoises: bool, item: str) -> str:
    python = f"import vqkit\n\nmodel = vqkit.load({directory!r})\ncodes = model.encode({item}s)"
    shell = f"vqkit reconstruct {shlex.quote(directory)} FILES... --out reconstructed"
    if denoises:
        shell += f"\nvqkit denoise {shlex.quote(directory)} FILES... --out denoised"
    return f"{_fenced('sh', shell)}\n\n{_fenced('python', python)}"


def _data(summary: RunSummary) -> list[str]:
    blocks = []
    rows = data_rows(summary.data)
    if rows:
        blocks.append(_table(("What", "Value"), rows))
    bad = bad_files(summary.data)
    if bad:
        blocks.append(f"{count(len(bad))} files could not be read and were left out:")
        lines = []
        for row in bad[:MAX_BAD_FILES]:
            reason = f": {escaped(row.value)}" if row.value else ""
            lines.append(f"- {escaped(row.label)}{reason}")
        if len(bad) > MAX_BAD_FILES:
            lines.append(f"- and {count(len(bad) - MAX_BAD_FILES)} more")
        blocks.append("\n".join(lines))
    if not blocks:
        return []
    return ["## Data", *blocks]


def _limits(summary: RunSummary) -> list[str]:
    split = summary.metrics.get("split")
    where = f"the {split} split" if split else "the evaluated split"
    lost = LOST.get(summary.item, "rare things")
    lines = [
        f"- The figures hold for {summary.item}s like those of {where}; other {summary.item}s come "
        "out worse, without a warning.",
        f"- Reconstruction is lossy: {lost} go first. Not for uses where they matter.",
        "- The model reproduces what is in its training data, including what is wrong or one-sided "
        "in them.",
    ]
    if len(summary.psnr_per_image):
        worst = quality(min(summary.psnr_per_image), summary.quality_unit)
        lines.insert(1, f"- The worst {summary.item} reaches {worst}.")
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


def check_section(check: Mapping[str, Any], item: str) -> str:
    """Markdown about what stays equal however a model is called, and what damage does, between its
    markers.
    """
    of_codes = f"{check['code_flips']} of {count(check['codes'])} codes"
    of_values = f"{check['value_flips']} of {count(check['values'])} values of the decoded items"
    unit = check["quality_unit"]
    few, many = (f"{check[f'quality_damaged_{share}']:.1f} {unit}" for share in (1, 5))
    whole = f"{check['quality']:.1f} {unit}"
    lines = [
        f"- {of_codes} differ alone, in batches, padded, in pieces and on one thread or two; "
        f"{of_values}.",
        f"- {check['quality_in_words']} {whole}; with 1 % of the codes replaced "
        f"at random {few}, with 5 % {many}.",
        f"- Of {check['items']} {item}s of {escaped(check['checked'])}, on one machine.",
    ]
    for instructions, flips in check["elsewhere"].items():
        said = [f"{number} of {count(total)} {what}" for what, (number, total) in flips.items()]
        lines.append(
            f"- With {instructions} instead of this processor's own instructions: "
            f"{', '.join(said)} differ."
        )
    return "\n\n".join([CHECK_BEGIN, "## Check", "\n".join(lines), CHECK_END])


def add_prior_to_card(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Append the section about the prior to README.md of an artifact's folder, or replace it.

    The rest stays as it is.

    Does nothing where there is no README.md. Errors: those of the disk; the card is then what it
    was.
    """
    _put(folder, prior_section(metrics), PRIOR_BEGIN, PRIOR_END)


def add_check_to_card(folder: Path, check: Mapping[str, Any], item: str) -> None:
    """As `add_prior_to_card`, of what `vqkit check` found."""
    _put(folder, check_section(check, item), CHECK_BEGIN, CHECK_END)


def put_licence_into_card(folder: Path, licence: str) -> None:
    """Name the licence in the header of README.md of an artifact's folder, in place of what it says
    of one; the rest stays as it is. Nothing is done where there is no README.md with a header.
    Errors: those of the disk.
    """
    path = Path(folder) / "README.md"
    if not path.exists():
        return
    text = path.read_bytes().decode("utf-8")
    header = re.match(r"---\r?\n(.*?)(?=^---)", text, re.DOTALL | re.MULTILINE)
    if header is None:
        return
    others = re.sub(
        rf"^({LICENCE_MISSING}|license\w*:).*\n(?:[ \t-].*\n)*", "", header[1], flags=re.M
    )
    write_text(path, f"---\n{_licence_lines(licence)}{others}{text[header.end() :]}")


def _put(folder: Path, section: str, begin: str, end: str) -> None:
    path = Path(folder) / "README.md"
    if not path.exists():
        return
    # Not read_text, which would change the ends of lines.
    text = path.read_bytes().decode("utf-8")
    # The last begin before an end: of a pair that someone cut in half, nothing but our own text
    # may go.
    begin = re.escape(begin)
    end = re.escape(end)
    pattern = re.compile(f"{begin}(?:(?!{begin}).)*?{end}", re.DOTALL)
    replaced, found = pattern.subn(lambda _: section, text, count=1)
    if not found:
        gap = "\n" if text.endswith("\n") else "\n\n"
        replaced = f"{text}{gap}{section}\n"
    write_text(path, replaced)
