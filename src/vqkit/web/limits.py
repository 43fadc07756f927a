"""Every bound of a server, and the error that says which one was met."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import VqkitError


class Refused(VqkitError):
    """A request that is not done: a sentence for whoever sent it, and the status of HTTP."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """file_bytes, set_bytes, set_files: of one upload, and of all that belong together;
    folder_bytes of all that lie in a workspace. positions, seconds: of one image (its pixels) or
    recording, by its header, before anything is decoded. json_bytes: of a request with settings.
    idle_seconds: that a client may keep a request waiting. memory_bytes: of a worker.
    quick_seconds, job_seconds: that a worker may take for an answer at once, and for a job.
    waiting_requests: that wait for the quick worker; batch_files: that go through a model together.
    waiting_jobs: in the queue; kept_jobs, kept_bytes: results that are held. connections: at once.
    """

    file_bytes: int = 1 << 26
    set_bytes: int = 1 << 31
    set_files: int = 20_000
    folder_bytes: int = 1 << 33
    positions: int = 1 << 25
    seconds: float = 1200.0
    json_bytes: int = 1 << 20
    idle_seconds: float = 20.0
    memory_bytes: int = 6 << 30
    quick_seconds: float = 30.0
    job_seconds: float = 600.0
    waiting_requests: int = 256
    batch_files: int = 64
    waiting_jobs: int = 16
    kept_jobs: int = 64
    kept_bytes: int = 1 << 28
    connections: int = 128
