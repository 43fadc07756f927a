"""Processes that decode files and compute, so that neither a bad file nor a long one stops the
server.

Each has a bound of memory, every call one of time. When one crashes, or is stopped because it took
too long or a job was cancelled, the next call starts a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..machine import num_cores
from . import frames
from .limits import Limits, Refused

# Paths of this machine in what a worker says are for nobody else: the last part is enough.
PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+(?=[^\s/'\"])")


@dataclass(frozen=True)
class Answer:
    """result: plain values. files: bytes that belong to it."""

    result: dict[str, Any]
    files: list[bytes]


class Worker:
    """One process, one call at a time; others wait. threads: of its computations; None = as many as
    the environment says.
    """

    def __init__(self, limits: Limits, threads: int | None = None) -> None:
        self.limits = limits
        self.threads = threads
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def call(
        self,
        task: str,
        args: dict[str, Any],
        blobs: Sequence[bytes] = (),
        *,
        seconds: float | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Answer:
        """What a task of `tasks` makes of its arguments. seconds: that it may take.

        Refused with a sentence: for bad input (400), what takes too long or too much memory, or
        crashes (422), or fails (500). Whoever cancels the call stops the process.
        """
        async with self._lock:
            process = await self._started()
            assert process.stdin is not None and process.stdout is not None
            try:
                async with asyncio.timeout(seconds or self.limits.quick_seconds):
                    process.stdin.write(frames.packed({"task": task, "args": args}, blobs))
                    await process.stdin.drain()
                    while True:
                        message, files = await frames.received(process.stdout)
                        if "progress" not in message:
                            break
                        if progress is not None:
                            progress(float(message["progress"]))
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                await self.stop()
                raise Refused(
                    422, "the process that read this ended, for want of memory or by a bad file"
                ) from error
            except TimeoutError as error:
                await self.stop()
                raise Refused(422, "that took too long and was stopped") from error
            except BaseException:
                await self.stop()
                raise
        return _answer(message, files)

    async def warm(self) -> None:
        """Start the process, and let it load what it needs."""
        with contextlib.suppress(Refused):
            await self.call("nothing", {})

    async def stop(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        alone = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "vqkit.web.child",
            str(self.limits.memory_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C is for the server, which ends its workers.
            start_new_session=True,
            env={**os.environ, **alone},
        )
        return self._process


class Workers:
    """Several processes that do the same: a call goes to one that is free, or waits for one.

    They share the cores of the machine.
    """

    def __init__(self, limits: Limits, count: int = 1) -> None:
        threads = None if count == 1 else max(1, num_cores() // count)
        self.count = count
        self._all = [Worker(limits, threads) for _ in range(count)]
        # The one that worked last is asked first: what it needs is loaded.
        self._free: asyncio.LifoQueue[Worker] = asyncio.LifoQueue()
        for worker in reversed(self._all):
            self._free.put_nowait(worker)

    async def call(
        self,
        task: str,
        args: dict[str, Any],
        blobs: Sequence[bytes] = (),
        *,
        seconds: float | None = None,
    ) -> Answer:
        """As `Worker.call`."""
        worker = await self._free.get()
        try:
            return await worker.call(task, args, blobs, seconds=seconds)
        finally:
            self._free.put_nowait(worker)

    async def each(self, task: str, args: dict[str, Any], seconds: float) -> Answer:
        """What one of them makes of a task that all of them are given, as they are begun."""
        asked = [worker.call(task, args, seconds=seconds) for worker in self._all]
        return (await asyncio.gather(*asked))[0]

    async def warm(self) -> None:
        """As `Worker.warm`, all of them."""
        await asyncio.gather(*(worker.warm() for worker in self._all))

    async def stop(self) -> None:
        """As `Worker.stop`, all of them."""
        await asyncio.gather(*(worker.stop() for worker in self._all))


def _answer(message: dict[str, Any], files: list[bytes]) -> Answer:
    if "error" not in message:
        return Answer(message["result"], files)
    if message["error"] is None:
        raise Refused(500, "that failed; the terminal of the server says why")
    raise Refused(400, PATH.sub("", message["error"]))
