"""Write the pages of the site that are made from code: docs/reference and docs/tutorials.

    python scripts/make_pages.py

Public names from their docstrings, settings from their schema, recipes as they ship, verbs from
`--help`, tutorials from the notebooks with their outputs. Nothing of it is kept in git; `make docs`
runs this first.
"""

from __future__ import annotations

import argparse
import base64
import inspect
import json
import os
import re
import shutil
import types
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import vqkit
import vqkit.nn
from vqkit import cli
from vqkit.config import WeightConfig
from vqkit.config.base import Root, Section
from vqkit.config.loading import recipe_names, recipe_summary, recipe_text
from vqkit.settings import Config, PriorConfig

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Column of help texts, of which no line of a page is wider.
WIDTH = "96"
ROOTS = {"": Config, "prior/": PriorConfig}
# Fields that tell sections of the same key apart.
TELL = ("kind", "signal")


def main() -> None:
    pages = {
        "reference/vqkit.md": names_page(vqkit, "vqkit"),
        "reference/nn.md": names_page(vqkit.nn, "vqkit.nn"),
        "reference/settings.md": settings_page(Config, "Settings of `vqkit train`"),
        "reference/prior-settings.md": settings_page(
            PriorConfig, "Settings of `vqkit train-prior`"
        ),
        "reference/recipes.md": recipes_page(),
        "reference/verbs.md": verbs_page(),
    }
    for prefix, root in ROOTS.items():
        for name in recipe_names(root):
            text = recipe_text(name, root)
            path = f"reference/recipes/{(prefix + name).replace('/', '-')}.md"
            pages[path] = f"# Recipe {prefix}{name}\n\n```yaml\n{text}```\n"
    for folder in ("reference", "tutorials"):
        shutil.rmtree(DOCS / folder, ignore_errors=True)
    for name, text in pages.items():
        target = DOCS / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for path in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")):
        write_tutorial(path)


# ---------------------------------------------------------------------------- from docstrings


def names_page(module: types.ModuleType, name: str) -> str:
    """Every public name of a module: signature and docstring, and those of its members."""
    parts = [f"# {name}", prose(inspect.getdoc(module) or "")]
    for each in module.__all__:
        value = getattr(module, each)
        if inspect.isclass(value):
            parts.append(class_text(value, each))
        elif callable(value):
            parts += [f"## {each}", signature(value, each), prose(inspect.getdoc(value) or "")]
        else:
            parts.append(f"## {each}\n\n`{value!r}`")
    return "\n\n".join(parts) + "\n"


def class_text(value: type, name: str) -> str:
    parts = [f"## {name}"]
    if not issubclass(value, (Exception, Section)):
        parts.append(signature(value, name))
    parts.append(prose(inspect.getdoc(value) or ""))
    if not issubclass(value, Section):
        for member, function in members(value):
            parts.append(f"### {name}.{member}")
            if callable(function):
                parts.append(signature(function, member))
            parts.append(prose(inspect.getdoc(function) or ""))
    return "\n\n".join(filter(None, parts))


def members(value: type) -> Iterator[tuple[str, Any]]:
    """Public members with a docstring of their own, of the class or a base of ours."""
    for base in value.__mro__:
        if not base.__module__.startswith("vqkit"):
            continue
        for name, member in vars(base).items():
            if name.startswith("_") or getattr(value, name, None) is not getattr(base, name, None):
                continue
            if inspect.isfunction(member) or isinstance(member, property):
                if inspect.getdoc(member):
                    yield name, member


def signature(value: Any, name: str) -> str:
    """A signature with a parameter a line where it is long."""
    found = inspect.signature(value)
    shown = [str(one) for one in found.parameters.values() if one.name != "self"]
    kinds = [one.kind for one in found.parameters.values() if one.name != "self"]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    back = found.return_annotation
    arrow = "" if back in (found.empty, None, "None") else f" -> {back}"
    text = f"{name}({', '.join(shown)}){arrow}"
    if len(text) > 90:
        text = f"{name}(\n    " + ",\n    ".join(shown) + f",\n){arrow}"
    # What annotations were imported from says nothing to a reader.
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text.replace("'", ""))
    return f"```text\n{text}\n```"


def prose(text: str) -> str:
    """A docstring as Markdown: indented blocks are code, all else is escaped but for `code`."""
    parts = []
    for is_code, lines in groupby(text.split("\n\n"), lambda block: block.startswith("    ")):
        block = "\n\n".join(lines)
        if is_code:
            parts.append(f"```python\n{inspect.cleandoc(block)}\n```")
        else:
            parts.append("\n".join(map(escaped, block.split("\n"))))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_<>|\[\]$\\{}])", r"\\\1", part)
        for part in parts
    )


# ------------------------------------------------------------------------------- from settings


def settings_page(root: type[Root], title: str) -> str:
    """A table for every section, a further one for every kind that a section may be of."""
    lines = [f"# {title}", "", escaped(inspect.getdoc(root) or ""), ""]
    lines += ["A key is written with dots on the command line: `train.lr=1e-3`.", ""]
    for heading, section in sections(root):
        if heading:
            lines += [f"## {heading}", "", escaped(own_doc(section)), ""]
        lines += ["| key | default | |", "|---|---|---|"]
        for field, info in section.model_fields.items():
            about = " ".join((info.description or "").split())
            inner = list(inner_sections(info.annotation))
            if inner:
                about = about or "see below"
            lines.append(
                f"| `{field}` | {default_of(info)} | {escaped(about)}{beside(section, field)} |"
            )
        lines.append("")
    return "\n".join(lines)


def own_doc(section: type[Section]) -> str:
    """Of the section itself, not of its base."""
    return " ".join((section.__doc__ or "").split())


def beside(section: type[Section], field: str) -> str:
    """What a setting needs to have an effect."""
    needed = [one.beside for one in section.conditions if field in one.names]
    return f" *Acts with {escaped(', '.join(needed).replace('{at}', ''))}.*" if needed else ""


def default_of(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, Section):
        value = value.model_dump()
        return (
            f"`{value['kind']}`"
            if isinstance(value, dict) and "kind" in value
            else (f"`{value}`" if not isinstance(value, dict) else "")
        )
    return f"`{json.dumps(value)}`"


def sections(root: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """Every section below a root under a title, its key and what tells it from others of this key.

    Each comes once: quantizers that are made of others take the same sections again.
    """
    seen: set[type[Section]] = set()

    def walk(section: type[Section], at: str, told: str) -> Iterator[tuple[str, type[Section]]]:
        seen.add(section)
        fields = section.model_fields
        told = next((f", {name}={fields[name].default}" for name in TELL if name in fields), told)
        yield (at + told if section is not WeightConfig else "any weight of losses"), section
        for name, info in fields.items():
            for inner in inner_sections(info.annotation):
                if inner not in seen:
                    yield from walk(inner, f"{at}.{name}".lstrip("."), told)

    yield from walk(root, "", "")


def inner_sections(annotation: Any) -> Iterator[type[Section]]:
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        yield annotation
    for member in get_args(annotation):
        yield from inner_sections(member)


def recipes_page() -> str:
    lines = ["# Recipes", "", "Each is a complete YAML file: `vqkit recipes NAME > mine.yaml`.", ""]
    lines += ["| recipe | what for |", "|---|---|"]
    for prefix, root in ROOTS.items():
        for name in recipe_names(root):
            page = f"recipes/{(prefix + name).replace('/', '-')}.md"
            lines.append(f"| [{prefix}{name}]({page}) | {escaped(recipe_summary(name, root))} |")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------- from the command line


def verbs_page() -> str:
    """What `--help` says of every verb, and of the verbs below `vqkit tokens`."""
    lines = ["# Verbs", "", "What `vqkit VERB --help` prints.", ""]
    with patch.dict(os.environ, COLUMNS=WIDTH, NO_COLOR="1"):
        for name, parser in parsers(cli.build_parser(), ""):
            lines += [f"## {name}", "", "```text", parser.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def parsers(
    parser: argparse.ArgumentParser, at: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield f"{at} {name}".strip(), inner
                yield from parsers(inner, f"{at} {name}")


# ------------------------------------------------------------------------------ from notebooks


def write_tutorial(path: Path) -> None:
    """A notebook as a page with its outputs; images lie beside it."""
    name = re.sub(r"^\d+_", "", path.stem).replace("_", "-")
    folder = DOCS / "tutorials"
    folder.mkdir(exist_ok=True)
    parts = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for place, output in enumerate(cell["outputs"]):
            parts.append(output_text(output, folder / f"{name}-{number}-{place}.png"))
    source = f"examples/notebooks/{path.stem}.py"
    parts.append(f"*This page is the notebook `{source}`, with the outputs of its last run.*")
    text = "\n\n".join(filter(None, parts))
    (folder / f"{path.stem[0]}-{name}.md").write_text(text + "\n", encoding="utf-8")


def output_text(output: dict[str, Any], image: Path) -> str:
    if output["output_type"] == "stream":
        return "```text\n" + "".join(output["text"]).rstrip() + "\n```"
    data = output.get("data", {})
    if "image/png" in data:
        image.write_bytes(base64.b64decode("".join(data["image/png"])))
        return f"![what the cell above draws]({image.name})"
    if "text/html" in data:
        # Markdown would see headings and lists in it.
        page = "".join(data["text/html"])
        return "```{raw} html\n" + page + "\n```"
    return ""


if __name__ == "__main__":
    main()
