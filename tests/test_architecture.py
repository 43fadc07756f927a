"""The import arrows of docs/design.md, and what must not be imported at all."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vqkit

from . import processes

PACKAGE = Path(vqkit.__file__).parent

ALLOWED = {
    part: set(allowed.split())
    for part, allowed in {
        "errors": "",
        "files": "",
        "machine": "",
        "metrics": "",
        "printable": "",
        "shapes": "",
        "tables": "errors",
        "config": "errors",
        "settings": "config signals",
        "coding": "errors machine",
        "data": "errors files machine shapes tables",
        "model": "config errors machine settings shapes",
        "nn": "config errors model",
        "tokens": "errors files tables",
        "prior": "config errors model settings",
        "signals": "config data errors files machine model settings shapes tables",
        "artifact": "coding config data errors files model printable prior settings shapes signals",
        "training": "artifact coding config data errors files metrics model prior settings signals",
        "apps": "artifact coding config data errors metrics model prior",
        "report": "errors files printable",
        "export": "artifact errors files",
        "pipelines": "apps artifact coding config data errors files machine model prior report "
        "settings signals tables tokens training",
        "web": "apps artifact coding config data errors files machine model pipelines printable "
        "prior report settings signals training",
        "cli": "apps artifact coding config data errors export files pipelines printable prior "
        "report settings signals tokens training web",
        "__main__": "cli",
        "__init__": "artifact coding errors pipelines report settings training",
    }.items()
}
# Parts that are the same for every kind of signal. What is of images lies in signals/image, what
# draws in report.
OF_ANY_SIGNAL = (
    "apps",
    "artifact",
    "cli",
    "coding",
    "config",
    "data",
    "model",
    "pipelines",
    "prior",
    "training",
    "web",
)


def imported(file: Path) -> set[str]:
    """Top-level parts of vqkit that a file imports, wherever the statement stands; '' is the
    package itself.
    """
    found = set()
    depth = len(file.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = (
                [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            )
            found |= {name for name in names if not name.startswith("__")}
        elif (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith("vqkit")
            and node.level == 0
        ):
            found.add(node.module.partition(".")[2].split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.partition(".")[2]
                for alias in node.names
                if alias.name.split(".")[0] == "vqkit"
            }
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_import_arrows(file):
    part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert imported(file) - {part} <= ALLOWED[part]


def of_any_signal() -> list[Path]:
    return [file for part in OF_ANY_SIGNAL for file in (PACKAGE / part).rglob("*.py")]


def names_in(file: Path) -> set[str]:
    """Every identifier of a file: variables, arguments, attributes, functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        for field in ("id", "arg", "attr", "name"):
            if isinstance(getattr(node, field, None), str):
                found.add(getattr(node, field))
    return found


@pytest.mark.parametrize("file", of_any_signal(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_what_serves_every_signal_knows_none(file):
    assert "PIL" not in {
        name.split(".")[0]
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    found = names_in(file)
    assert not {"height", "image_size", "pixels", "rgb", "psnr_of_images"} & found
    assert not {name for name in found if name.startswith("image_") and name != "image_dir"}


def test_only_the_registry_and_the_settings_name_a_signal():
    inside = {"registry.py", "__init__.py", "base.py"}
    for file in FILES:
        relative = file.relative_to(PACKAGE)
        if relative.parts[0] == "signals" and (
            len(relative.parts) > 2 or relative.name not in inside
        ):
            continue
        if re.search(r"\bsignals\.image\b|from \.image\b", file.read_text()):
            assert str(relative) in {"settings.py", "signals/registry.py"}


def test_apps_do_not_import_each_other():
    for file in (PACKAGE / "apps").glob("*.py"):
        relative = [
            node
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom)
        ]
        assert not [node for node in relative if node.level == 1], file


def test_torchvision_torchaudio_and_pickle_are_nowhere():
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {
                "torchvision",
                "torchaudio",
                "pickle",
            }, file


HELP = "import vqkit.cli\ntry: vqkit.cli.main(['--help'])\nexcept SystemExit: pass"


@pytest.mark.parametrize("statement", ["import vqkit", HELP])
def test_torch_is_not_loaded_before_it_is_needed(statement):
    check = (
        "import sys\n"
        "sys.exit(str({'torch', 'numpy', 'PIL', 'pydantic'} & set(sys.modules) or '') or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{check}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_fabric_sees_the_version_of_torchmetrics_without_importing_it():
    statement = (
        "import sys\n"
        "import vqkit.training.fabric\n"
        "from lightning_fabric.utilities import imports\n"
        "assert 'torchmetrics' not in sys.modules and 'scipy.signal' not in sys.modules\n"
        "assert imports._TORCHMETRICS_GREATER_EQUAL_1_0_0"
    )
    done = processes.run(["-c", statement])
    assert done.returncode == 0, done.stderr


def test_public_names_exist():
    for name in vqkit.__all__:
        assert getattr(vqkit, name) is not None
    with pytest.raises(AttributeError):
        _ = vqkit.nothing
