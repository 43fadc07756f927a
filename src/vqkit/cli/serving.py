"""Verbs that serve: studio."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import VqkitError
from . import arguments
from .printing import Commands, say

# Where new runs go, and models are looked for, unless the user says so.
FOLDER = "runs"
PORT = arguments.Number(int, 0, 65535)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Where a server is reached, and by whom."""
    parser.add_argument(
        "--port", type=PORT, default=8000, help="default: 8000; 0 = one that is free"
    )
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="default: 127.0.0.1, this machine alone; any other needs --token",
    )
    parser.add_argument("--token", metavar="WORD", help="what clients must have to be answered")


def _studio_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        default=FOLDER,
        metavar="DIR",
        help=f"folder with trained models, to which new ones are added (default: {FOLDER})",
    )
    add_address(parser)


def _studio(options: argparse.Namespace) -> int:
    check_installed()
    from ..web.core import Core, serve
    from ..web.limits import Limits
    from ..web.security import Access
    from ..web.studio import create_studio
    from ..web.workspace import Workspace

    limits = Limits()
    core = Core(Access(options.address, options.port, options.token), limits)
    app = create_studio(core, Workspace(Path(options.folder), limits))

    def started(port: int) -> None:
        host = f"[{options.address}]" if ":" in options.address else options.address
        word = "" if options.token is None else f"/?token={options.token}"
        say(f"studio: http://{host}:{port}{word}  (Ctrl-C ends it)", flush=True)
        if not core.access.is_local:
            say("others can reach it: whoever has the token reads and writes there", flush=True)

    serve(core, app, started)
    return 0


def check_installed() -> None:
    """VqkitError where what serves is not installed."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise VqkitError(
            "the studio needs FastAPI and uvicorn: pip install 'vqkit[studio]'"
        ) from error


COMMANDS: Commands = {
    "studio": (
        _studio,
        "a page in the browser for all of this: data, training, codes, files",
        _studio_arguments,
    ),
}
