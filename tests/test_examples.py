"""The scripts of examples/ go through, and say what they promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from .processes import start

EXAMPLES = Path(__file__).parents[1] / "examples"
SAID = {
    "plain_loop": "PSNR",
    "lightning_module": "codes in use",
    "accelerate_loop": "codes in use",
    "sequences": "4 stages: error",
    "volumes": "of 1000",
}


def test_every_example_is_here_and_short():
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")}
    # That of ONNX files has a test beside what writes them.
    assert set(scripts) == {*SAID, "onnx_without_torch"}
    assert all(text.count("\n") <= 80 for text in scripts.values())


@pytest.mark.parametrize("name", SAID)
def test_an_example_goes_through(name):
    path = str(EXAMPLES / f"{name}.py")
    code = (
        f"import runpy, sys; sys.argv = [{path!r}, '--steps', '2']; "
        f"sys.path.insert(0, {str(EXAMPLES)!r}); runpy.run_path({path!r}, run_name='__main__')"
    )
    child = start(["-c", code])
    out, error = child.communicate(timeout=120)
    assert child.returncode == 0, error
    assert SAID[name] in out
