"""Processes that work on tasks one after another, and whose death costs the task that they had.

Each has pipes of its own to the process that started it. When that one dies, however it does, the
pipes end, and so do they.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from ..errors import VqkitError

# Times that a task is begun before it is given up, when its workers die.
ATTEMPTS = 3


class WorkerDied(VqkitError):
    """A task was given up because its workers died."""


class Work(Protocol):
    """A function of a module. number: of the worker. tell: called with what is said meanwhile."""

    def __call__(self, task: Any, number: int, tell: Callable[[Any], None]) -> Any: ...


def run(
    work: Work,
    tasks: Sequence[Any],
    num_workers: int,
    done: Callable[[int, Any], None],
    tell: Callable[[int, Any], None],
    attempts: int = ATTEMPTS,
) -> None:
    """Do all tasks. done: called with the number of a task and what `work` gave. tell: with its
    number and what `work` says of it meanwhile.

    VqkitError that `work` raises, and WorkerDied for a task whose workers died `attempts` times.
    """
    waiting = deque(range(len(tasks)))
    deaths: Counter[int] = Counter()
    workers: list[_Worker] = []
    try:
        for number in range(min(num_workers, len(tasks))):
            workers.append(_Worker(work, number))
            workers[-1].give(waiting.popleft(), tasks)
        while busy := [worker for worker in workers if worker.task is not None]:
            ready = wait([worker.channel for worker in busy])
            for worker in busy:
                if worker.channel not in ready:
                    continue
                task = worker.task
                assert task is not None
                message = worker.heard()
                if message is None:
                    deaths[task] += 1
                    if deaths[task] == attempts:
                        raise _given_up(tasks[task], worker)
                    waiting.appendleft(task)
                    worker = workers[worker.number] = _Worker(work, worker.number)
                elif message[0] == "at":
                    tell(task, message[1])
                    continue
                elif message[0] == "done":
                    done(task, message[1])
                    worker.task = None
                else:
                    raise _failed(message)
                if waiting:
                    worker.give(waiting.popleft(), tasks)
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process, and the number of the task that it is at; None while it has none."""

    def __init__(self, work: Work, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = number
        self.task: int | None = None
        self.channel, theirs = context.Pipe()
        # Nothing is ever said through this one.
        lifeline, self._lifeline = context.Pipe(duplex=False)
        arguments = (theirs, lifeline, work, number)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        # The pipes end with the worker.
        theirs.close()
        lifeline.close()

    def give(self, task: int, tasks: Sequence[Any]) -> None:
        self.task = task
        try:
            self.channel.send(tasks[task])
        except OSError:
            # It died; the pipe says so to whoever listens.
            pass

    def heard(self) -> tuple[Any, ...] | None:
        """What it says next; None when it died."""
        try:
            return self.channel.recv()
        except (EOFError, OSError):
            return None

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.channel.close()
        self._lifeline.close()


def _watch(lifeline: Connection) -> None:
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


def _serve(channel: Connection, lifeline: Connection, work: Work, number: int) -> None:
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    # Ctrl-C at a terminal goes to all processes; the first one says when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            task = channel.recv()
        except (EOFError, OSError):
            return
        try:
            found = work(task, number, lambda said: channel.send(("at", said)))
            message = ("done", found)
        except VqkitError as error:
            message = ("wrong", str(error))
        except BrokenPipeError:
            return
        except BaseException:
            message = ("failed", traceback.format_exc())
        try:
            channel.send(message)
        except OSError:
            return


def _given_up(task: Any, worker: _Worker) -> WorkerDied:
    worker.process.join()
    status = worker.process.exitcode or 0
    how = f"with signal {-status}" if status < 0 else f"with status {status}"
    return WorkerDied(
        f"workers end {how} at {task}, again and again: is there enough memory? Try fewer --workers"
    )


def _failed(message: tuple[Any, ...]) -> Exception:
    if message[0] == "wrong":
        return VqkitError(message[1])
    return RuntimeError(f"a worker failed:\n{message[1]}")
