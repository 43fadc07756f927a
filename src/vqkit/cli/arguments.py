"""Arguments that several commands take, each said once, and how a command that trains uses its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ..artifact import Artifact


def add_artifact(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument("artifact", metavar="DIR", help="folder of a trained model" + more)


def add_data(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument("data", metavar="DATA", help="folder, file or built-in set" + more)


def add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILES", help="pictures, or folders of them")


def add_settings(
    parser: argparse.ArgumentParser, metavar: str = "key.subkey=value", text: str = "settings over the recipe's"
) -> None:
    parser.add_argument("settings", nargs="*", default=[], metavar=metavar, help=text)


def add_recipe(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--recipe", metavar="NAME|FILE.yaml", help=text)


def add_run(parser: argparse.ArgumentParser, default_recipe: str) -> None:
    """What a run starts from, for commands that train."""
    add_recipe(parser, f"see 'vqkit recipes'; default: by DATA, else {default_recipe}")
    parser.add_argument("--resume", action="store_true", help="go on with the run that stopped in DIR")


def announce_loading() -> None:
    """Before the imports of training, which take seconds; once, however many ranks there are."""
    if int(os.environ.get("RANK", "0")) == 0:
        print("loading ...", file=sys.stderr)


def run_training(
    train: Callable[..., Artifact | None], paths: tuple[str, str], options: argparse.Namespace
) -> Artifact | None:
    """`train` (of an autoencoder or a prior) on its two paths, as the options say. None on ranks but the first."""
    from ..training.engine import leave_together
    from ..training.progress import display_for_terminal

    display = display_for_terminal()
    artifact = train(*paths, options.recipe, options.settings, resume=options.resume, display=display)
    leave_together()
    return artifact


def picture(artifact: Artifact, path: str) -> np.ndarray:
    """The file as the model takes it, uint8 (H, W, C). VqkitError when it cannot be read."""
    from ..data import load_picture

    return load_picture(path, artifact.channels, artifact.config.data.background, artifact.value_range)
