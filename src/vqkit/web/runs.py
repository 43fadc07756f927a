"""Training as processes of its own, which outlive the page and the server.

A run is a `vqkit train`, or the `vqkit train-prior` of a model that is there. All that is known of
it lies in files: what it was started with, what it prints, and the folder that it writes. Whoever
runs holds a lock on the log, which the system lets go of when the process ends: so it is known
whether one runs, whatever became of the server.
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
from .uploads import shown_name
from .worker import PATH
from .workspace import BUILT_IN, Workspace

# So that a page sees something of it soon and often.
SETTINGS = ("train.log_every=10", "train.checkpoint_every=25", "train.validate_every=200")
# The minutes that a person chooses are the only bound of a prior.
PRIOR_SETTINGS = ("train.max_minutes=null",)
CONDITIONS = ("auto", "none", "class", "caption")
# Below the folder of a model; the second is of a prior that replaces another, until it is complete.
PRIOR_FOLDER = "prior"
NEW_PRIOR_FOLDER = "prior-new"
PRIOR_FILE = "prior.safetensors"
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
BITS = ("bits_per_code", "bits_per_code_any_order")
FIGURES = ("step", "split", "seconds", "loss", "usage", "perplexity", *QUALITY, *BITS)


class Runs:
    """The runs of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.folder = workspace.hidden / "runs"
        # Those that this server started, so that the system can forget them when they end.
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, name: object, minutes: float, called: str) -> dict[str, Any]:
        """Train on a set. Refused for one too many (429)."""
        target = free_name(self.workspace.root / _slug(called or str(name)))
        return self._begin("model", target, name, minutes)

    def start_prior(
        self, model: object, name: object, minutes: float, condition: str, replaces: bool
    ) -> dict[str, Any]:
        """Train a prior of a model on a set. condition: one of CONDITIONS. replaces: the prior that
        is there, once this one is complete. Refused for one too many (429), and where there is one
        that is not to be replaced, or half of one (409).
        """
        folder = self.workspace.model(model)
        if any(_has_checkpoint(folder / inside) for inside in (PRIOR_FOLDER, NEW_PRIOR_FOLDER)):
            raise Refused(409, "a prior of this model is half trained: resume it")
        has_prior = (folder / PRIOR_FILE).exists()
        if has_prior and not replaces:
            raise Refused(409, "this model has a prior already")
        own = PRIOR_SETTINGS if condition == "auto" else (*PRIOR_SETTINGS, f"condition={condition}")
        return self._begin("prior", folder, name, minutes, own, has_prior)

    def resume(self, name: object) -> dict[str, Any]:
        run = self.find(name)
        if self._state(run) != "stopped":
            raise Refused(409, "there is nothing to resume")
        self._check_free()
        rows = _rows(self.work(run) / "metrics.jsonl")
        spent = max((row.get("seconds", 0.0) for row in rows), default=0.0) / 60
        left = max(LEAST_MINUTES, run["minutes"] - spent)
        self._launch(run, ["--resume", "--minutes", f"{left:.2f}"])
        return self.described(run)

    def _begin(
        self,
        kind: str,
        folder: Path,
        name: object,
        minutes: float,
        own: tuple[str, ...] = (),
        replaces: bool = False,
    ) -> dict[str, Any]:
        source = self.workspace.source(name)
        self._check_free()
        run = {
            "id": secrets.token_hex(6),
            "kind": kind,
            "folder": str(folder.relative_to(self.workspace.root)),
            "source": source,
            "set": name,
            "minutes": minutes,
            "settings": own,
            "replaces": replaces,
        }
        options = ["--minutes", f"{minutes:g}", *SETTINGS, *own]
        if replaces:
            # One that fails at once leaves it, and so is not taken for the one that is there.
            (folder / NEW_PRIOR_FOLDER).mkdir(exist_ok=True)
            options.append("--replace")
        self._launch(run, options)
        return self.described(run)

    def _check_free(self) -> None:
        if sum(run["state"] == "running" for run in self.all()) >= MAX_RUNNING:
            raise Refused(429, "a run is on its way: stop it, or wait for it")

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
        """Every run, the newest first; of the priors of a model the last one."""
        paths = [path for path in self.folder.glob("*.json") if _ID.fullmatch(path.stem)]
        paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for path in paths:
            run = self.find(path.stem)
            found.setdefault((run["kind"], run["folder"]), run)
        return [self.described(run) for run in found.values()]

    def described(self, run: dict[str, Any], seen: int = 0) -> dict[str, Any]:
        """How a run is. seen: rows of figures that are known already."""
        folder = self.model(run)
        lines = _lines(self.folder / f"{run['id']}.log")
        rows = _rows(self.work(run) / "metrics.jsonl")
        return {
            "id": run["id"],
            "kind": run["kind"],
            "model": self.workspace.id_of(folder),
            "name": shown_name(folder.name),
            "set": run["set"],
            "minutes": run["minutes"],
            "state": self._state(run),
            "lines": lines[-NUM_LINES:],
            "num_rows": len(rows),
            "rows": rows[seen : seen + MAX_ROWS],
            **_elsewhere(run, self.workspace.shown(folder)),
        }

    def model(self, run: dict[str, Any]) -> Path:
        """The folder of the model that a run makes, or makes a prior of."""
        found: Path = self.workspace.root / run["folder"]
        return found

    def work(self, run: dict[str, Any]) -> Path:
        """Where a run keeps its figures and checkpoints."""
        folder = self.model(run)
        if run["kind"] != "prior":
            return folder
        new = folder / NEW_PRIOR_FOLDER
        return new if run.get("replaces") and new.exists() else folder / PRIOR_FOLDER

    def _state(self, run: dict[str, Any]) -> str:
        if self._is_running(run):
            return "running"
        if (self.work(run) / "report.html").exists():
            return "finished"
        return "stopped" if _has_checkpoint(self.work(run)) else "failed"

    def _launch(self, run: dict[str, Any], options: list[str]) -> None:
        folder = str(self.model(run))
        words = ["train", run["source"], "--out", folder]
        if run["kind"] == "prior":
            words = ["train-prior", folder, run["source"]]
        log = open(self.folder / f"{run['id']}.log", "ab")  # noqa: SIM115
        with log:
            # The child has the same open file, and with it the lock.
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            child = subprocess.Popen(
                [sys.executable, "-m", "vqkit", *words, *options],
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


def _elsewhere(run: dict[str, Any], shown: str) -> dict[str, str]:
    """What does the same in a terminal and in Python, where the files lie in a folder."""
    data = run["set"] if run["set"] in BUILT_IN else "FOLDER"
    minutes = f"{run['minutes']:g}"
    words = ["train", data, "--out", shown, "--minutes", minutes]
    call = f"train({data!r}, {shown!r}, minutes={minutes})"
    if run["kind"] == "prior":
        own = list(run.get("settings", PRIOR_SETTINGS))
        words = ["train-prior", shown, data, "--minutes", minutes, *own]
        more = ""
        if run.get("replaces"):
            words.append("--replace")
            more = ", replace_prior=True"
        call = f"train_prior({shown!r}, {data!r}, overrides={own}, minutes={minutes}{more})"
    return {
        "command": shlex.join(["vqkit", *words]),
        "python": f"import vqkit\n\nmodel = vqkit.{call}",
    }


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoint").glob("step-*.safetensors"))


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
