"""Verbs that serve: studio, serve."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import VqkitError
from . import arguments
from .printing import Commands, say

# Where new runs go, and models are looked for, unless the user says so.
FOLDER = "runs"
PORT = arguments.Number(int, 0, 65535)
WORKERS = arguments.Number(int, 1, 256)
TOKEN = "VQKIT_TOKEN"
# Of `serve`: seconds to finish what was asked before it ends, and connections, beyond which
# the answer is 503; long before that requests wait, and are refused with 429.
GRACE = 30
CONNECTIONS = 2048


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
    parser.add_argument(
        "--token",
        metavar="WORD",
        default=os.environ.get(TOKEN),
        help=f"what clients must have to be answered; {TOKEN} of the environment does not show in "
        "lists of processes",
    )


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
    workspace = Workspace(Path(options.folder), limits)
    app = create_studio(core, workspace)

    def started(port: int) -> None:
        word = "" if options.token is None else f"/?token={options.token}"
        say(f"studio: {_url(options.address, port)}{word}  (Ctrl-C ends it)", flush=True)
        if workspace.has_only_files():
            say(
                f"{options.folder} holds files and no model: models are looked for there; drop the "
                f"files on the page, or train on them with vqkit train {options.folder} --out RUN",
                flush=True,
            )
        if not core.access.is_local:
            say("others can reach it: whoever has the token reads and writes there", flush=True)

    serve(core, app, started)
    return 0


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="DIR", help="an artifact, or hf://user/name")
    add_address(parser)
    parser.add_argument(
        "--host",
        metavar="NAME",
        action="append",
        default=[],
        help="name under which clients reach it, such as that of a proxy; may be given again",
    )
    parser.add_argument(
        "--workers",
        type=WORKERS,
        default=1,
        metavar="N",
        help="processes that compute, which share the cores and hold the model each (default: 1)",
    )


def _serve(options: argparse.Namespace) -> int:
    check_installed()
    from ..artifact.hub import is_hub_name
    from ..web.api import create_api
    from ..web.core import Core, serve
    from ..web.limits import Limits
    from ..web.security import Access

    folder = Path(options.model)
    if is_hub_name(options.model):
        # It loads PyTorch, which the process that answers does without.
        from ..artifact.store import artifact_folder

        folder = artifact_folder(options.model)
    names = tuple(name.lower() for name in options.host)
    access = Access(options.address, options.port, options.token, names)
    core = Core(access, Limits(connections=CONNECTIONS), options.workers)
    app = create_api(core, str(folder.resolve()))

    def started(port: int) -> None:
        say(f"serve: {_url(options.address, port)}/openapi.json  (Ctrl-C ends it)", flush=True)

    serve(core, app, started, GRACE)
    return 0


def _url(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}"


def check_installed() -> None:
    """VqkitError where what serves is not installed."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise VqkitError(
            "servers need FastAPI, uvicorn and prometheus-client: pip install 'vqkit[studio]'"
        ) from error


COMMANDS: Commands = {
    "studio": (
        _studio,
        "a page in the browser for all of this: data, training, codes, files",
        _studio_arguments,
    ),
    "serve": (
        _serve,
        "a model over HTTP, for programs: encode, decode, compress, decompress, generate",
        _serve_arguments,
    ),
}
