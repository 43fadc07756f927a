"""Claim help_seconds: `vqkit --help` answers at once, without torch.

    python benchmarks/help.py [--quick] [--seed 0] [--json FILE]

Median wall time of whole processes (20; --quick: 5), after one that warms the file cache; `import
vqkit` beside it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from bench.claims import Claim, options, report

PARSER = options(__doc__)


def seconds(command: list[str], times: int) -> list[float]:
    subprocess.run(command, check=True, capture_output=True)
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        found.append(time.perf_counter() - begin)
    return found


def main() -> None:
    arguments = PARSER.parse_args()
    times = 5 if arguments.quick else 20
    shown = seconds([sys.executable, "-m", "vqkit", "--help"], times)
    imported = seconds([sys.executable, "-c", "import vqkit"], times)
    bare = seconds([sys.executable, "-c", "pass"], times)
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, vqkit.cli; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
    )
    settings = {
        "times": times,
        "slowest": max(shown),
        "import_vqkit": median(imported),
        "bare_python": median(bare),
        "torch_loaded": loaded.stdout.strip(),
    }
    report([Claim("help_seconds", median(shown), "s", "<= 0.3", None, settings)], arguments)


if __name__ == "__main__":
    main()
