"""Which settings suit text that was looked at: all rules, and every number in them.

They are for `vqkit train` and `vqkit data` without a recipe. What a user sets wins over them.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import VqkitError
from ..base import Choice, Suggestion
from ..paths import named_or_below
from .files import is_text

# Files from which on whole ones can be held out.
ENOUGH_FILES = 20
# Suffixes of files whose lines are records.
RECORDS = frozenset([".csv", ".tsv", ".jsonl", ".ndjson", ".log"])
# Parts that few files are cut into, and their smallest size.
PARTS = 100
SMALLEST_PART = 64


def suggested(source: Path) -> Suggestion | None:
    """None where there is no text."""
    try:
        sizes = {path: path.stat().st_size for path in named_or_below([source], is_text)}
    except (OSError, VqkitError):
        return None
    if not sum(sizes.values()):
        return None
    choices = []
    if len(sizes) < ENOUGH_FILES:
        if all(path.suffix.lower() in RECORDS for path in sizes):
            setting = "data.item=line"
            because = "lines are records"
        else:
            size = max(SMALLEST_PART, sum(sizes.values()) // PARTS)
            setting = f"data.item=bytes:{size}"
            because = f"{len(sizes)} files are too few to hold whole ones out"
        choices.append(Choice((setting,), because))
    return Suggestion("text", "files of text", tuple(choices))
