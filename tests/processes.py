"""Python processes that need not import PyTorch and Fabric each for itself.

To import what `vqkit train` imports takes several seconds of a processor, more than all else that
most tests do with a process of its own. A server imports it once and forks for every process that
is asked for. Each is a process in full: it has a number, signals, limits, streams and an exit
status of its own. Where the start of the interpreter or the imports matter, tests use `subprocess`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

import torch

ROOT = Path(__file__).parents[1]
# What the verbs that train import, some of it late, and with it PyTorch, Fabric and Matplotlib.
IMPORTED = (
    "vqkit.cli",
    "vqkit.pipelines.autoencoder",
    "vqkit.pipelines.prior",
    "vqkit.training.fabric",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "numba",
)
# A request holds all variables of the environment.
LONGEST = 1 << 17


class Process:
    """A forked process, used as `subprocess.Popen` is."""

    def __init__(self, channel: socket.socket, output: IO[bytes], errors: IO[bytes]) -> None:
        self.channel = channel
        self.streams = (output, errors)
        self.pid = int(channel.recv(100))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative after a signal; TimeoutError where it takes more seconds."""
        if self.returncode is None:
            self.channel.settimeout(timeout)
            self.returncode = int(self.channel.recv(100))
            self.channel.close()
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(BlockingIOError):
            return self.wait(timeout=0)
        return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to its output and to its error stream, once it has ended."""
        self.wait(timeout)
        for stream in self.streams:
            stream.seek(0)
        output, errors = (stream.read().decode() for stream in self.streams)
        for stream in self.streams:
            stream.close()
        return output, errors


class Server:
    """The process that forks; it ends with the one that made it."""

    def __init__(self) -> None:
        self.started: list[Process] = []
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.processes", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )

    def start(self, request: Mapping[str, object]) -> Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output, errors = (tempfile.TemporaryFile() for _ in range(2))
        with theirs:
            passed = [theirs.fileno(), output.fileno(), errors.fileno()]
            socket.send_fds(self.channel, [json.dumps(request).encode()], passed)
        self.started.append(Process(ours, output, errors))
        return self.started[-1]

    def stop(self) -> None:
        for process in self.started:
            # Left behind by a test that failed.
            process.send_signal(signal.SIGKILL)
        self.channel.close()
        self.process.wait()


_servers: list[Server] = []


def start(
    words: Sequence[object],
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
    sources: Path | None = None,
) -> Process:
    """Start Python with these words behind it: `-m module ...` or `-c code ...`.

    variables: of the environment, beside those of this process.
    folder: that it works in, by default this one.
    sources: where it finds another vqkit than this process has.
    """
    if not _servers:
        _servers.append(Server())
    return _servers[0].start(
        {
            "words": [str(word) for word in words],
            "environment": {**os.environ, **(variables or {})},
            "folder": str(folder or Path.cwd()),
            "sources": str(sources or ""),
        }
    )


def run(
    words: Sequence[object],
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
    sources: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """As `start`, to its end."""
    return ended(start(words, variables, folder, sources), words)


def ended(process: Process, words: Sequence[object]) -> subprocess.CompletedProcess[str]:
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess([*words], process.wait(), output, errors)


def run_ranks(words: Sequence[object], num_ranks: int) -> list[subprocess.CompletedProcess[str]]:
    """The same process once a rank, as torchrun starts them on one machine."""
    # Port 0: one that is free. The ranks meet at it, and none of them has to open it.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    ranks = [
        start(words, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(num_ranks)
    ]
    return [ended(rank, words) for rank in ranks]


def stop_server() -> None:
    while _servers:
        _servers.pop().stop()


# ----------------------------------------------------------------------------------- in the server


def serve(channel: socket.socket) -> None:
    """Fork for every request, until nobody can send one any more."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, LONGEST, 3)
        if not message:
            break
        if os.fork() == 0:
            channel.close()
            keep(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
    # So that the time that they took is known to whoever waits for this process.
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def keep(request: dict, channel: int, output: int, errors: int) -> NoReturn:
    """Fork once more for a process that tells its number, and tell its exit status in the end."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not before: Python forgets signals that come while it forks.
        os.write(channel, str(os.getpid()).encode())
        os.close(channel)
        become(request, output, errors)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # Whoever asked may have gone.
    with contextlib.suppress(BrokenPipeError):
        os.write(channel, str(status).encode())
    os._exit(0)


def become(request: dict, output: int, errors: int) -> NoReturn:
    """Do in this process what Python does with such words.

    It ends without taking apart all that the server imported, which would copy it first.
    """
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    # numba reads its variables when it is imported.
    sys.modules["numba"].core.config.reload_config()
    if request["sources"]:
        sys.path.insert(0, request["sources"])
        for name in list(sys.modules):
            if name.split(".")[0] == "vqkit":
                del sys.modules[name]
    status: object = 0
    try:
        run_words(*request["words"])
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        status = traceback.format_exc()
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_words(kind: str, what: str, *rest: str) -> None:
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    # Ctrl-C at a terminal goes to all processes; this one ends with its maker.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in IMPORTED:
        __import__(module)
    # A collection of garbage in a forked process would touch, and so copy, all that is there.
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
