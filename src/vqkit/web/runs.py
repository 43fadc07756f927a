"""Training as processes of its own, which outlive the page and the server.

A run is a `vqkit train`. All that is known of it lies in files: what it was started with, what it
prints, and the folder that it writes. Whoever runs holds a lock on the log, which the system lets
go of when the process ends: so it is known whether one runs, whatever became of the server.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..files import free_name, write_text
from .limits import Refused
from .worker import PATH
from .workspace import BUILT_IN, Workspace

# So that a page sees something of it soon and often.
SETTINGS = ("train.log_every=10", "train.checkpoint_every=25", "train.validate_every=200")
MAX_RUNNING = 1
# Lines of the log, and rows of figures, that a page gets at once.
NUM_LINES = 12
MAX_ROWS = 4000
MAX_LOG = 1 << 16
MAX_MINUTES = 24 * 60.0
# What a run that goes on is given at least, for what comes behind its training.
LEAST_MINUTES = 0.5
_ID = re.compile(r"[0-9a-f]{12}")
QUALITY = ("psnr", "spectral_snr", "byte_accuracy")
FIGURES = ("step", "split", "seconds", "loss", "usage", "perplexity", *QUALITY)


class Runs:
    """The runs of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.folder = workspace.hidden / "runs"
        # Those that this server started, so that the system can forget them when they end.
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, name: object, minutes: float, called: str) -> dict[str, Any]:
        """Train on a set. Refused for one too many (429)."""
        source = self.workspace.source(name)
        if sum(run["state"] == "running" for run in self.all()) >= MAX_RUNNING:
            raise Refused(429, "a run is on its way: stop it, or wait for it")
        stem = _slug(called or str(name))
        target = free_name(self.workspace.root / stem)
        run = {
            "id": secrets.token_hex(6),
            "folder": target.name,
            "source": source,
            "set": name,
            "called": called or str(name),
            "minutes": minutes,
        }
        words = [source, "--out", str(target), "--minutes", f"{minutes:g}", *SETTINGS]
        self._launch(run, words)
        return self.described(run)

    def resume(self, name: object) -> dict[str, Any]:
        run = self.find(name)
        if self.described(run)["state"] != "stopped":
            raise Refused(409, "there is nothing to resume")
        target = self.workspace.root / run["folder"]
        rows = _rows(target / "metrics.jsonl")
        spent = max((row.get("seconds", 0.0) for row in rows), default=0.0) / 60
        left = max(LEAST_MINUTES, run["minutes"] - spent)
        words = [run["source"], "--out", str(target), "--resume", "--minutes", f"{left:.2f}"]
        self._launch(run, words)
        return self.described(run)

    def stop(self, name: object) -> dict[str, Any]:
        """Tell a run to save itself and end."""
        run = self.find(name)
        if self._is_running(run):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(run["pid"]), signal.SIGTERM)
        return self.described(run)

    def find(self, name: object) -> dict[str, Any]:
        """What a run was started with. Refused (404)."""
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise Refused(404, "there is no such run")
        try:
            found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise Refused(404, "there is no such run") from error
        return found

    def all(self) -> list[dict[str, Any]]:
        """Every run, the newest first."""
        paths = [path for path in self.folder.glob("*.json") if _ID.fullmatch(path.stem)]
        paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        return [self.described(self.find(path.stem)) for path in paths]

    def described(self, run: dict[str, Any], seen: int = 0) -> dict[str, Any]:
        """How a run is. seen: rows of figures that are known already."""
        folder = self.workspace.root / run["folder"]
        lines = _lines(self.folder / f"{run['id']}.log")
        rows = _rows(folder / "metrics.jsonl")
        return {
            "id": run["id"],
            "name": run["folder"],
            "called": run["called"],
            "set": run["set"],
            "minutes": run["minutes"],
            "state": self._state(run, folder),
            "lines": lines[-NUM_LINES:],
            "num_rows": len(rows),
            "rows": rows[seen : seen + MAX_ROWS],
            "command": _command(run),
        }

    def _state(self, run: dict[str, Any], folder: Path) -> str:
        if self._is_running(run):
            return "running"
        if (folder / "report.html").exists():
            return "finished"
        if any((folder / "checkpoint").glob("step-*.safetensors")):
            return "stopped"
        return "failed"

    def _launch(self, run: dict[str, Any], words: list[str]) -> None:
        log = open(self.folder / f"{run['id']}.log", "ab")  # noqa: SIM115
        with log:
            # The child has the same open file, and with it the lock.
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            child = subprocess.Popen(
                [sys.executable, "-m", "vqkit", "train", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children.append(child)
        run["pid"] = child.pid
        write_text(self.folder / f"{run['id']}.json", json.dumps(run))

    def _is_running(self, run: dict[str, Any]) -> bool:
        self._children = [child for child in self._children if child.poll() is None]
        try:
            with open(self.folder / f"{run['id']}.log", "rb") as log:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def _command(run: dict[str, Any]) -> str:
    """What does the same in a terminal, where the files lie in a folder."""
    data = run["set"] if run["set"] in BUILT_IN else "FOLDER"
    words = ["vqkit", "train", data, "--out", run["folder"], "--minutes", f"{run['minutes']:g}"]
    return shlex.join(words)


def _slug(text: str) -> str:
    """A name for a folder, of letters, digits and hyphens alone."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "run"


def _lines(path: Path) -> list[str]:
    """The last lines of a log, without the folders that lie in them."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - MAX_LOG))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [PATH.sub("", line) for line in text.splitlines() if line.strip()]


def _is_shown(value: Any) -> bool:
    """Whether JSON has it: a loss that is not finite is not drawn."""
    return value is not None and (not isinstance(value, float) or math.isfinite(value))


def _rows(path: Path) -> list[dict[str, Any]]:
    """Figures of a run, those that a page draws."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        # The last one may still be written.
        if line.endswith("}"):
            row = json.loads(line)
            rows.append({name: row[name] for name in FIGURES if _is_shown(row.get(name))})
    return [row for row in rows if "split" in row]
