"""Commands that bring models elsewhere: export, push."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import VqkitError
from . import arguments, pairing
from .printing import Commands, say, warn

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


def _push_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="DIR", help="folder of a trained model, or of a pair")
    parser.add_argument("repository", metavar="user/name", help="where it goes on the hub")
    parser.add_argument("--private", action="store_true", help="if the repository is made")
    parser.add_argument("--revision", metavar="BRANCH", help="a branch that is there")
    arguments.add_licence(parser)


def _push(options: argparse.Namespace) -> int:
    from ..artifact.hub import own_folder, push
    from ..pipelines.licence import name_licence

    folder = own_folder(options.artifact)
    if options.licence is not None:
        name_licence(folder, options.licence)
    # What cannot be loaded is of no use to anybody.
    if pairing.is_pair(folder):
        licences = pairing.licences(folder)
    else:
        licences = {folder: arguments.load_model(folder, "cpu").artifact.licence}
    for where, licence in licences.items():
        if licence is None:
            warn(
                f"vqkit: {where} has no licence, so that others may not use it; name one: vqkit "
                f"check {where} --licence ID"
            )
    address = push(folder, options.repository, private=options.private, revision=options.revision)
    revision = f"@{options.revision}" if options.revision else ""
    say(f"{address}\nvqkit.load('hf://{options.repository}{revision}')")
    return 0


COMMANDS: Commands = {
    "push": (_push, "upload a model, or a pair, to the Hugging Face hub", _push_arguments),
    "export": (
        _export,
        "write encoder and decoder as ONNX or torch.export files, which run without vqkit",
        _export_arguments,
    ),
}
