"""`vqkit check` of a model, which must find nothing that depends on how it is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vqkit import cli
from vqkit.pipelines import elsewhere


def assert_invariant(
    run: Path, source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What it found. Neither codes nor values, nor the exact ones with the fewest instructions."""
    # Each set of instructions is a process of its own: tests/apps/test_check.py has all of them.
    fewest = {"SSE4.2": elsewhere.INSTRUCTIONS["SSE4.2"]}
    monkeypatch.setattr(elsewhere, "INSTRUCTIONS", fewest)
    out = folder / "check.json"
    assert cli.main(["check", str(run), str(source), "--split", "all", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["code_flips"]
    for flips in (*found["code_flips"].values(), *found["value_flips"].values()):
        assert flips[0] == 0
    there = found["elsewhere"]["SSE4.2"]
    assert there["exact codes"][0] == there["exact values"][0] == 0
    return found
