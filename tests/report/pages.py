"""Reading pages back, and what holds for every one of them."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

from PIL import Image


class Page(HTMLParser):
    """Tags with their attributes, and the text as a browser has it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def pictures(self, kind: str) -> list[Image.Image]:
        """Those of <img class="kind">, in order."""
        found = [
            attributes
            for tag, attributes in self.tags
            if tag == "img" and attributes.get("class") == kind
        ]
        sources = [(attributes["src"] or "").partition("base64,")[2] for attributes in found]
        return [Image.open(io.BytesIO(base64.b64decode(source))) for source in sources]


def assert_sound(text: str) -> None:
    """A whole page that asks for nothing from outside and has no id twice."""
    assert text.startswith("<!doctype html>")
    assert (
        "http:" not in text
        and "https:" not in text
        and "@import" not in text
        and "url(//" not in text
    )
    tags = Page(text).tags
    for tag, attributes in tags:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "srcset", "data"):
            kinds = ("data:image/png;base64,", "data:audio/flac;base64,", "#")
            assert (attributes.get(name) or "#").startswith(kinds), (tag, attributes)
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(ids) == len(set(ids))


def assert_escaped(text: str) -> None:
    """EVIL of summaries.py made no tag."""
    assert not [tag for tag, attributes in Page(text).tags if "onerror" in attributes]
    assert "<img src=x" not in text
