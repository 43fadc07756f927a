"""Commands that bring models elsewhere: export."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import VqkitError
from . import arguments
from .printing import Commands, say

# As vqkit.export.formats has them, which imports torch.
KINDS = ("onnx", "torch-export")


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="DIR", help="folder of a trained model")
    parser.add_argument("--to", required=True, choices=KINDS, help="format of the files")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="where they go; must be new or empty"
    )


def _export(options: argparse.Namespace) -> int:
    from ..export.formats import export

    folder = Path(options.out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise VqkitError(f"{folder} is not empty; choose another --out")
    for path in export(arguments.load_model(options.artifact, "cpu"), options.to, folder):
        say(str(path))
    return 0


COMMANDS: Commands = {
    "export": (
        _export,
        "write encoder and decoder as ONNX or torch.export files, which run without vqkit",
        _export_arguments,
    ),
}
