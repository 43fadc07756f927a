"""A process that decodes files and computes, so that neither a bad file nor a long one stops the
server.

It has a bound of memory, every call one of time. When it crashes, or is stopped because it took too
long or a job was cancelled, the next call starts a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
    """One process, one call at a time; others wait."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
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
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "vqkit.web.child",
            str(self.limits.memory_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C is for the server, which ends its workers.
            start_new_session=True,
        )
        return self._process


def _answer(message: dict[str, Any], files: list[bytes]) -> Answer:
    if "error" not in message:
        return Answer(message["result"], files)
    if message["error"] is None:
        raise Refused(500, "that failed; the terminal of the server says why")
    raise Refused(400, PATH.sub("", message["error"]))
