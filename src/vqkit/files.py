"""Files that are written in full or not at all, and read within bounds."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import stat
import tempfile
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# A pipe that nobody writes to would keep `open` waiting; Windows has no such flag and needs another
# for bytes.
_READ_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


# Names of what is being written tell by whom: a folder may be shared by machines, and numbers of
# processes are not.
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_TEMPORARY = re.compile(rf"^\..+\.{_HOST}\.(\d+)\.tmp$")
# Folders that this process has tidied up already.
_tidied: set[Path] = set()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, bring it to disk, and give it its name.
    Makes the folder.

    The file has the permissions that the umask leaves of rw-rw-rw-, whatever `write` made. Whatever
    fails, `path` is what it was before and nothing is left over. Errors: those of `write` and of
    the disk, an OSError with `path` as its filename.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        mode = _create(temporary)
        write(temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
            # Libraries that write to a file of their own and rename it leave it readable by its
            # owner alone.
            if stat.S_IMODE(os.fstat(handle.fileno()).st_mode) != mode:
                os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError):
            # That of a write names no file, others the temporary one.
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder beside `path`, which is missing or empty, and give it its
    name.

    Errors: those of `write` and of the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        write(temporary)
        if path.exists():
            path.rmdir()
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine were writing in a folder.

    What living ones write stays.
    """
    for path in list(folder.glob(".*.tmp")):
        matched = _TEMPORARY.match(path.name)
        if not matched or _is_alive(int(matched.group(1))):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A name beside `path` that only this process uses.

    The first time, leftovers beside it are removed.
    """
    folder = path.parent.resolve()
    if folder not in _tidied:
        _tidied.add(folder)
        remove_leftovers(folder)
    return path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.tmp")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _create(path: Path) -> int:
    """Make an empty file; the permissions that it got.

    The umask itself can only be read by changing it.
    """
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """`content` as the file `path`, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def write_text(path: Path, content: str) -> None:
    """`content` as the file `path` in UTF-8, whole or not at all.

    Escapes for names of files that are no text.
    """
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def open_regular(path: str | Path) -> BinaryIO:
    """A regular file, or a link to one, opened for reading; never waits.

    OSError for everything else (folder, pipe, device, socket); its `strerror` says which.
    """
    handle = os.open(path, _READ_FLAGS)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            kind = next((name for matches, name in _KINDS if matches(mode)), "something else")
            raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bounded(path: str | Path, limit: int) -> bytes:
    """All bytes of a regular file.

    OSError as `open_regular`, and for more than `limit` bytes, which are not read.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it holds more than {limit} bytes", str(path))
    return content


def free_name(path: Path, taken: Callable[[Path], bool] = Path.exists) -> Path:
    """The path itself, or with the smallest number from 2 on behind its stem that is not taken."""
    target = path
    number = 2
    while taken(target):
        target = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return target


def temporary_file(owner_hint: str) -> tuple[Path, BinaryIO]:
    """An empty file for what does not fit into memory. Whoever keeps it calls `delete_with`."""
    handle, path = tempfile.mkstemp(prefix=f"vqkit-{owner_hint}-")
    return Path(path), os.fdopen(handle, "wb")


def delete_with(owner: object, path: Path) -> None:
    """Deletes the temporary file when `owner` goes or the program ends.

    Worker processes leave it alone.
    """
    weakref.finalize(owner, _delete, path, os.getpid())


def _delete(path: Path, creator: int) -> None:
    if os.getpid() == creator:
        path.unlink(missing_ok=True)
