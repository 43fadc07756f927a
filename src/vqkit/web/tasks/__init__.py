"""What a worker can do: functions from plain values to plain values and files, each of which calls
the apps.

A task is `task(context, args, blobs, tell) -> Result`; a server that needs another one adds a line
to TASKS. Paths in the arguments come from the server, which makes them of ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from .context import Context, Result

__all__ = ["TASKS", "Context", "Result", "perform"]

# Module and function of each.
TASKS = {
    "nothing": ("context", "nothing"),
    "check_file": ("items", "check_file"),
    "samples": ("items", "samples"),
    "look": ("looking", "look"),
    "paint": ("looking", "paint"),
    "atlas": ("looking", "atlas"),
    "survey": ("training", "survey"),
    "follow": ("training", "follow"),
    "follow_prior": ("training", "follow_prior"),
    "abilities": ("making", "abilities"),
    "generate": ("making", "generate"),
    "inpaint": ("making", "inpaint"),
    "variations": ("making", "variations"),
    "interpolate": ("making", "interpolate"),
    "restyle": ("making", "restyle"),
    "denoise": ("making", "denoise"),
    "compress": ("compressing", "compress"),
    "open": ("compressing", "open_file"),
    "compare": ("compressing", "compare"),
    "about": ("serving", "about"),
    "encode_files": ("serving", "encode"),
    "decode_codes": ("serving", "decode"),
    "compress_content": ("serving", "compress"),
    "decompress_content": ("serving", "decompress"),
    "generate_files": ("serving", "generate"),
}


def perform(
    context: Context,
    name: str,
    args: dict[str, Any],
    blobs: Sequence[bytes],
    tell: Callable[[float], None],
) -> tuple[dict[str, Any], list[bytes]]:
    """Result and files of a task."""
    module, function = TASKS[name]
    found: Result = getattr(import_module(f".{module}", __package__), function)(
        context, args, blobs, tell
    )
    return found.values, found.files
