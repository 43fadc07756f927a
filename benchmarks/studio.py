"""Claims studio_first_picture and studio_click_ms: how soon the page of `vqkit studio` shows
something, and how soon a changed code is seen.

    python benchmarks/studio.py [--quick] [--seed 0] [--json FILE]

Everything is measured in a headless Chromium, from outside. First the seconds from the command to a
page on which one can choose (its model and the items on it come after that). Then a folder of 256
PNG files, drawn from the built-in emoji, is given to the page as if it were dropped: seconds until
reconstructions by the first checkpoint of a run are shown. Then codes of 64x64 images are swapped,
one click after the other: milliseconds from the click until the new image is decoded by the
browser, of which the 95th percentile counts. --quick: 64 files, 12 clicks.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bench.claims import Claim, machine, options, report
from PIL import Image
from playwright.sync_api import sync_playwright

from vqkit.pipelines.autoencoder import train
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import open_images

PARSER = options(__doc__)
# Milliseconds that a browser may wait for anything here.
PATIENCE = 300_000
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")


@contextmanager
def studio(folder: Path) -> Iterator[tuple[str, float]]:
    """Address of a studio on a folder, and when its command began."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "vqkit", "studio", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[1], began
    finally:
        process.terminate()
        process.wait()


def write_images(folder: Path, count: int, seed: int) -> None:
    """PNG files of emoji, at their own 32x32."""
    data = open_images("emoji", DataConfig(), seed)
    (batch,) = [next(iter(data.split("train", count)))]
    folder.mkdir()
    for number, values in enumerate(batch.values):
        Image.fromarray(values.movedim(0, -1).numpy()).save(folder / f"{number}.png")


def first_images(page: Any, address: str, began: float, folder: Path) -> tuple[float, float, float]:
    """Seconds from the command to the page, from there to the items of a model, and from a folder
    to the first reconstructions.
    """
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    usable = time.perf_counter() - began
    page.wait_for_selector("body[data-open]")
    opened = time.perf_counter() - began
    page.click(".rail nav a[href='#train']")
    given = time.perf_counter()
    page.set_input_files("#view-train input[webkitdirectory]", folder)
    page.get_by_role("button", name="Start training").click()
    page.wait_for_selector("body[data-followed]")
    seen = time.perf_counter() - given
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".run:not([data-state=running])")
    return usable, opened, seen


def clicks(page: Any, count: int, seed: int) -> np.ndarray:
    """Milliseconds of so many swaps, each of another place."""
    page.click(".rail nav a[href='#look']")
    page.get_by_label("Model", exact=True).select_option(label="clicks")
    page.wait_for_selector("body[data-looked]")
    page.locator(".palette .swatch").first.wait_for()
    generator = np.random.default_rng(seed)
    canvas = page.locator(".grid canvas")
    found = []
    for number in range(1, count + 1):
        # A place of the grid of 16x16, and another code than it has, as a person clicks them.
        side = canvas.bounding_box()["width"] / 16
        row, column = divmod(int(generator.integers(256)), 16)
        canvas.click(position={"x": (column + 0.5) * side, "y": (row + 0.5) * side})
        known = page.locator(".inspector h2").text_content().removeprefix("Code ")
        others = page.locator(f".palette .swatch:not([data-code='{known}'])")
        other = others.nth(int(generator.integers(50)))
        code = other.get_attribute("data-code")
        other.click()
        page.wait_for_selector(f"body[data-answers='{number}']")
        page.get_by_role("heading", name=f"Code {code}", exact=True).wait_for()
        found.append(float(page.evaluate("document.body.dataset.clickMs")))
    return np.array(found)


def main() -> None:
    arguments = PARSER.parse_args()
    num_files, num_clicks = (64, 12) if arguments.quick else (256, 200)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        write_images(folder / "files", num_files, arguments.seed)
        sides = ["data.image_size=[64,64]", "train.steps=20", "coder.steps=2"]
        train("emoji", folder / "runs" / "clicks", "emoji", sides)
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(PATIENCE)
        with studio(folder / "runs") as (address, began):
            usable, opened, seen = first_images(page, address, began, folder / "files")
            print(f"page {usable:.1f} s, items {opened:.1f} s, reconstruction {seen:.1f} s")
            taken = clicks(page, num_clicks, arguments.seed)
        browser.close()
    where = {**machine(), "files": num_files, "clicks": num_clicks, "items_of_a_model": opened}
    median, slow = np.percentile(taken, [50, 95])
    print(f"clicks: median {median:.0f} ms, p95 {slow:.0f} ms")
    report(
        [
            Claim("studio_first_picture", usable, "s", "<= 3", None, where),
            Claim("studio_first_reconstruction", seen, "s", "<= 30", None, where),
            Claim("studio_click_ms", slow, "ms", "<= 150", None, where),
        ],
        arguments,
    )


if __name__ == "__main__":
    main()
