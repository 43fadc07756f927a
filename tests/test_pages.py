"""Pages of the site that are made from code are complete, and figures on pages are measured."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import vqkit.nn
from vqkit import cli
from vqkit.config.quantizers import QUANTIZERS
from vqkit.settings import Config, PriorConfig

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "src" / "vqkit" / "recipes"
QUANTIZER_PAGES = ROOT / "docs" / "quantizers"


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = _module("make_pages")
drawn = _module("make_benchmark_figures")


def headings(page: str) -> list[str]:
    """Those outside of code."""
    return re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page, flags=re.S), re.M)


def test_every_verb_has_its_help():
    page = pages.verbs_page()
    assert {name.split()[0] for name in headings(page)[1:]} == set(cli.COMMANDS)
    assert "tokens materialize" in headings(page)
    assert page.count("usage: vqkit ") == len(headings(page)) - 1


@pytest.mark.parametrize("module", [vqkit, vqkit.nn], ids=["vqkit", "nn"])
def test_every_public_name_is_explained(module):
    page = pages.names_page(module, "name")
    assert set(module.__all__) <= set(headings(page))
    assert re.search(r"^## \S+\n\n(?:```.*?```\n\n)?\n*## ", page, re.M | re.S) is None


def keys(tree: dict[str, Any], at: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        yield at, name
        if isinstance(value, dict):
            yield from keys(value, f"{at}.{name}".lstrip("."))


@pytest.mark.parametrize(
    ("root", "folder"),
    [(Config, RECIPES), (PriorConfig, RECIPES / "prior")],
    ids=["train", "prior"],
)
def test_every_setting_of_every_recipe_is_in_the_reference(root, folder):
    page = pages.settings_page(root, "settings")
    tables = re.split(r"^## ", page, flags=re.M)
    for recipe in folder.glob("*.yaml"):
        for section, name in keys(yaml.safe_load(recipe.read_text(encoding="utf-8"))):
            # Quantizers of others are those that stand alone; a prior augments as the data did.
            section = re.sub(r"^(model\.quantizer)\..*", r"\1", section)
            if "augment" in (section, name) and root is PriorConfig:
                continue
            titles = (section, "any weight") if section.startswith("losses.") else (section,)
            mine = [one for one in tables if one.startswith(titles)]
            assert any(f"| `{name}` |" in one for one in mine), (recipe.name, section, name)


def test_every_quantizer_has_a_page_with_a_figure_a_formula_and_when():
    kinds = {section.model_fields["kind"].default for section in QUANTIZERS} - {"none"}
    found = {path.stem.replace("-", "_"): path for path in QUANTIZER_PAGES.glob("*.md")}
    assert set(found) == {*kinds, "index"}
    for kind in kinds:
        text = found[kind].read_text(encoding="utf-8")
        (figure,) = re.findall(r"!\[.*\]\((.*)\)", text)
        assert (found[kind].parent / figure).stat().st_size < 40_000
        assert text.count("$$") == 2 and "## When\n" in text and "## When not\n" in text
        assert f"model.quantizer.kind={kind}" in text
        assert any(f"`vqkit.nn.{name}`" in text for name in vqkit.nn.__all__)


def test_what_pages_of_quantizers_call_measured_is_in_the_benchmark():
    families = (ROOT / "docs" / "benchmarks" / "families.md").read_text(encoding="utf-8")
    fashion, emoji = families.split("## Emoji")
    seen = 0
    for path in QUANTIZER_PAGES.glob("*.md"):
        for name, first, usage, second in re.findall(
            r"^\| ([\w-]+) \| ([\d.]+) dB \| ([\d.]+) % \| ([\d.]+) dB \|$", path.read_text(), re.M
        ):
            row = re.search(rf"^\| {name} \| 4\d\d \| {first} \|.*\| {usage} \|", fashion, re.M)
            assert row and re.search(rf"^\| {name} \| 576 \| {second} \|", emoji, re.M), path
            seen += 1
    assert seen == 9


def test_docstrings_are_escaped_and_code_stays():
    text = "A *star* and `a*b`, <b>.\n\n    code(1)\n\n    more()\n\nEnd."
    assert pages.prose(text) == (
        "A \\*star\\* and `a*b`, \\<b\\>.\n\n```python\ncode(1)\n\nmore()\n```\n\nEnd."
    )


def test_what_figures_of_benchmarks_draw_is_what_the_tables_say():
    photographs = drawn.photographs()
    assert set(photographs) == {"vqkit", "JPEG", "WebP", "AVIF"}
    assert (0.600, 32.91) in photographs["vqkit"] and (0.621, 30.65) in photographs["JPEG"]
    assert all(len(points) >= 12 for points in photographs.values())
    speech = drawn.speech()
    assert [len(speech[name]) for name in ("vqkit", "Codec2", "Opus")] == [4, 3, 2]
    # The middle of 0.90 to 0.94, 0.901 to 0.902 and 2.35 to 2.38.
    assert speech["vqkit"][1] == pytest.approx((0.92, 0.9015, 2.365))
    families = drawn.families()
    assert families["vq"] == (23.84, 22.33) and families["hierarchical"] == (22.25, None)
    assert len(families) == 15
    assert drawn.search()["65536 x 16"] == (163.0, 5550.0) and len(drawn.search()) == 4
    for name in drawn.DRAWN:
        assert f"](../figures/benchmarks/{name}.png)" in drawn.page(name)
        assert (drawn.FIGURES / f"{name}.png").exists()
