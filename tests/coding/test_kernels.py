"""One place knows numba, the modules of `coding` stand in one order, and none of them knows a
signal.
"""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import vqkit.coding
from vqkit.coding import kernels

PACKAGE = Path(vqkit.coding.__file__).parent
FILES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix(): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(name):
    """Modules of the package that one imports, wherever the statement stands, and those that are
    not of it.
    """
    inside, outside = set(), set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            outside.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            folder = FILES[name].parents[node.level - 1]
            if not folder.is_relative_to(PACKAGE):
                continue
            module = (
                folder.joinpath(*(node.module or "").split(".")).relative_to(PACKAGE).as_posix()
            )
            below = [f"{module}/{alias.name}".removeprefix("./") for alias in node.names]
            inside |= {one for one in [module, *below] if one in FILES}
    return inside, outside


def test_imports_run_in_no_circle():
    list(TopologicalSorter({name: imports(name)[0] for name in FILES}).static_order())


def test_only_one_module_imports_numba_and_none_torch():
    of = {name: imports(name)[1] for name in FILES}
    assert [name for name, found in of.items() if "numba" in found] == ["kernels"]
    assert not [name for name, found in of.items() if found & {"torch", "PIL", "safetensors"}]


@pytest.mark.parametrize("name", FILES)
def test_no_module_knows_a_signal(name):
    text = FILES[name].read_text()
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(ast.parse(text)) if isinstance(node, ast.arg)}
    assert not {one for one in names if re.search("height|pixel|image|image", one.lower())}
    assert not re.search(r"\b(pixels?|images?|images?|height)\b", text.lower())


def test_numba_is_not_imported_before_codes_are():
    script = """
import sys
from vqkit.coding import FileHeader, MixingCoder, Stage, describe, write_file
describe(write_file(FileHeader((1, 1), 1, 1, None), [Stage(0, b"")]))
assert "numba" not in sys.modules
MixingCoder((2,)).decode([[b""]], (1,))
assert "numba" in sys.modules
"""
    pytest.importorskip("numba")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_machine_code_of_other_sources_is_not_used(monkeypatch):
    """numba finds it by the name of a function, which sums up all sources: types and callees may
    have changed.
    """
    pytest.importorskip("numba")
    if not kernels.usable():
        pytest.skip("numba may not compile here")

    def names(digest):
        def double(number):
            return 2 * number

        monkeypatch.setattr(kernels, "_digest", lambda: digest)
        return kernels.compiled(double)._cache._impl.filename_base

    assert names("one") == names("one") != names("another")
