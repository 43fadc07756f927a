"""What tests of the studio do with its page in a browser."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from .conftest import Studio

# A pass of Chromium over a page on one busy core.
PATIENCE = 60_000
# Pixels: a phone, a tablet, a desk.
WIDTHS = (390, 820, 1440)


def keep_screenshots(tab: Any, name: str) -> None:
    """How the page looks now, where VQKIT_SCREENSHOTS names a folder: at three widths, light and
    dark.
    """
    folder = os.environ.get("VQKIT_SCREENSHOTS")
    if not folder or tab.url == "about:blank":
        return
    stem = re.sub(r"\W+", "-", name.removeprefix("test_").replace("_", "-")).strip("-")
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            tab.screenshot(path=Path(folder) / f"{stem}-{width}-{scheme}.png", full_page=True)


def opened(context: Any, studio: Studio) -> Any:
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE)
    tab.said = []
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.on("request", lambda request: _check_own(studio, request.url))
    tab.goto(studio.url)
    tab.wait_for_selector("body[data-open]")
    return tab


def _check_own(studio: Studio, url: str) -> None:
    assert url.startswith((studio.url, "blob:", "data:")), url


def go(page: Any, view: str) -> None:
    page.click(f".rail nav a[href='#{view}']")
    page.wait_for_selector(f"#view-{view}:not([hidden])")


def choose(page: Any, name: str) -> None:
    # What was there before has thumbnails, too.
    with page.expect_response("**/api/samples"):
        page.get_by_label("Model", exact=True).select_option(label=name)
    page.wait_for_function("() => document.querySelectorAll('.strip .thumb').length > 4")


def check_access(page: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def shown(page: Any, selector: str) -> np.ndarray:
    """The pixels of an image of the page."""
    address = page.eval_on_selector(
        selector,
        """async (image) => {
            await image.decode();
            const canvas = document.createElement("canvas");
            canvas.width = image.naturalWidth;
            canvas.height = image.naturalHeight;
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL("image/png");
        }""",
    )
    return pixels(base64.b64decode(address.partition(",")[2]))


def downloaded(page: Any, click: Any) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()
