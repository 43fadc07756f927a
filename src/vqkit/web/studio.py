"""The page of `vqkit studio`, and what it asks for.

Answers with files are frames, as workers write them (`frames`): JSON, and bytes behind it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from .. import __version__
from . import frames
from .core import Core, create_app
from .jobs import Job
from .limits import Refused
from .security import Gate
from .uploads import read_json, write_body
from .worker import Answer
from .workspace import BUILT_IN, Workspace

PAGE = Path(__file__).parent / "static"
# Files of an uploaded set that are offered at once.
NUM_OFFERED = 24
MAX_EDITS = 4096


def create_studio(core: Core, workspace: Workspace) -> Gate:
    """The application of a studio."""
    studio = Studio(core, workspace)

    def add_routes(app: FastAPI) -> None:
        for method, path, answer in studio.routes():
            app.add_api_route(path, answer, methods=[method], response_model=None)
        app.mount("/static", StaticFiles(directory=PAGE))

    return create_app(core, add_routes)


class Studio:
    """What is answered to the page."""

    def __init__(self, core: Core, workspace: Workspace) -> None:
        self.core = core
        self.workspace = workspace

    def routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("GET", "/", self.page),
            ("GET", "/api/state", self.state),
            ("POST", "/api/sets", self.new_set),
            ("POST", "/api/sets/{name}/files", self.add_file),
            ("DELETE", "/api/sets/{name}", self.remove_set),
            ("POST", "/api/samples", self.samples),
            ("POST", "/api/look", self.look),
            ("POST", "/api/paint", self.paint),
            ("POST", "/api/atlas", self.atlas),
            ("GET", "/api/jobs/{name}", self.job),
            ("GET", "/api/jobs/{name}/result", self.job_result),
            ("DELETE", "/api/jobs/{name}", self.cancel_job),
        ]

    async def page(self) -> Response:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    async def state(self) -> dict[str, Any]:
        """Models, sets and what is bounded."""
        limits = self.core.limits
        models = self.workspace.models()
        return {
            "version": __version__,
            "models": [self.workspace.described(*model) for model in models.items()],
            "built_in": list(BUILT_IN),
            "sets": [_set(files) for files in self.workspace.sets()],
            "limits": {"file_bytes": limits.file_bytes, "set_files": limits.set_files},
        }

    # ----------------------------------------------------------------------------------------- sets

    async def new_set(self) -> dict[str, Any]:
        return _set(self.workspace.new_set())

    async def add_file(self, request: Request, name: str) -> dict[str, Any]:
        """One file, as the body. It is kept if its header is of what vqkit reads, and not of too
        much.
        """
        files = self.workspace.files(name)
        given = request.query_params.get("name", "")
        path = self.workspace.place(files, given)
        limits = self.core.limits
        await write_body(request, path, limits.file_bytes)
        args = {"path": str(path), "positions": limits.pixels, "seconds": limits.seconds}
        try:
            await self.core.quick.call("check_file", args)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        index = self.workspace.added(files, given, path)
        return {"index": index, "name": files.names[index]}

    async def remove_set(self, name: str) -> dict[str, Any]:
        self.workspace.remove(self.workspace.files(name))
        return {}

    # -------------------------------------------------------------------------------------- looking

    async def samples(self, request: Request) -> Response:
        given = await read_json(request, self.core.limits)
        args: dict[str, Any] = {"model": self._model(given)}
        name = given.get("set")
        if name in BUILT_IN:
            args["set"] = name
            return _framed(await self.core.quick.call("samples", args))
        files = self.workspace.files(name)
        args["paths"] = list(enumerate(map(str, files.paths)))[:NUM_OFFERED]
        answer = await self.core.quick.call("samples", args)
        for item in answer.result["items"]:
            item["name"] = files.names[item["index"]]
        return _framed(answer)

    async def look(self, request: Request) -> Response:
        given = await read_json(request, self.core.limits)
        args = {"model": self._model(given), "item": self.workspace.item(given.get("item"))}
        return _framed(await self.core.quick.call("look", args))

    async def paint(self, request: Request) -> Response:
        given = await read_json(request, self.core.limits)
        edits = given.get("edits")
        if not isinstance(edits, list) or len(edits) > MAX_EDITS or not all(map(_is_edit, edits)):
            raise Refused(400, "edits are lists of place, position and code")
        args = {
            "model": self._model(given),
            "item": self.workspace.item(given.get("item")),
            "edits": edits,
        }
        return _framed(await self.core.quick.call("paint", args))

    async def atlas(self, request: Request) -> dict[str, Any]:
        given = await read_json(request, self.core.limits)
        source = self.workspace.source(given.get("set"))
        return self._submit("atlas", {"model": self._model(given), "source": source})

    # ----------------------------------------------------------------------------------------- jobs

    async def job(self, name: str) -> dict[str, Any]:
        return self._described(self.core.jobs.find(name))

    async def job_result(self, name: str) -> Response:
        job = self.core.jobs.find(name)
        if job.result is None:
            raise Refused(409, "there is no result of that job")
        return _framed(Answer(job.result, job.files))

    async def cancel_job(self, name: str) -> dict[str, Any]:
        job = self.core.jobs.find(name)
        self.core.jobs.cancel(job)
        return self._described(job)

    def _submit(self, task: str, args: dict[str, Any], about: Any = None) -> dict[str, Any]:
        return self._described(self.core.jobs.submit(task, args, about=about))

    def _described(self, job: Job) -> dict[str, Any]:
        return {**job.described(), "result": None, "before": self.core.jobs.place(job)}

    def _model(self, given: dict[str, Any]) -> str:
        return str(self.workspace.model(given.get("model")))


def _framed(answer: Answer) -> Response:
    content = frames.packed({"result": answer.result}, answer.files)
    return Response(content, media_type="application/octet-stream")


def _set(files: Any) -> dict[str, Any]:
    return {"id": files.id, "names": files.names[:NUM_OFFERED], "num_files": len(files.names)}


def _is_edit(edit: Any) -> bool:
    return isinstance(edit, list) and len(edit) == 3 and all(type(one) is int for one in edit)
