"""What a run resumes from: one safetensors file of all that changes, counters in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import VqkitError
from ..files import write_whole

FOLDER = "checkpoint"


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]
) -> Path:
    """Write folder/checkpoint/step-N.safetensors, then drop the older ones.

    The file appears under its name only when it is whole and on disk, so a crash or a full disk
    leaves the last one.
    Errors: VqkitError when it cannot be written.
    """
    path = folder / FOLDER / f"step-{step:09d}.safetensors"
    try:
        write_whole(
            path,
            lambda temporary: save_file(tensors, temporary, metadata={"state": json.dumps(state)}),
        )
    except (OSError, SafetensorError) as error:
        kept = find_checkpoint(folder)
        rest = "nothing was saved"
        if kept:
            rest = f"the last checkpoint, {kept.name}, is intact: free space and add --resume"
        raise VqkitError(
            f"cannot write the checkpoint of step {step} in {path.parent}: {error}; {rest}"
        ) from error
    for old in path.parent.glob("step-*.safetensors"):
        if old != path:
            old.unlink(missing_ok=True)
    return path


def find_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run, None if there is none."""
    return max((folder / FOLDER).glob("step-*.safetensors"), default=None)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name and the saved counters. VqkitError when the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads(file.metadata()["state"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise VqkitError(f"cannot read the checkpoint {path}: {error}") from error


def resumed_config(folder: Path) -> dict[str, Any] | None:
    """Settings, as plain values, of the run that is waiting in a folder.

    None if there is no checkpoint.
    """
    checkpoint = find_checkpoint(folder)
    if checkpoint is None:
        return None
    _, state = load_checkpoint(checkpoint)
    return state["config"]
