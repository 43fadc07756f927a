"""`vqkit serve`: one model over HTTP, for programs.

Files go in and out as bodies, codes as JSON. Encoding is done in batches of whatever waits, the
rest one by one, as many at once as there are workers; what waits is bounded, and more is refused
with 429. /openapi.json describes it, /metrics is for Prometheus.
"""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.process_collector import ProcessCollector
from starlette.requests import Request
from starlette.responses import Response

from .. import __version__
from .batches import Batches
from .core import Core, create_app
from .given import Given
from .limits import Refused
from .security import Gate
from .uploads import read_bytes, read_json
from .verbs import drawing_of
from .worker import Answer

# Codes of an item that are decoded at once.
MAX_CODES = 1 << 20
BINARY = "application/octet-stream"


def create_api(core: Core, folder: str) -> Gate:
    """The application that serves the model of a folder."""
    api = Api(core, folder)

    @contextlib.asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        async with core.running(app), api.running():
            yield

    about = {
        "title": "vqkit serve",
        "version": __version__,
        "summary": "A discrete autoencoder: files to codes and back",
        "openapi_url": "/openapi.json",
        "lifespan": running,
    }
    return create_app(core, api.add_routes, **about)


class Metrics:
    """What Prometheus is told."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "vqkit_requests", "Requests", ["verb", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "vqkit_request_seconds", "Seconds until the answer", ["verb"], registry=self.registry
        )
        self.batches = Histogram(
            "vqkit_batch_files",
            "Files that were encoded together",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        gauge = Gauge("vqkit_waiting", "Requests that wait", registry=self.registry)
        gauge.set_function(waiting)

    @contextlib.contextmanager
    def measured(self, verb: str):  # type: ignore[no-untyped-def]
        """Count what is done inside, by how it ends."""
        began = time.perf_counter()
        status = 500
        try:
            yield
            status = 200
        except Refused as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            # The client went away.
            status = 499
            raise
        finally:
            self.requests.labels(verb, status).inc()
            self.seconds.labels(verb).observe(time.perf_counter() - began)


class Api:
    """The routes."""

    def __init__(self, core: Core, folder: str) -> None:
        self.core = core
        self.limits = core.limits
        self.model = {"model": folder}
        bounds = {"positions": self.limits.positions, "seconds": self.limits.seconds}
        self.reading = {**self.model, **bounds}
        self.metrics = Metrics(lambda: self.num_waiting)
        self.batches = Batches(
            core.quick, "encode_files", self.reading, self.limits, self.metrics.batches.observe
        )
        self.about: dict[str, Any] = {}
        self._num_asking = 0

    @property
    def num_waiting(self) -> int:
        return self.batches.num_waiting + self._num_asking

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside, files are encoded; the model is loaded first. Refused if it cannot be."""
        loading = self.core.quick.each("about", self.model, self.limits.job_seconds)
        try:
            self.about = (await loading).result
        except Refused as error:
            self.core.trouble = error
            raise
        loop = asyncio.create_task(self.batches.run())
        try:
            yield
        finally:
            loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loop

    def add_routes(self, app: FastAPI) -> None:
        app.get("/health", summary="Whether requests are answered")(self.health)
        app.get("/model", summary="What the model is")(self.describe)
        app.get("/metrics", summary="For Prometheus", response_class=Response)(self.show_metrics)
        for path, answer, summary, body, gives in (
            ("/encode", self.encode, "A file to codes", BINARY, "application/json"),
            ("/decode", self.decode, "Codes to a file", "application/json", BINARY),
            ("/compress", self.compress, "A file to a .vq file", BINARY, BINARY),
            ("/decompress", self.decompress, "A .vq file to a file", BINARY, BINARY),
            ("/generate", self.generate, "New items", "application/json", "application/json"),
        ):
            app.post(
                path,
                summary=summary,
                response_class=Response,
                responses=_responses(gives),
                openapi_extra={"requestBody": {"required": True, "content": {body: SCHEMAS[path]}}},
            )(answer)

    # ------------------------------------------------------------------------------------- answers

    async def health(self) -> dict[str, Any]:
        return {"status": "ok", "model": self.about["id"], "waiting": self.num_waiting}

    async def describe(self) -> dict[str, Any]:
        return self.about

    async def show_metrics(self) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def encode(self, request: Request) -> Response:
        with self.metrics.measured("encode"):
            content = await self._content(request)
            return Response(await self.batches.ask(content), media_type="application/json")

    async def decode(self, request: Request) -> Response:
        with self.metrics.measured("decode"):
            given = await read_json(request, self.limits)
            codes = given.get("codes")
            extent = given.get("extent")
            if not isinstance(codes, list) or _size(codes) > MAX_CODES:
                raise Refused(400, f"codes are lists (Q, *grid) of {MAX_CODES} numbers at most")
            if extent is not None and not _is_extent(extent, self.limits.positions):
                raise Refused(400, "extent is a list of whole numbers, as encode gives it")
            args = {**self.model, "codes": codes, "extent": extent}
            return self._file(await self._ask("decode_codes", args))

    async def compress(
        self, request: Request, rate: str | None = None, lossless: bool = False
    ) -> Response:
        with self.metrics.measured("compress"):
            args = {**self.reading, "rate": _rate(rate), "lossless": lossless}
            content = await self._content(request)
            return self._file(await self._ask("compress_content", args, content), ".vq")

    async def decompress(self, request: Request) -> Response:
        with self.metrics.measured("decompress"):
            content = await self._content(request)
            answer = await self._ask("decompress_content", self.model, content)
            response = self._file(answer)
            if answer.result["truncated"]:
                response.headers["x-vqkit-truncated"] = "true"
            return response

    async def generate(self, request: Request) -> Response:
        with self.metrics.measured("generate"):
            given = Given(await read_json(request, self.limits))
            args = {**self.model, **drawing_of(given, 1)}
            # It may take long, and has the worker of jobs for it.
            job = self.core.jobs.submit("generate_files", args)
            try:
                await self.core.jobs.finished(job, self.limits.job_seconds)
            finally:
                self.core.jobs.cancel(job)
            if job.result is None:
                raise Refused(400, job.error or "that took too long and was stopped")
            return Response(job.files[0], media_type="application/json")

    # ----------------------------------------------------------------------------------- what helps

    async def _content(self, request: Request) -> bytes:
        content = await read_bytes(request, self.limits.file_bytes)
        if not content:
            raise Refused(400, "send a file as the body")
        return content

    async def _ask(self, task: str, args: dict[str, Any], *blobs: bytes) -> Answer:
        """What a worker of quick answers says. Refused (429) where too many wait for it."""
        if self.num_waiting >= self.limits.waiting_requests:
            raise Refused(429, "too many requests wait already; try again in a second")
        self._num_asking += 1
        try:
            return await self.core.quick.call(task, args, blobs)
        finally:
            self._num_asking -= 1

    def _file(self, answer: Answer, suffix: str | None = None) -> Response:
        suffix = suffix or self.about["suffix"]
        kind = mimetypes.guess_type(f"item{suffix}")[0] or BINARY
        return Response(answer.files[0], media_type=kind)


SCHEMAS: dict[str, dict[str, Any]] = {
    "/encode": {"schema": {"type": "string", "format": "binary"}},
    "/compress": {"schema": {"type": "string", "format": "binary"}},
    "/decompress": {"schema": {"type": "string", "format": "binary"}},
    "/decode": {
        "schema": {
            "type": "object",
            "required": ["codes"],
            "properties": {
                "codes": {"type": "array", "description": "(Q, *grid), as /encode gives them"},
                "extent": {"type": "array", "items": {"type": "integer"}},
            },
        }
    },
    "/generate": {
        "schema": {
            "type": "object",
            "properties": {
                "num": {"type": "integer", "default": 1, "maximum": 64},
                "seed": {"type": "integer", "default": 0},
                "temperature": {"type": "number", "default": 1.0},
                "cfg": {"type": "number", "default": 1.0},
                "class": {"type": "string"},
                "prompt": {"type": "string"},
            },
        }
    },
}


def _responses(media_type: str) -> dict[int | str, dict[str, Any]]:
    error = {
        "application/json": {
            "schema": {"type": "object", "properties": {"error": {"type": "string"}}}
        }
    }
    return {
        200: {"description": "The result", "content": {media_type: {}}},
        400: {"description": "What was sent cannot be used", "content": error},
        413: {"description": "It is too large", "content": error},
        422: {"description": "It took too long, or too much memory", "content": error},
        429: {"description": "Too many requests wait; Retry-After says when", "content": error},
    }


def _rate(text: str | None) -> str | float | None:
    """A number of bits, or the name of a rate."""
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        return text[:20]
    if not 1e-4 <= rate <= 64:
        raise Refused(400, "rate lies between 0.0001 and 64 bits a position, or is a name")
    return rate


def _size(codes: Any) -> int:
    """Numbers in nested lists; more than are decoded where they are too deep."""
    count = 0
    level = [codes]
    for _ in range(6):
        inner = [one for part in level for one in part if isinstance(one, list)]
        count += sum(map(len, level)) - len(inner)
        if not inner:
            return count
        level = inner
    return MAX_CODES + 1


def _is_extent(extent: Any, positions: int) -> bool:
    if not isinstance(extent, list) or not 1 <= len(extent) <= 4:
        return False
    return all(type(side) is int and 0 < side <= positions for side in extent)
