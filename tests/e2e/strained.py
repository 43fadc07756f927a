"""Verbs in a process that has a full disk, or no right to write to a folder; run by test_disks.py.

    python -m tests.e2e.strained full|tiny|read-only WORK

`full` limits the size of every file, which any user may do; `tiny` mounts a file system of a few
megabytes for this process alone, where that is allowed, and fills it but for some bytes. The
commands, [[FREE, [WORD, ...]], ...], are in commands.json beside WORK. Prints, for every command,
its exit status, what it said, and what it left.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import vqkit
from vqkit import cli

NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000
PRIVATE = 0x44000
CAPABILITIES_3 = 0x20080522
# Everything but the right to pass over the permissions of files, of the first 32 capabilities.
WITHOUT_OVERRIDE = 0xFFFFFFFF & ~0b110
TINY = 24 << 20

libc = ctypes.CDLL(None, use_errno=True)


def heed_permissions() -> None:
    """Let the permissions of files count for root too."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0)
    held = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, held) == 0
    # Effective, permitted and inheritable ones, twice 32 of them.
    for place in (0, 1):
        held[place] &= WITHOUT_OVERRIDE
    assert libc.capset(header, held) == 0


def mount_tiny(folder: Path) -> bool:
    """A small file system in memory over a folder, seen by this process alone; False where that is
    not allowed.
    """
    flags = NEW_MOUNTS if os.geteuid() == 0 else NEW_MOUNTS | NEW_USER
    if libc.unshare(flags) or libc.mount(None, b"/", None, PRIVATE, None):
        return False
    size = f"size={TINY}".encode()
    return libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, size) == 0


def fill(path: Path, free: int) -> None:
    """Leave so many bytes of the file system free."""
    found = os.statvfs(path.parent)
    path.write_bytes(bytes(found.f_bavail * found.f_frsize - free))


def said_by(words: list[str]) -> tuple[int, str]:
    """Exit status of a command and what it wrote to the error stream."""
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = cli.main(words)
        except SystemExit as error:
            code = int(error.code or 0)
    return code, heard.getvalue()


def left_in(model: Path) -> dict[str, object]:
    """What can be made of an artifact, and files that only a write that failed leaves."""
    loaded = vqkit.load(model, device="cpu")
    return {
        "content_id": loaded.content_id,
        "has_prior": loaded.artifact.prior is not None,
        "coders": [
            loaded.artifact.coders.codes is not None,
            loaded.artifact.coders.values is not None,
        ],
        "problems": list(loaded.artifact.problems),
        "leftovers": [path.name for path in model.rglob("*.tmp")],
    }


def strained(kind: str, work: Path, free: int, words: list[str]) -> dict[str, object]:
    """A command on a fresh copy of the artifact, with so many bytes to write."""
    source, model, filler = work.parent / "model", work / "model", work / "filler"
    shutil.copytree(source, model)
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    if kind == "tiny":
        fill(filler, free)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (free, no_limit[1]))
    code, said = said_by(words)
    resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
    filler.unlink(missing_ok=True)
    left = left_in(model)
    shutil.rmtree(model)
    return {"code": code, "said": said, **left}


def main() -> None:
    kind, work = sys.argv[1], Path(sys.argv[2])
    commands = json.loads((work.parent / "commands.json").read_text())
    # Instead of the end of the process, which is what a limit is answered with by default.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # It is optional, and its own thread complains of a full disk as it likes.
    sys.modules["tensorboard"] = None  # type: ignore[assignment]
    if kind == "read-only":
        heed_permissions()
        found = [dict(zip(("code", "said"), said_by(words), strict=True)) for _, words in commands]
    else:
        kind = "tiny" if kind == "tiny" and mount_tiny(work) else "full"
        os.chdir(work)
        found = [strained(kind, work, free, words) for free, words in commands]
    print(json.dumps({"kind": kind, "found": found}))


if __name__ == "__main__":
    main()
