"""Workers and the queue: bounds of time and memory, crashes, cancelling."""

from __future__ import annotations

import asyncio
import os
import signal
import zlib
from pathlib import Path

import pytest

from vqkit.machine import num_cores
from vqkit.web.jobs import Jobs
from vqkit.web.limits import Limits, Refused
from vqkit.web.worker import PATH, Worker, Workers

from .conftest import GOLDEN
from .test_security import bomb

ITEM = {"model": str(GOLDEN), "item": {"set": "emoji", "index": 0}}


def test_a_worker_is_replaced_when_it_crashes_or_takes_too_long():
    async def run() -> None:
        worker = Worker(Limits())
        try:
            found = await worker.call("look", ITEM)
            assert len(found.result["codes"][0]) == 64
            first = worker._process.pid
            with pytest.raises(Refused, match="too long") as caught:
                await worker.call("atlas", {"model": str(GOLDEN), "source": "emoji"}, seconds=0.2)
            assert caught.value.status == 422
            asking = asyncio.create_task(worker.call("look", ITEM))
            while worker._process is None or worker._process.pid == first:
                await asyncio.sleep(0.01)
            os.kill(worker._process.pid, signal.SIGKILL)
            with pytest.raises(Refused, match="ended"):
                await asking
            assert (await worker.call("look", ITEM)).result["grid"] == [8, 8]
        finally:
            await worker.stop()

    asyncio.run(run())


def test_workers_answer_at_once_and_share_the_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")

    async def run() -> None:
        workers = Workers(Limits(), 2)
        try:
            found = await asyncio.gather(*(workers.call("look", ITEM) for _ in range(3)))
            assert [answer.result["codes"] for answer in found] == [found[0].result["codes"]] * 3
            pids = {worker._process.pid for worker in workers._all}
            assert len(pids) == 2
            for pid in pids:
                said = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                assert f"OMP_NUM_THREADS={max(1, num_cores() // 2)}".encode() in said
        finally:
            await workers.stop()

    asyncio.run(run())


def large(path: Path, side: int) -> None:
    """A PNG of one colour: small as a file, large as values."""
    content = bomb(side, side)
    rows = zlib.compress(b"\0" * (side * (3 * side + 1)), 1)
    head, tail = content.split(b"IDAT")[0][:-4], content[-12:]
    crc = zlib.crc32(b"IDAT" + rows).to_bytes(4, "big")
    path.write_bytes(head + len(rows).to_bytes(4, "big") + b"IDAT" + rows + crc + tail)


def test_too_much_memory_is_said_and_the_next_task_is_done(tmp_path):
    path = tmp_path / "large.png"
    large(path, 9000)
    wanted = {"model": str(GOLDEN), "item": {"path": str(path)}}

    async def run() -> None:
        worker = Worker(Limits(memory_bytes=500 << 20, quick_seconds=60))
        try:
            with pytest.raises(Refused, match="(?i)memory") as caught:
                await worker.call("look", wanted)
            assert caught.value.status in (400, 422)
            assert (await worker.call("look", ITEM)).result["grid"] == [8, 8]
        finally:
            await worker.stop()

    asyncio.run(run())


class Slow:
    """In the place of a worker: every call takes as long as the test wants."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = asyncio.Event()

    async def call(self, task: str, args: object, blobs: object, **more: object):
        self.begun.append(task)
        await self.may_end.wait()
        if task == "bad":
            raise Refused(400, "no")
        from vqkit.web.worker import Answer

        return Answer({"task": task}, [b"x" * 600])


def test_jobs_wait_are_cancelled_and_do_not_pile_up():
    async def run() -> None:
        worker = Slow()
        jobs = Jobs(worker, Limits(waiting_jobs=3, kept_jobs=2, kept_bytes=1000))
        loop = asyncio.create_task(jobs.run())
        first = jobs.submit("one", {})
        while not worker.begun:
            await asyncio.sleep(0)
        others = [jobs.submit(name, {}) for name in ("two", "bad", "three")]
        assert [jobs.place(job) for job in (first, *others)] == [0, 1, 2, 3]
        with pytest.raises(Refused) as caught:
            jobs.submit("four", {})
        assert caught.value.status == 429
        jobs.cancel(others[0])
        jobs.cancel(first)
        assert (await jobs.finished(first, 10)).state == "cancelled"
        assert others[0].state == "cancelled"
        worker.may_end.set()
        assert (await jobs.finished(others[2], 10)).result == {"task": "three"}
        assert (others[1].state, others[1].error) == ("failed", "no")
        # One that was running was stopped, one that waited never began.
        assert worker.begun == ["one", "bad", "three"]
        last = jobs.submit("five", {})
        await jobs.finished(last, 10)
        # Two results are more bytes than are kept: the last one is there.
        assert jobs.find(last.id) is last
        for job in (first, *others):
            with pytest.raises(Refused):
                jobs.find(job.id)
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop

    asyncio.run(run())


def test_paths_of_the_machine_are_taken_out_of_what_workers_say():
    said = "cannot read /home/ann/.studio/sets/ab/files/000001.png: it is no image"
    assert PATH.sub("", said) == "cannot read 000001.png: it is no image"
    assert PATH.sub("", "12 x 3/4, hf://user/name") == "12 x 3/4, hf://user/name"
