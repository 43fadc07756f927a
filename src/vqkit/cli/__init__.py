"""The command line: parse, call one function, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import argparse
import difflib
import io
import itertools
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..errors import VqkitError
from ..printable import one_line
from . import (
    completion,
    compression,
    denoising,
    explaining,
    exporting,
    models,
    pairing,
    priors,
    restyling,
    serving,
    tokens,
)
from .printing import warn

COMMANDS = {
    **models.COMMANDS,
    **compression.COMMANDS,
    **priors.COMMANDS,
    **pairing.COMMANDS,
    **denoising.COMMANDS,
    **restyling.COMMANDS,
    **explaining.COMMANDS,
    **exporting.COMMANDS,
    **tokens.COMMANDS,
    **serving.COMMANDS,
    **completion.COMMANDS,
}
# Of a process that wrote to a pipe that nobody reads any more: 128 + SIGPIPE, as shells have it.
BROKEN_PIPE = 141

EPILOG = """examples:
  vqkit train photos --out runs/photos             train on a folder of images
  vqkit train emoji --out runs/emoji --minutes 5 model.quantizer.codebook_size=256
  vqkit reconstruct runs/photos cat.jpg --out cats
  vqkit compress runs/photos cat.jpg --out cat.vq
  vqkit train-prior runs/photos photos             then it makes images of its own:
  vqkit generate runs/photos --num 64 --out grid.png

DATA is a folder of images, one image, IDX, .npy, .npz, .parquet, or built in: emoji, \
fashion-mnist, digits."""


class Parser(argparse.ArgumentParser):
    """Suggests the nearest command or option when one is misspelt."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice: '" in message:
            word, *known = re.findall("'([^']*)'", message)
            message = message.replace("argument command: invalid choice:", "unknown command")
            message += _did_you_mean(word, known)
        raise VqkitError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point.

    Returns the exit status: 0, 1 when some inputs failed, 2 for a mistake, 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _share_cores()
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        # A file's name may be of bytes that the terminal has no letters for.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        options, rest = build_parser().parse_known_args(
            [word for word in arguments if word != "--debug"]
        )
        if options.command is None:
            build_parser().print_help()
            return 0
        _check_rest(options, rest)
        status = int(COMMANDS[options.command][0](options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever reads has enough. The interpreter would complain once more when it closes the
        # stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        warn("vqkit: interrupted")
        return 130
    except VqkitError as error:
        if debug:
            raise
        warn(f"vqkit: {one_line(error)}")
        return 130 if type(error).__name__ == "Interrupted" else 2
    except (OSError, MemoryError) as error:
        if debug:
            raise
        warn(f"vqkit: {one_line(_told(error))} (--debug shows where)")
        return 2


def _share_cores() -> None:
    """Let PyTorch's threads sleep soon when they wait for one another (read when it is loaded).

    GNU's OpenMP has them spin for as long as 300,000 turns, which keeps the core from what they
    wait for where there is other work: beside one more process training took 18 times as long. On
    idle cores a thousand turns are as fast (docs/experiments.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _told(error: OSError | MemoryError) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"cannot use {error.filename}: {error.strerror}"
    return str(error)


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="vqkit",
        description="Train a discrete autoencoder on your own files, see that it is healthy, and "
        "use it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vqkit {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=Parser)
    for name, (_, text, add_arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        add_arguments(command)
        command.set_defaults(known=[action.option_strings for action in command._actions])
    return parser


def _check_rest(options: argparse.Namespace, rest: list[str]) -> None:
    """What argparse left over: settings behind options are settings, all else is a mistake."""
    takes_settings = hasattr(options, "settings")
    settings = []
    for word in rest:
        if takes_settings and "=" in word and not word.startswith("-"):
            settings.append(word)
            continue
        known = ["--debug", *itertools.chain(*options.known)]
        raise VqkitError(f"unknown argument '{word}'{_did_you_mean(word, known)}")
    if settings:
        options.settings = [*options.settings, *settings]


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not close:
        return ""
    return f", did you mean '{close[0]}'?"
