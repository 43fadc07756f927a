"""Every script can be imported without the packages of its peers, and knows the options that `make
bench` gives.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

from . import FOLDER, benchmark

SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
TOOLS = sorted((FOLDER.parent / "scripts").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_takes_the_options_of_make_bench(name, capsys):
    parser = benchmark(name).PARSER
    given = parser.parse_args(["--quick", "--json", "figures.json"])
    assert given.quick and given.json == Path("figures.json")
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--help"])
    assert stopped.value.code == 0
    # Claims are found by their names in what the script says of itself.
    assert f"benchmarks/{name}.py" in capsys.readouterr().out


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_a_tool_can_be_imported_and_does_nothing_then(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location(f"tool_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look their own module up.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert callable(module.main)
    assert not list(tmp_path.iterdir())
