"""Holds the losses of all recorded runs against those of today; a few seconds each.

    python scripts/golden_losses.py

Prints the largest relative difference of every run, and fails where one is above 1e-5: another
processor adds up in another order.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import vqkit

PARSER = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
RECORDED = Path(__file__).resolve().parents[1] / "tests" / "golden" / "losses.json"
TOLERANCE = 1e-5


def difference(common: list[str], recorded: dict) -> float:
    """The largest relative difference between recorded losses and those of the same settings
    now.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        vqkit.train("emoji", run, "emoji", [*common, *recorded["settings"]])
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = []
    for split in ("train", "validation"):
        losses = [row["loss"] for row in rows if row.get("split") == split]
        pairs = zip(losses, recorded[split], strict=True)
        found += [abs(now - before) / abs(before) for now, before in pairs]
    return max(found)


def main() -> int:
    PARSER.parse_args()
    tree = json.loads(RECORDED.read_text())
    largest = 0.0
    for name, recorded in tree["runs"].items():
        one = difference(tree["common"], recorded)
        print(f"{name:<20} {one:.1e}", flush=True)
        largest = max(largest, one)
    return int(largest > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
