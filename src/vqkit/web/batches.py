"""Requests that come at the same time go through the model together.

While the workers compute, files that come wait; all of them, up to a bound, are the next call. So a
lone request waits for nobody, and many share what a call costs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

from .limits import Limits, Refused
from .worker import Workers


class Batches:
    """Files for one task of workers, whose result has an `items` for each of them: the number of a
    file with the answer, or an `error`.

    told: called with the number of files of every call.
    """

    def __init__(
        self,
        workers: Workers,
        task: str,
        args: dict[str, Any],
        limits: Limits,
        told: Callable[[float], None],
    ) -> None:
        self.workers = workers
        self.task = task
        self.args = args
        self.limits = limits
        self.told = told
        self._waiting: deque[tuple[bytes, asyncio.Future[bytes]]] = deque()
        self._is_work = asyncio.Event()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    async def ask(self, content: bytes) -> bytes:
        """The answer for a file. Refused (429) where too many wait, (400) for a bad file."""
        if len(self._waiting) >= self.limits.waiting_requests:
            raise Refused(429, "too many requests wait already; try again in a second")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((content, answer))
        self._is_work.set()
        return await answer

    async def run(self) -> None:
        """Answer, for as long as the server runs: as many batches at once as there are workers."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.workers.count):
                group.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self._is_work.wait()
            batch = self._next()
            if not batch:
                self._is_work.clear()
                continue
            await self._answer(batch)

    def _next(self) -> list[tuple[bytes, asyncio.Future[bytes]]]:
        batch: list[tuple[bytes, asyncio.Future[bytes]]] = []
        size = 0
        while self._waiting and len(batch) < self.limits.batch_files:
            size += len(self._waiting[0][0])
            if batch and size > self.limits.file_bytes:
                break
            content, answer = self._waiting.popleft()
            # Nobody waits for it any more.
            if not answer.done():
                batch.append((content, answer))
        return batch

    async def _answer(self, batch: list[tuple[bytes, asyncio.Future[bytes]]]) -> None:
        self.told(len(batch))
        contents = [content for content, _ in batch]
        try:
            found = await self.workers.call(self.task, self.args, contents)
        except Refused as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            # One of them ended the worker, or took too long: the others are not to suffer for it.
            for one in batch:
                await self._answer([one])
            return
        for (_, answer), item in zip(batch, found.result["items"], strict=True):
            if "error" in item:
                _fail(answer, Refused(400, item["error"]))
            elif not answer.done():
                answer.set_result(found.files[item["file"]])


def _fail(answer: asyncio.Future[bytes], error: Refused) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):
        answer.set_exception(error)
