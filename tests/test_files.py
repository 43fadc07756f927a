from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vqkit.files import open_regular, read_bounded

# Runs in a process of its own: the umask belongs to the process.
WRITE_EVERYTHING = """
import os, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from vqkit.files import write_bytes, write_text, write_whole
for umask in sys.argv[2:]:
    os.umask(int(umask, 8))
    folder = Path(sys.argv[1]) / umask
    write_bytes(folder / "bytes", b"x")
    write_text(folder / "text", "x")
    write_whole(folder / "tensors", lambda path: save_file({"x": torch.zeros(2)}, path))
    write_whole(folder / "tensors", lambda path: save_file({"x": torch.ones(2)}, path))
    (folder / ".other").write_bytes(b"x")
    os.chmod(folder / ".other", 0o600)
    write_whole(folder / "moved", lambda path: os.replace(folder / ".other", path))
"""


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    umasks = ["022", "027", "077"]
    subprocess.run([sys.executable, "-c", WRITE_EVERYTHING, str(tmp_path), *umasks], check=True)
    names = ["bytes", "moved", "tensors", "text"]
    for umask in umasks:
        assert sorted(path.name for path in (tmp_path / umask).iterdir()) == names
        for name in names:
            mode = stat.S_IMODE((tmp_path / umask / name).stat().st_mode)
            assert mode == 0o666 & ~int(umask, 8), (umask, name)


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, Path]:
    """One of every kind of file that is no regular one."""
    os.mkfifo(tmp_path / "pipe")
    # A socket's address must be short.
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(tmp_path)
        try:
            server.bind("socket")
        finally:
            os.chdir(before)
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    paths = {name: tmp_path / name for name in ("pipe", "socket", "link", "zeros")}
    return {
        **paths,
        "folder": tmp_path,
        "device": Path("/dev/zero"),
        "missing": tmp_path / "missing",
    }


@pytest.mark.parametrize("kind", ["pipe", "socket", "link", "zeros", "folder", "device", "missing"])
def test_only_regular_files_are_read(kinds: dict[str, Path], kind: str) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    with pytest.raises(OSError):
        read_bounded(kinds[kind], 100)
    with pytest.raises(OSError):
        open_regular(kinds[kind])
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_the_reason_says_what_it_is(kinds: dict[str, Path]) -> None:
    for kind, words in (("pipe", "named pipe"), ("folder", "folder"), ("zeros", "device")):
        with pytest.raises(OSError) as caught:
            read_bounded(kinds[kind], 100)
        assert words in (caught.value.strerror or "")


def test_read_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)))
    (tmp_path / "link").symlink_to(path)
    assert read_bounded(path, 200) == read_bounded(tmp_path / "link", 1000) == bytes(range(200))
    with pytest.raises(OSError, match="more than 199 bytes"):
        read_bounded(path, 199)
    # Far larger than memory, with nothing on disk: only the bound is read.
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="more than 100 bytes"):
        read_bounded(path, 100)
