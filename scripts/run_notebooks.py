"""Run the notebooks of examples/notebooks and hold them against what is committed.

    python scripts/run_notebooks.py [--write] [NAME ...]

A notebook is a pair: NAME.py, which people edit, and NAME.ipynb, made from it by jupytext, with its
outputs. Without --write every one is run anew in an empty folder, two at a time, and must say what
the committed one says: the same words, and numbers that differ by at most TOLERANCE. What is
compared is what it prints; images, progress and objects are not. With --write the new outputs are
kept. Exit status 1 when anything differs, or a notebook is larger than MAX_BYTES.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
MAX_BYTES = 400_000
# Seconds of a cell, on two slow cores.
TIMEOUT = 300
# Numbers may differ by this share, or by so much of what they are. Training adds floats in another
# order on another processor, and a run of a few hundred steps is not settled.
TOLERANCE = 0.10
SMALLEST = 0.02
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


def source_of(name: str) -> Any:
    """The notebook of a script, without outputs."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def run(name: str) -> Any:
    """The notebook with fresh outputs. CellExecutionError with what it raised."""
    notebook = source_of(name)
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(FOLDER / "look.py", Path(folder) / "look.py")
        place = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=TIMEOUT, resources=place).execute()
    return tidy(notebook)


def tidy(notebook: Any) -> Any:
    """Without times, displays' numbers and what goes to the error stream."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        kept = []
        for output in cell.get("outputs", []):
            output.pop("transient", None)
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = smaller(output["data"]["image/png"])
            if output.get("name") != "stderr":
                kept.append(output)
        if cell.cell_type == "code":
            cell["outputs"] = kept
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return notebook


def smaller(coded: str) -> str:
    """A PNG, in base64, with a palette: a third of the bytes, and nobody sees it."""
    image = Image.open(io.BytesIO(base64.b64decode(coded))).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def printed(notebook: Any) -> list[str]:
    """What each code cell printed."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            streams = [one for one in cell.outputs if one.output_type == "stream"]
            texts.append("".join(one.text for one in streams if one.name == "stdout"))
    return texts


def is_near(found: float, expected: float) -> bool:
    return abs(found - expected) <= max(TOLERANCE * abs(expected), SMALLEST)


def differences(found: Any, expected: Any) -> list[str]:
    """What two runs of one notebook do not agree in, in words."""
    if [cell.source for cell in found.cells] != [cell.source for cell in expected.cells]:
        return ["its cells are not those of the script: write it anew"]
    said = []
    for number, (new, old) in enumerate(zip(printed(found), printed(expected), strict=True)):
        where = f"code cell {number}"
        if words(new) != words(old):
            said.append(f"{where}: {words(new)!r} instead of {words(old)!r}")
            continue
        for one, other in zip(numbers(new), numbers(old), strict=True):
            if not is_near(one, other):
                said.append(f"{where}: {one:g} instead of {other:g}")
    return said


def words(text: str) -> str:
    """A text with every number replaced, and spaces that only align it made one."""
    return re.sub(r"\s+", " ", NUMBER.sub("#", text)).strip()


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def check(name: str, is_writing: bool) -> list[str]:
    """Run one; what is wrong with it."""
    target = FOLDER / f"{name}.ipynb"
    begun = time.monotonic()
    found = run(name)
    print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    text = nbformat.writes(found, version=4)
    if is_writing:
        target.write_text(text + "\n", encoding="utf-8")
    size = target.stat().st_size
    said = differences(found, nbformat.read(target, as_version=4))
    if size > MAX_BYTES:
        said.append(f"{size:,} bytes, more than {MAX_BYTES:,}")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=names(), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="keep the new outputs")
    options = parser.parse_args()
    begun = time.monotonic()
    # One thread each, as many notebooks at once as there are cores: threads that wait by spinning
    # take the core from the other notebook, and one thread adds in the same order anywhere.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(lambda name: check(name, options.write), options.names))
    for name, said in zip(options.names, found, strict=True):
        for line in said:
            print(f"{name}: {line}", file=sys.stderr)
    print(f"{len(options.names)} notebooks in {time.monotonic() - begun:.0f} s")
    return int(any(found))


if __name__ == "__main__":
    sys.exit(main())
