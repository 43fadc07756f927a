"""The report of a run as a notebook shows it."""

from __future__ import annotations

import base64
import html
import io
import re
from itertools import takewhile
from pathlib import Path

from PIL import Image

from ..errors import VqkitError
from ..files import read_bounded
from ..printable import one_line

# The line of a card that has the verdict.
VERDICT = re.compile(r"\*\*([^*]+):\*\* (.+)")
# Width in pixels of the images: a notebook keeps them.
WIDTH = 720
# What a card and its images may take, in bytes and pixels.
MAX_CARD = 1 << 22
MAX_IMAGE = 1 << 25
MAX_PIXELS = 1 << 25


class Report:
    """Verdict, reconstructions and page of a finished run.

    In a notebook: the verdict with what speaks against the run, originals above their
    reconstructions, and a link to report.html. `repr()` is the verdict alone.

    folder: of the artifact. VqkitError when it has no model card that vqkit wrote.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            card = read_bounded(self.folder / "README.md", MAX_CARD).decode("utf-8", "replace")
        except OSError as error:
            raise VqkitError(f"{folder} has no model card: train a model there first") from error
        lines = iter(filter(str.strip, re.sub(r"\\(.)", r"\1", card).splitlines()))
        for line in lines:
            if found := VERDICT.fullmatch(line):
                break
        else:
            raise VqkitError(f"{folder}/README.md is no model card that vqkit wrote")
        self.word, self.sentence = found.groups()
        self.findings = [line[2:] for line in takewhile(lambda line: line[:2] == "- ", lines)]

    def __repr__(self) -> str:
        return one_line(f"{self.word}: {self.sentence}")

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{html.escape(finding)}</li>" for finding in self.findings)
        page = html.escape((self.folder / "report.html").as_posix())
        return (
            f"<p><b>{html.escape(self.word)}:</b> {html.escape(self.sentence)}</p><ul>{items}</ul>"
            f"{self._image()}<p>All figures: <a href='{page}'>{page}</a></p>"
        )

    def _image(self) -> str:
        path = self.folder / "samples" / "reconstructions.png"
        try:
            opened = Image.open(io.BytesIO(read_bounded(path, MAX_IMAGE)), formats=["PNG"])
            if opened.width * opened.height > MAX_PIXELS:
                return ""
            image = opened.convert("RGB")
        except (OSError, Image.DecompressionBombError):
            return ""
        image.thumbnail((WIDTH, 4 * WIDTH))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=80)
        coded = base64.b64encode(buffer.getvalue()).decode("ascii")
        about = "originals above their reconstructions"
        return f"<img alt='{about}' src='data:image/webp;base64,{coded}'>"
