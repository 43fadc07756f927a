"""The process of a worker: reads requests from its standard input, does one after the other, and
writes what comes of them to its standard output.

It ends when its input does.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, BinaryIO

from ..errors import VqkitError
from . import frames

# Seconds between two messages of progress.
EVERY = 0.2
OUT_OF_MEMORY = "that takes more memory than the server gives it"


def main() -> None:
    _limit_memory(int(sys.argv[1]))
    # Whatever a library prints goes to the terminal, not between two frames.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from .tasks import Context, perform

    context = Context()
    while (request := frames.read(sys.stdin.buffer)) is not None:
        message, blobs = request
        told = _Told(output)
        try:
            result, files = perform(context, message["task"], message["args"], blobs, told)
            told.send({"result": result}, files)
        except VqkitError as error:
            told.send({"error": str(error)})
        except Exception as error:
            if _is_memory(error):
                told.send({"error": OUT_OF_MEMORY})
                continue
            traceback.print_exc(file=sys.stderr)
            told.send({"error": None})


def _limit_memory(num_bytes: int) -> None:
    # The memory that a process writes to. Address space is no measure: libraries map far more than
    # they use.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, num_bytes))


def _is_memory(error: Exception) -> bool:
    is_of_torch = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    return isinstance(error, MemoryError) or is_of_torch


class _Told:
    """Writes messages, and those of progress not too often."""

    def __init__(self, output: BinaryIO) -> None:
        self.output = output
        self.last = 0.0

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self.last >= EVERY:
            self.last = now
            self.send({"progress": share})

    def send(self, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        self.output.write(frames.packed(message, blobs))
        self.output.flush()


if __name__ == "__main__":
    main()
