"""Batches of requests, with workers that do as they are told."""

import asyncio

import pytest

from vqkit.web.batches import Batches
from vqkit.web.limits import Limits, Refused
from vqkit.web.worker import Answer


class Told:
    """A worker that answers with the length of every file, and ends at a file `poison`."""

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self.calls: list[list[bytes]] = []
        self.num_done = 0
        self.most_at_once = 0
        self.may_go = asyncio.Event()

    async def call(self, task, args, blobs=()):
        self.calls.append(list(blobs))
        self.most_at_once = max(self.most_at_once, len(self.calls) - self.num_done)
        await self.may_go.wait()
        self.num_done += 1
        if b"poison" in blobs:
            raise Refused(422, "the process ended")
        files = [str(len(blob)).encode() for blob in blobs]
        items = [
            {"error": "bad"} if blob == b"bad" else {"file": n} for n, blob in enumerate(blobs)
        ]
        return Answer({"items": items}, files)


def answered(files: list[bytes], limits: Limits, count: int = 1) -> tuple[list, Told]:
    """Files that come while the first is worked on, by so many workers."""

    async def work():
        worker = Told(count)
        batches = Batches(worker, "task", {}, limits, lambda count: None)
        running = asyncio.create_task(batches.run())
        asked = [asyncio.create_task(batches.ask(file)) for file in files]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        worker.may_go.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        running.cancel()
        return found, worker

    return asyncio.run(work())


def test_what_comes_meanwhile_goes_together():
    found, worker = answered([b"a" * n for n in range(1, 10)], Limits(batch_files=4))
    assert found == [str(n).encode() for n in range(1, 10)]
    assert [len(call) for call in worker.calls] == [4, 4, 1]


def test_workers_take_batches_at_once():
    found, worker = answered([b"a" * n for n in range(1, 10)], Limits(batch_files=4), 2)
    assert found == [str(n).encode() for n in range(1, 10)]
    # The third begins only when one of the first two is done.
    assert [len(call) for call in worker.calls] == [4, 4, 1]
    assert worker.most_at_once == 2


def test_bytes_bound_a_batch():
    _, worker = answered([b"a" * 40] * 5, Limits(file_bytes=100))
    assert [len(call) for call in worker.calls] == [2, 2, 1]


def test_a_file_that_ends_the_worker_fails_alone():
    found, worker = answered([b"one", b"poison", b"bad", b"two"], Limits())
    assert (found[0], found[3]) == (b"3", b"3")
    assert [error.status for error in found[1:3]] == [422, 400]
    assert [len(call) for call in worker.calls] == [4, 1, 1, 1, 1]


def test_more_than_may_wait_are_refused():
    found, _ = answered([b"x"] * 5, Limits(waiting_requests=3))
    assert found[:3] == [b"1"] * 3
    for error in found[3:]:
        with pytest.raises(Refused, match="too many"):
            raise error
        assert error.status == 429
