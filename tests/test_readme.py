"""README and the site's pages: links, layout, both languages, figures, versions."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import vqkit

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def links(document: Path) -> list[str]:
    return re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))


# Pages of the site that `make docs` writes.
MADE = ("reference/", "tutorials/")


@pytest.mark.parametrize(
    "document",
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/[a-z]*.md")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_documents_link_to_exists(document):
    for target in links(document):
        is_made = target.removeprefix("../").startswith(MADE)
        is_there = is_made or (document.parent / target).exists()
        assert target.startswith(("https:", "mailto:")) or is_there, target


def test_the_layout_in_the_design_is_that_of_the_files():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    tree = re.search(r"## Layout\n(.*?)\n\n", design, re.DOTALL).group(1)
    seen = 0
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        parent = {4: ".", 6: "src/vqkit", 8: "src/vqkit/signals"}.get(indent)
        if parent is not None:
            assert (ROOT / parent / line.split()[0]).exists(), line
            seen += 1
    assert seen > 20


CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")


def in_common(text: str) -> dict[str, list[str]]:
    """What both languages of the README have alike: the level of each heading, code without its
    comments, links, names, and the numbers of each row of the table.
    """
    code = "\n".join(re.findall(r"```\w+\n(.*?)```", text, re.DOTALL))
    table = [line for line in text.splitlines() if line.startswith("|")]
    return {
        "headings": re.findall(r"^#+(?= )", text, re.MULTILINE),
        "commands": [re.split(r"\s+#", line)[0] for line in code.splitlines()],
        "links": re.findall(r"\]\(([^)]+)\)", text),
        "words in code": sorted(re.findall(r"`([^`\n]+)`", text)),
        "figures": [str(sorted(re.findall(r"[-+]?\d(?:[\d.,/x]*[\dx])?", row))) for row in table],
        "bold": re.findall(r"\*\*(.+?)\*\*", text.replace("、", ", ").replace("；", "; ")),
    }


@pytest.mark.parametrize("what", in_common(README))
def test_the_readme_says_the_same_in_both_languages(what):
    assert in_common(CHINESE)[what] == in_common(README)[what]


def test_the_readme_is_short_and_its_figures_are_in_the_benchmarks():
    assert README.count("\n") <= 120 and CHINESE.count("\n") <= 120
    measured = "".join(path.read_text() for path in (ROOT / "docs" / "benchmarks").glob("*.md"))
    rows = [line for line in README.splitlines() if line.startswith("|")][2:]
    figures = re.findall(r"\d+\.\d+", " ".join(rows))
    assert len(figures) >= 25
    assert [figure for figure in figures if figure not in measured] == []


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == vqkit.__version__ == citation["version"]
    assert citation["license"] == project["license"]
