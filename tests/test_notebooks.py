"""Notebooks and their committed outputs; `make notebooks` runs them all."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

ROOT = Path(__file__).parents[1]


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run", ROOT / "scripts" / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebooks = _module()


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)


def test_there_are_seven_and_no_other_files():
    files = {path.name for path in notebooks.FOLDER.iterdir() if path.is_file()}
    names = notebooks.names()
    assert len(names) == 7
    assert files == {"look.py", *(f"{name}.{end}" for name in names for end in ("py", "ipynb"))}


@pytest.mark.parametrize("name", notebooks.names())
def test_a_pair_is_in_step_small_and_has_outputs(name):
    found = committed(name)
    sources = [cell.source for cell in notebooks.source_of(name).cells]
    assert [cell.source for cell in found.cells] == sources
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size <= notebooks.MAX_BYTES
    outputs = [output for cell in found.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
    assert sum(map(len, map(notebooks.numbers, notebooks.printed(found)))) >= 4


def printing(text: str) -> nbformat.NotebookNode:
    """A notebook that printed a text."""
    output = nbformat.v4.new_output("stream", name="stdout", text=text)
    cell = nbformat.v4.new_code_cell("say()", outputs=[output], id="one")
    return nbformat.v4.new_notebook(cells=[cell])


@pytest.mark.parametrize(
    ("text", "differs"),
    [
        ("vq  20.00 dB, 512 codes", False),
        ("vq 21.9 dB, 470 codes", False),
        ("vq 22.1 dB, 512 codes", True),
        ("vq 20.00 dB, 450 codes", True),
        ("vq -20.00 dB, 512 codes", True),
        ("fsq 20.00 dB, 512 codes", True),
        ("vq 20.00 dB", True),
        ("", True),
    ],
)
def test_other_numbers_and_words_are_told(text, differs):
    said = notebooks.differences(printing(text), printing("vq 20.00 dB, 512 codes"))
    assert bool(said) == differs


def test_a_changed_cell_is_told():
    other = printing("1 code")
    other.cells[0].source = "say(2)"
    assert "not those of the script" in notebooks.differences(other, printing("1 code"))[0]


def test_a_bar_lives_in_one_output_of_a_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    (tmp_path / "look.py").touch()
    (tmp_path / "1.py").write_text(
        "# %%\nimport vqkit\ndisplay = vqkit.live()\ndisplay.start('begun')\n"
        "display.update(0.5, {'step': 3, 'psnr': 20.0})\ndisplay.message('<b>half</b>')\n"
        "display.stop()\nprint(41 + 1)\n",
        encoding="utf-8",
    )
    found = notebooks.run("1")
    assert notebooks.printed(found) == ["42\n"]
    (shown,) = [one for one in found.cells[0].outputs if one.output_type == "display_data"]
    page = shown["data"]["text/html"]
    assert "value='0.500'" in page and "PSNR 20.00 dB" in page and "begun" in page
    assert "&lt;b&gt;half" in page


def test_elsewhere_progress_is_lines():
    import vqkit
    from vqkit.training.progress import Lines

    assert isinstance(vqkit.live(), Lines)
