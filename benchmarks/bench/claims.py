"""What every benchmark shares: its options, its claims, and the settings that a figure must be read
with.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Claim:
    """One figure: its goal as text ('>= 26.5'), the peer it is measured beside, and how to get it
    again.
    """

    claim: str
    value: float
    unit: str
    goal: str
    peer: str | None
    settings: dict


def options(description: str | None, work: bool = False) -> argparse.ArgumentParser:
    """A parser of --quick, --seed and --json; with `work` also --work."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a minute of one core: few steps and images"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    if work:
        parser.add_argument(
            "--work",
            type=Path,
            metavar="DIR",
            help="keeps what was trained and measured, and goes on",
        )
    return parser


def kept(file: Path, measure: Callable[[], dict]) -> dict:
    """What `file` says, else what `measure` finds, kept there."""
    if not file.exists():
        found = measure()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def report(claims: list[Claim], arguments: argparse.Namespace) -> None:
    """Print the claims, and write them where --json says; both say whether --quick was given."""
    for claim in claims:
        print(f"{claim.claim:<32} {claim.value:>10.4g} {claim.unit:<10} goal {claim.goal}")
    if arguments.quick:
        print("quick: these figures show that the script works, and are no measurements")
    if arguments.json:
        rows = [asdict(claim) | {"quick": arguments.quick} for claim in claims]
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def machine() -> dict:
    """Commit, processor and threads, for the settings of a claim."""
    import torch

    return {
        "commit": _commit(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _commit() -> str | None:
    """None without git, or outside of a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    """Its name as Linux has it, else as Python knows it."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
