"""The folder of a run: its settings, whether it is new, and that one process writes to it."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ..config.base import Root
from ..config.loading import dump, from_tree, load, with_overrides
from ..errors import VqkitError
from ..files import remove_leftovers, write_text
from ..training.checkpoint import FOLDER as CHECKPOINTS
from ..training.checkpoint import resumed_config
from ..training.progress import Display

LOCK_FILE = ".vqkit-lock"
RECIPE_FILE = "recipe.yaml"
# The last file that a run writes.
REPORT_FILE = "report.html"

RootT = TypeVar("RootT", bound=Root)


def is_main() -> bool:
    """Whether this is the first of several ranks, or the only process."""
    return os.environ.get("RANK", "0") == "0"


def resumed_settings(
    root: type[RootT], folder: Path, recipe: str | Path | None, overrides: Iterable[str]
) -> RootT:
    """Settings of the run that waits in `folder`.

    recipe: None unless the user named one. Recipe and overrides may repeat the settings, not change
    them. Errors: VqkitError for settings that make no sense, and for a run that cannot go on.
    """
    waiting = resumed_config(folder)
    if waiting is None:
        state = "is finished" if (folder / REPORT_FILE).exists() else "has no checkpoint"
        raise VqkitError(f"{folder} {state}: nothing to resume")
    config = from_tree(waiting, str(folder / CHECKPOINTS), root)
    if recipe is not None:
        repeated = load(recipe, overrides, root)
    else:
        repeated = with_overrides(config, overrides)
    if repeated != config:
        raise VqkitError(
            f"--resume goes on with the settings of {folder / RECIPE_FILE}, and those that were "
            f"given differ: {_difference(config, repeated)}; leave them out, or start a new run"
        )
    return config


def check_new(folder: Path) -> None:
    """VqkitError unless a new run may begin in a folder: there is none, or it is empty."""
    if folder.exists() and not folder.is_dir():
        raise VqkitError(f"{folder} is a file; choose another --out, a new or empty folder")
    if is_main() and folder.exists() and any(path.name != LOCK_FILE for path in folder.iterdir()):
        hint = ""
        if resumed_config(folder) is not None:
            hint = "add --resume to go on with it, or "
        raise VqkitError(f"{folder} is not empty; {hint}choose another --out")


def write_recipe(folder: Path, config: Root, remarks: Iterable[str] = ()) -> None:
    """The settings of a run, for people; the checkpoint has its own. remarks: lines above them."""
    if is_main():
        comments = "".join(f"# {remark}\n" for remark in remarks)
        try:
            write_text(folder / RECIPE_FILE, comments + dump(config))
        except OSError as error:
            raise VqkitError(
                f"cannot write to {folder}: {error.strerror}; choose another --out"
            ) from error


@contextlib.contextmanager
def begun(folder: Path, config: Root, remarks: Iterable[str] = ()) -> Iterator[None]:
    """As `write_recipe`. Inside, what ends a run before it has written anything else takes the
    settings away again, so that the folder is as new for better ones.
    """
    write_recipe(folder, config, remarks)
    try:
        yield
    except (VqkitError, KeyboardInterrupt):
        written = {path.name for path in folder.iterdir()}
        if is_main() and written <= {LOCK_FILE, RECIPE_FILE}:
            (folder / RECIPE_FILE).unlink(missing_ok=True)
        raise


def recipe_remarks(folder: Path) -> tuple[str, ...]:
    """The remarks above the settings of a run; none where they cannot be read."""
    try:
        lines = (folder / RECIPE_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    remarks = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return tuple(line.removeprefix("# ") for line in remarks)


@contextlib.contextmanager
def locked(folder: Path, display: Display | None = None) -> Iterator[None]:
    """Inside, no other process writes to the folder, which is made if need be.

    A second one is refused at once. The lock of a process that was killed is taken over, which is
    said, and what it left half-written is removed. Errors: VqkitError naming the owner.
    """
    if not is_main():
        yield
        return
    path = folder / LOCK_FILE
    handle = _acquire(path, folder)
    try:
        before = os.pread(handle, 4096, 0)
        if before and display:
            display.message(f"took over the lock of {_owner(before)}, which ended without notice")
        _remove_leftovers(folder)
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        owner = {"pid": os.getpid(), "since": now, "command": command}
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(owner).encode(), 0)
        except OSError as error:
            raise VqkitError(f"cannot write {path}: {error.strerror}") from error
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def check_unlocked(folder: Path) -> None:
    """VqkitError when another process is writing to the folder.

    Removes only what a killed one was writing.
    """
    path = folder / LOCK_FILE
    if not is_main() or not path.exists():
        return
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _taken(folder, file.read(4096)) from error
        _remove_leftovers(folder)


def _acquire(path: Path, folder: Path) -> int:
    """A handle on the lock's file, locked.

    The system lets go of it when the process ends, however it does.
    """
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise VqkitError(
                f"cannot write to {folder}: {error.strerror}; choose another folder"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(handle, 4096, 0)
            os.close(handle)
            raise _taken(folder, owner) from error
        # The owner before may have removed the file between our opening and locking it.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == os.stat(path).st_ino:
                return handle
        os.close(handle)


def _taken(folder: Path, owner: bytes) -> VqkitError:
    return VqkitError(
        f"{folder} is being written by {_owner(owner)}; wait for it, or choose another folder"
    )


def _owner(content: bytes) -> str:
    try:
        found = json.loads(content)
        return f"process {int(found['pid'])} ({found['command']}, since {found['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _remove_leftovers(folder: Path) -> None:
    """What killed processes were writing in the folder and those inside of it."""
    for inside in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        remove_leftovers(inside)


def _difference(one: Root, other: Root) -> str:
    """The first lines in which two settings differ."""
    first = set(dump(one).splitlines())
    lines = [line.split("#")[0].strip() for line in dump(other).splitlines() if line not in first]
    return ", ".join(lines[:3])
