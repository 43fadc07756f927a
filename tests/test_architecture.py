"""The import arrows of docs/design.md, and what must not be imported at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vqkit

PACKAGE = Path(vqkit.__file__).parent

ALLOWED = {
    part: set(allowed.split())
    for part, allowed in {
        "errors": "",
        "files": "",
        "config": "errors",
        "data": "config errors files",
        "model": "config errors",
        "metrics": "",
        "coding": "errors",
        "untrusted": "errors",
        "codec": "coding errors files",
        "artifact": "codec coding config data errors files forms metrics model rates untrusted",
        "forms": "data",
        "rates": "coding errors model",
        "reading": "artifact codec coding errors",
        "training": "artifact coding config data errors files metrics model",
        "apps": "artifact codec coding config data errors files metrics model rates reading untrusted",
        "report": "errors files",
        "run": "apps artifact config data errors files metrics rates report training",
        "run_prior": "apps artifact config data errors files model report training",
        "cli": "apps artifact coding config data errors files model report run run_prior training",
        "__main__": "cli",
        "__init__": "artifact coding config errors run run_prior",
    }.items()
}


def imported(file: Path) -> set[str]:
    """Top-level parts of vqkit that a file imports, wherever the statement stands; '' is the package itself."""
    found = set()
    depth = len(file.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            found |= {name for name in names if not name.startswith("__")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vqkit") and node.level == 0:
            found.add(node.module.partition(".")[2].split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.split(".")[0] == "vqkit"}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_import_arrows(file):
    part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert imported(file) - {part} <= ALLOWED[part]


def test_apps_do_not_import_each_other():
    for file in (PACKAGE / "apps").glob("*.py"):
        relative = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        assert not [node for node in relative if node.level == 1], file


def test_torchvision_torchaudio_and_pickle_are_nowhere():
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"torchvision", "torchaudio", "pickle"}, file


HELP = "import vqkit.cli\ntry: vqkit.cli.main(['--help'])\nexcept SystemExit: pass"


@pytest.mark.parametrize("statement", ["import vqkit", HELP])
def test_torch_is_not_loaded_before_it_is_needed(statement):
    check = "import sys\nsys.exit(str({'torch', 'numpy', 'PIL', 'pydantic'} & set(sys.modules) or '') or 0)"
    done = subprocess.run([sys.executable, "-c", f"{statement}\n{check}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_exist():
    for name in vqkit.__all__:
        assert getattr(vqkit, name) is not None
    with pytest.raises(AttributeError):
        _ = vqkit.nothing
