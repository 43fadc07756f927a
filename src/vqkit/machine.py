"""What this process may use of the machine: cores, and memory that it has and does not need."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache


def num_cores() -> int:
    """Cores that this process may run on, which are fewer than there are in a container or under
    taskset.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def give_back_memory() -> None:
    """Let the system have what is free: of blocks below 32 MB the GNU C library keeps all that lie
    between others, hundreds of megabytes after a few parts.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """The function of the GNU C library, None where there is another one."""
    if sys.platform != "linux":
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found
