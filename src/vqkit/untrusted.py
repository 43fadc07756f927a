"""Reading the files of an artifact, none of which is trusted: sizes are known before memory is taken, no pickle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import nn

from .errors import VqkitError

MAX_JSON = 4 << 20
"""bytes of config.json that are read at most"""

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def read_json(path: Path) -> dict[str, Any]:
    """A file of the folder. VqkitError when it is missing, too large or not a JSON object."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise VqkitError(f"{path} is larger than {MAX_JSON} bytes: not written by vqkit")
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise VqkitError(f"{path.parent} is not a vqkit artifact: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise VqkitError(f"cannot read {path}: {error}") from error
    if not isinstance(tree, dict):
        raise VqkitError(f"{path} is not a vqkit file")
    return tree


def filled(path: Path, build: Callable[[], ModuleT]) -> ModuleT:
    """A module with the weights of a file; sizes are compared on the meta device before any memory is taken."""
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in build().state_dict().items()}
    with safe_open(path, framework="pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        if found != expected:
            wrong = sorted(set(found.items()) ^ set(expected.items()))[0][0]
            raise VqkitError(f"{path} does not fit its settings (tensor {wrong}); one of the two was replaced")
        model = build()
        model.load_state_dict({name: file.get_tensor(name) for name in found})
    return model
