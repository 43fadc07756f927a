"""A server: the gate, the workers and the queue, joined to an application.

Quick answers have workers of their own, so that a click does not wait for a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import VqkitError
from ..printable import one_line
from .jobs import Jobs
from .limits import Limits
from .security import FAILURE, Access, Gate
from .worker import Worker, Workers


@dataclass
class Core:
    """What every request needs, whatever it asks for. num_quick: processes for quick answers."""

    access: Access
    limits: Limits = field(default_factory=Limits)
    num_quick: int = 1
    quick: Workers = field(init=False)
    jobs: Jobs = field(init=False)
    # Why it ended as it began.
    trouble: VqkitError | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.access.check()
        self.quick = Workers(self.limits, self.num_quick)
        self.jobs = Jobs(Worker(self.limits), self.limits)

    @contextlib.asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Inside, jobs are done; workers end with it."""
        loop = asyncio.create_task(self.jobs.run())
        warming = asyncio.create_task(self._warm())
        try:
            yield
        finally:
            for task in (loop, warming):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await self.quick.stop()
            await self.jobs.worker.stop()

    async def _warm(self) -> None:
        """Let all workers load what they need, so that nobody waits for it later."""
        await self.quick.warm()
        await self.jobs.worker.warm()


def create_app(core: Core, add_routes: Callable[[FastAPI], None], **settings: Any) -> Gate:
    """The application, behind the gate. settings: of FastAPI; without them it describes itself
    nowhere, as its own pages would load scripts from elsewhere.
    """
    hidden = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(**{"lifespan": core.running, **hidden, **settings})
    app.add_exception_handler(VqkitError, _sentence)
    app.add_exception_handler(HTTPException, _status)
    app.add_exception_handler(RequestValidationError, _unfit)
    app.add_exception_handler(Exception, _failure)
    add_routes(app)
    return Gate(app, core.access, core.limits)


async def _sentence(request: Request, error: Exception) -> Response:
    status = getattr(error, "status", 400)
    headers = {"retry-after": "1"} if status == 429 else None
    return JSONResponse({"error": one_line(error)}, status, headers)


async def _status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is nothing here", 405: "that cannot be done here"}
    text = words.get(error.status_code, "that request makes no sense")
    return JSONResponse({"error": text}, error.status_code)


async def _unfit(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "that request makes no sense"}, 422)


async def _failure(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": FAILURE}, 500)


def serve(core: Core, app: Gate, started: Callable[[int], None], grace: int = 3) -> None:
    """Serve until Ctrl-C or SIGTERM, and then finish what was asked before, within `grace` seconds.

    started: called with the port, as soon as requests are answered. VqkitError where the port
    cannot be had, or what the application needs cannot be loaded.
    """
    with _listening(core.access) as listening:
        server = _Server(_config(core, app, grace), started)
        with contextlib.suppress(SystemExit):
            server.run([listening])
    if core.trouble is not None:
        raise core.trouble


def _listening(access: Access) -> socket.socket:
    family = socket.AF_INET6 if ":" in access.address else socket.AF_INET
    # Only of sockets that say that they are TCP does asyncio turn off Nagle's delay, which costs 40
    # ms an answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((access.address, access.port))
    except OSError as error:
        listening.close()
        raise VqkitError(
            f"cannot serve at {access.address}, port {access.port}: {error.strerror or error}; "
            "choose another --port or --address"
        ) from error
    return listening


def _config(core: Core, app: Gate, grace: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        # What fails is said by the gate, and by `serve`.
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=core.limits.connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=grace,
        ws="none",
    )


class _Server(uvicorn.Server):
    """Says when it is there."""

    def __init__(self, config: uvicorn.Config, started: Callable[[int], None]) -> None:
        super().__init__(config)
        self.tell = started

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            self.tell(sockets[0].getsockname()[1])
