"""Claims cli_hops, quantizer_files, signal_proof_files: from a command to the model, and what
additions touch.

    python benchmarks/structure.py [--quick] [--seed 0] [--json FILE]

cli_hops: calls of functions of ours that lie between `vqkit.cli.main` and the first call of
`Autoencoder.forward`, both ends' steps counted, while `vqkit train emoji` runs; cli_files: the
files that they are in. quantizer_files: files that the walk-through of CONTRIBUTING.md edits to add
a quantizer, which a test follows to the letter. signal_proof_files: files outside of signals/,
recipes/ and tests/ that change where tests/signals adds a second kind of signal.
"""

from __future__ import annotations

import filecmp
import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.claims import Claim, machine, options, report

PARSER = options(__doc__)

ROOT = Path(__file__).resolve().parents[1]
# Runs a training up to the first forward pass and prints the functions of ours that are active
# then.
TRACE = """
import json, sys
from pathlib import Path
import vqkit
from vqkit import cli

package = Path(vqkit.__file__).parent
folder = sys.argv[1]

class Reached(BaseException):
    pass

def watch(frame, event, argument):
    code = frame.f_code
    if event != "call" or code.co_qualname != "Autoencoder.forward":
        return
    sys.setprofile(None)
    found = []
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if package in file.parents:
            found.append((str(file.relative_to(package)), frame.f_code.co_qualname))
        frame = frame.f_back
    print(json.dumps(found[::-1]))
    raise Reached

sys.setprofile(watch)
try:
    cli.main(["train", "emoji", "--out", folder, "train.steps=2", "coder.steps=0"])
except Reached:
    pass
"""


def calls() -> list[tuple[str, str]]:
    """File and function of every active call of ours, from the command line to the model."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TRACE, f"{folder}/run"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [tuple(call) for call in json.loads(done.stdout.splitlines()[-1])]
    start = next(index for index, (_, name) in enumerate(found) if name == "main")
    return found[start:]


def quantizer_files() -> list[str]:
    """Files under the headings of the walk-through."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Adding a quantizer")[1]
    return sorted(set(re.findall(r"^# (src/\S+)$", text, re.MULTILINE)))


class _Folders:
    """What the test's fixture asks pytest for: new folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mktemp(self, name: str) -> Path:
        (self.folder / name).mkdir()
        return self.folder / name


def signal_files() -> list[str]:
    """Files of the package that are changed, or new, outside of the folders that a signal may
    touch.
    """
    sys.path.insert(0, str(ROOT))
    test = importlib.import_module("tests.signals.test_sequence")
    sys.path.remove(str(ROOT))
    fixture = test.house
    make = (
        fixture._get_wrapped_function()
        if hasattr(fixture, "_get_wrapped_function")
        else fixture.__wrapped__
    )
    with tempfile.TemporaryDirectory() as folder:
        changed = make(_Folders(Path(folder))) / "src" / "vqkit"
        files = {path.relative_to(changed) for path in changed.rglob("*") if path.is_file()}
        outside = [
            file
            for file in files
            if file.parts[0] not in ("signals", "recipes") and file.suffix != ".pyc"
        ]
        found = [file for file in outside if not _same(test.PACKAGE / file, changed / file)]
    return sorted(map(str, found))


def _same(one: Path, other: Path) -> bool:
    return one.exists() and filecmp.cmp(one, other, shallow=False)


def main() -> None:
    arguments = PARSER.parse_args()
    found = calls()
    for file, name in found:
        print(f"{file:<34} {name}")
    edited = quantizer_files()
    touched = signal_files()
    settings = {**machine(), "calls": found, "quantizer_files": edited, "signal_files": touched}
    report(
        [
            Claim("cli_hops", len(found) - 1, "calls", "<= 6", None, settings),
            Claim(
                "cli_files", len({file for file, _ in found}), "files", "reported", None, settings
            ),
            Claim("quantizer_files", len(edited), "files", "<= 3", None, settings),
            Claim("signal_proof_files", len(touched), "files", "<= 2", None, settings),
        ],
        arguments,
    )


if __name__ == "__main__":
    main()
