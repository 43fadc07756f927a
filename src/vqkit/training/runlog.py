"""Where a run's figures go: metrics.jsonl always, TensorBoard when it is installed."""

from __future__ import annotations

import contextlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import VqkitError
from ..files import write_text

FILE = "metrics.jsonl"


class RunLog:
    """Rows of figures and events of a run, on disk at once and in memory for the report.

    A row is {"step": int, "split": "train" | "validation", name: number, ...}; an event {"step",
    "level", "message"}. Rows of a resumed run that lie after the checkpoint are dropped: they will
    be made again.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        self.path = folder / FILE
        self.rows: list[dict[str, Any]] = []
        if resume_step is not None and self.path.exists():
            self.rows = _rows_until(resume_step, self.path)
        try:
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
            self._file = open(self.path, "a", encoding="utf-8")
            self._board = _tensorboard(folder / "tensorboard", resume_step)
        except OSError as error:
            raise VqkitError(
                f"cannot write to {folder}: {error.strerror}; choose another --out"
            ) from error

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; VqkitError when the disk is full."""
        self.rows.append(row)
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            if self._board is not None:
                for name, value in row.items():
                    if name not in ("step", "split", "message", "level"):
                        self._board.add_scalar(f"{row['split']}/{name}", value, row["step"])
        except OSError as error:
            raise VqkitError(
                f"cannot write {self.path}: {error.strerror}; free space and add --resume"
            ) from error

    def event(self, step: int, level: str, message: str) -> None:
        self.add({"step": step, "level": level, "message": message})

    @property
    def history(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "message" not in row]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "message" in row]

    def close(self) -> None:
        # What could not be written has been said, and would only fail once more.
        with contextlib.suppress(OSError):
            self._file.close()
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()


def _rows_until(step: int, path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        # The last line is cut off where the process was killed while it wrote.
        if line.endswith("}"):
            row = json.loads(line)
            if row["step"] <= step:
                rows.append(row)
    return rows


def _tensorboard(folder: Path, resume_step: int | None) -> Any:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    purge_step = None if resume_step is None else resume_step + 1
    return SummaryWriter(str(folder), purge_step=purge_step)
