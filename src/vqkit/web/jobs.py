"""One queue for what takes long: jobs wait for their turn, tell how far they are, and can be
cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .limits import Limits, Refused
from .worker import Worker

FINISHED = ("done", "failed", "cancelled")


@dataclass
class Job:
    """state: waiting, running, or one of FINISHED. files: bytes that belong to the result. error: a
    sentence, of one that failed.
    """

    id: str
    task: str
    args: dict[str, Any]
    blobs: Sequence[bytes] = ()
    state: str = "waiting"
    progress: float = 0.0
    result: dict[str, Any] | None = None
    files: list[bytes] = field(default_factory=list)
    error: str | None = None

    def described(self) -> dict[str, Any]:
        """What clients see of it."""
        return {
            "id": self.id,
            "state": self.state,
            "progress": self.progress,
            "result": self.result,
            "error": self.error,
        }


class Jobs:
    """Jobs of one worker, in the order in which they came."""

    def __init__(self, worker: Worker, limits: Limits) -> None:
        self.worker = worker
        self.limits = limits
        self._all: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._is_work = asyncio.Event()
        self._running: tuple[Job, asyncio.Task[None]] | None = None
        self._changed = asyncio.Event()

    def submit(self, task: str, args: dict[str, Any], blobs: Sequence[bytes] = ()) -> Job:
        """A job at the end of the queue. Refused (429) where that is full."""
        if len(self._waiting) >= self.limits.waiting_jobs:
            raise Refused(429, "too many jobs wait already; try again when some are done")
        job = Job(secrets.token_hex(8), task, args, blobs)
        self._all[job.id] = job
        self._waiting.append(job)
        self._is_work.set()
        return job

    def find(self, name: str) -> Job:
        """Refused (404) for a job that is not known, any more."""
        if name not in self._all:
            raise Refused(404, "there is no such job any more")
        return self._all[name]

    def place(self, job: Job) -> int:
        """How many jobs are before it."""
        if job.state != "waiting":
            return 0
        return self._waiting.index(job) + (self._running is not None)

    async def finished(self, job: Job, seconds: float) -> Job:
        """The job when it is over, or as far as it is after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while job.state not in FINISHED:
                    self._changed.clear()
                    await self._changed.wait()
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job that runs, or take one that waits out of the queue."""
        if job.state == "waiting":
            self._waiting.remove(job)
            self._end(job, "cancelled")
        elif self._running is not None and self._running[0] is job:
            self._running[1].cancel()

    async def run(self) -> None:
        """Do jobs, for as long as the server runs."""
        while True:
            await self._is_work.wait()
            if not self._waiting:
                self._is_work.clear()
                continue
            job = self._waiting.popleft()
            job.state = "running"
            task = asyncio.create_task(self._do(job))
            self._running = (job, task)
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.cancelled():
                    # Not the job but the server ends.
                    task.cancel()
                    raise
                self._end(job, "cancelled")
            finally:
                self._running = None

    async def _do(self, job: Job) -> None:
        try:
            answer = await self.worker.call(
                job.task,
                job.args,
                job.blobs,
                seconds=self.limits.job_seconds,
                progress=self._teller(job),
            )
        except Refused as error:
            job.error = str(error)
            self._end(job, "failed")
            return
        job.result = answer.result
        job.files = answer.files
        self._end(job, "done")

    def _teller(self, job: Job) -> Callable[[float], None]:
        def tell(share: float) -> None:
            job.progress = share

        return tell

    def _end(self, job: Job, state: str) -> None:
        job.state = state
        job.progress = 1.0
        job.blobs = ()
        self._changed.set()
        over = [one for one in self._all.values() if one.state in FINISHED]
        held = sum(len(file) for one in over for file in one.files)
        while len(over) > 1 and (
            len(over) > self.limits.kept_jobs or held > self.limits.kept_bytes
        ):
            oldest = over.pop(0)
            held -= sum(map(len, oldest.files))
            del self._all[oldest.id]
