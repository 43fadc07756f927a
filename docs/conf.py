"""The site: `make docs` builds it into build/docs, with warnings as errors."""

from __future__ import annotations

from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.util import logging

project = "vqkit"
author = "the authors of vqkit"
copyright = "the authors of vqkit, Apache-2.0"
extensions = ["myst_parser"]
exclude_patterns = ["README.md"]

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
# Lexers of what pages show; anything else is a mistake.
highlight_language = "text"
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "vqkit"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
# Search works from files as well: summaries would be fetched.
html_show_search_summary = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5c94", "color-brand-content": "#0b5c94"},
    "dark_css_variables": {"color-brand-primary": "#7cc0f0", "color-brand-content": "#7cc0f0"},
    "footer_icons": [],
}
# Formulas are MathML, which browsers draw themselves: nothing is fetched.
html_math_renderer = "mathml"


def _formula(node: Any, display: str) -> str:
    """MathML of a formula; a command that is not known is a warning, and so an error."""
    found = convert(node.astext(), display=display)
    if "\\" in found:
        logging.getLogger(__name__).warning("cannot set %s", node.astext(), location=node)
    # Norms as high as their letters, wherever their exponents are.
    return found.replace("<mo>&#x02016;", '<mo stretchy="false">&#x02016;')


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(_formula(node, "inline"))
    raise SkipNode


def _displayed(translator: Any, node: Any) -> None:
    translator.body.append(f'<div class="formula">{_formula(node, "block")}</div>')
    raise SkipNode


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (_inline, None), (_displayed, None))
