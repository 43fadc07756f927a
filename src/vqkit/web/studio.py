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
from .given import Given
from .jobs import Job
from .limits import Refused
from .runs import CONDITIONS, MAX_MINUTES, Runs
from .security import Gate
from .uploads import read_json, write_body
from .verbs import VERBS, Verbs
from .worker import PATH, Answer
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
        app.mount("/static", _Static(directory=PAGE))

    return create_app(core, add_routes)


class Studio:
    """What is answered to the page."""

    def __init__(self, core: Core, workspace: Workspace) -> None:
        self.core = core
        self.workspace = workspace
        self.runs = Runs(workspace)
        self.verbs = Verbs(workspace)

    def routes(self) -> list[tuple[str, str, Any]]:
        return [
            ("GET", "/", self.page),
            ("GET", "/api/state", self.state),
            ("POST", "/api/sets", self.new_set),
            ("POST", "/api/sets/{name}/files", self.add_file),
            ("DELETE", "/api/sets/{name}", self.remove_set),
            ("POST", "/api/survey", self.survey),
            ("POST", "/api/runs", self.start_run),
            ("POST", "/api/priors", self.start_prior),
            ("GET", "/api/runs/{name}", self.run),
            ("POST", "/api/runs/{name}/stop", self.stop_run),
            ("POST", "/api/runs/{name}/resume", self.resume_run),
            ("POST", "/api/runs/{name}/follow", self.follow_run),
            ("POST", "/api/abilities", self.abilities),
            ("POST", "/api/samples", self.samples),
            ("POST", "/api/look", self.look),
            ("POST", "/api/paint", self.paint),
            ("POST", "/api/do/{verb}", self.do),
            ("GET", "/api/jobs/{name}", self.job),
            ("GET", "/api/jobs/{name}/result", self.job_result),
            ("DELETE", "/api/jobs/{name}", self.cancel_job),
        ]

    async def page(self) -> Response:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    async def state(self) -> dict[str, Any]:
        """Models, sets and runs."""
        models = self.workspace.models()
        runs = [{**run, "rows": []} for run in self.runs.all()]
        return {
            "version": __version__,
            "models": [self.workspace.described(*model) for model in models.items()],
            "built_in": list(BUILT_IN),
            "file_bytes": self.core.limits.file_bytes,
            "sets": [_set(files) for files in self.workspace.sets()],
            "runs": runs,
        }

    # ---------------------------------------------------------------------------- sets and training

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
        args = {"path": str(path), "positions": limits.positions, "seconds": limits.seconds}
        try:
            found = await self.core.quick.call("check_file", args)
            index = self.workspace.added(files, given, path, found.result["is_shard"])
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return {"index": index, "name": files.names[index]}

    async def remove_set(self, name: str) -> dict[str, Any]:
        self.workspace.remove(self.workspace.files(name))
        return {}

    async def survey(self, request: Request) -> dict[str, Any]:
        given = await self._given(request)
        source = self.workspace.source(given.get("set"))
        minutes = given.number("minutes", 3.0, 0.1, MAX_MINUTES)
        return self._submit("survey", {"source": source, "minutes": minutes})

    async def start_run(self, request: Request) -> dict[str, Any]:
        given = await self._given(request)
        minutes = given.number("minutes", 3.0, 0.1, MAX_MINUTES)
        return self.runs.start(given.get("set"), minutes, given.text("called", 60))

    async def start_prior(self, request: Request) -> dict[str, Any]:
        given = await self._given(request)
        minutes = given.number("minutes", 10.0, 0.1, MAX_MINUTES)
        condition = "auto"
        if given.get("condition") is not None:
            condition = given.one_of("condition", CONDITIONS)
        return self.runs.start_prior(
            given.get("model"), given.get("set"), minutes, condition, given.flag("replaces")
        )

    async def run(self, name: str, seen: int = 0) -> dict[str, Any]:
        return self.runs.described(self.runs.find(name), max(0, seen))

    async def stop_run(self, name: str) -> dict[str, Any]:
        return self.runs.stop(name)

    async def resume_run(self, name: str) -> dict[str, Any]:
        return self.runs.resume(name)

    async def follow_run(self, request: Request, name: str) -> Response:
        """What the last checkpoint reconstructs or draws, if it is newer than a step that is
        known.
        """
        given = await self._given(request)
        run = self.runs.find(name)
        step = given.whole("step", -1, -1, 1 << 40)
        args = {"folder": str(self.runs.model(run)), "source": run["source"], "step": step}
        task = "follow_prior" if run["kind"] == "prior" else "follow"
        return _framed(await self.core.quick.call(task, args))

    # -------------------------------------------------------------------------------------- looking

    async def abilities(self, request: Request) -> dict[str, Any]:
        given = await self._given(request)
        answer = await self.core.quick.call("abilities", {"model": self._model(given)})
        return answer.result

    async def samples(self, request: Request) -> Response:
        given = await self._given(request)
        args: dict[str, Any] = {"model": self._model(given)}
        name = given.get("set")
        if self.workspace.is_numbered(name):
            args["set"] = self.workspace.source(name)
            args["called"] = name if name in BUILT_IN else "item"
            return _framed(await self.core.quick.call("samples", args))
        files = self.workspace.files(name)
        args["paths"] = list(enumerate(map(str, files.paths)))[-NUM_OFFERED:]
        answer = await self.core.quick.call("samples", args)
        for item in [*answer.result["items"], *answer.result["skipped"]]:
            item["name"] = files.names[item["index"]]
        for item in answer.result["skipped"]:
            item["reason"] = PATH.sub("", item["reason"])
        return _framed(answer)

    async def look(self, request: Request) -> Response:
        given = await self._given(request)
        args = {"model": self._model(given), "item": self.workspace.item(given.get("item"))}
        return _framed(await self.core.quick.call("look", args))

    async def paint(self, request: Request) -> Response:
        given = await self._given(request)
        edits = given.get("edits")
        if not isinstance(edits, list) or len(edits) > MAX_EDITS or not all(map(_is_edit, edits)):
            raise Refused(400, "edits are lists of place, position and code")
        item = self.workspace.item(given.get("item"))
        args = {"model": self._model(given), "item": item, "edits": edits}
        return _framed(await self.core.quick.call("paint", args))

    # ----------------------------------------------------------------------------------------- jobs

    async def do(self, request: Request, verb: str) -> dict[str, Any]:
        """A job of one of VERBS."""
        if verb not in VERBS:
            raise Refused(404, "there is nothing here")
        given = await self._given(request)
        return self._submit(verb, self.verbs.arguments(verb, given))

    async def job(self, name: str, wait: float = 0.0) -> dict[str, Any]:
        """A job, at once when it is over, and else within so many seconds."""
        job = self.core.jobs.find(name)
        await self.core.jobs.finished(job, min(max(wait, 0.0), 10.0))
        return self._described(job)

    async def job_result(self, name: str) -> Response:
        job = self.core.jobs.find(name)
        if job.result is None:
            raise Refused(409, "there is no result of that job")
        return _framed(Answer(job.result, job.files))

    async def cancel_job(self, name: str) -> dict[str, Any]:
        job = self.core.jobs.find(name)
        self.core.jobs.cancel(job)
        return self._described(job)

    def _submit(self, task: str, args: dict[str, Any]) -> dict[str, Any]:
        return self._described(self.core.jobs.submit(task, args))

    def _described(self, job: Job) -> dict[str, Any]:
        return {**job.described(), "result": None, "before": self.core.jobs.place(job)}

    async def _given(self, request: Request) -> Given:
        return Given(await read_json(request, self.core.limits))

    def _model(self, given: Given) -> str:
        return str(self.workspace.model(given.get("model")))


class _Static(StaticFiles):
    """Files of the page, which browsers ask for again after an update."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def _framed(answer: Answer) -> Response:
    content = frames.packed({"result": answer.result}, answer.files)
    return Response(content, media_type="application/octet-stream")


def _set(files: Any) -> dict[str, Any]:
    return {
        "id": files.id,
        "names": files.names[-NUM_OFFERED:],
        "num_files": len(files.names),
        "has_shards": files.has_shards,
    }


def _is_edit(edit: Any) -> bool:
    return isinstance(edit, list) and len(edit) == 3 and all(type(one) is int for one in edit)
