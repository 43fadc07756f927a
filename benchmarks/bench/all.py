"""Claim bench_scripts_ok: every script of benchmarks/ goes through in its quick form.

    PYTHONPATH=benchmarks python -m bench.all [NAME ...] [--json FILE]

Each script is a process of its own, and what it prints is shown. One that fails does not stop the
others; the exit status is 1 then, and the failed ones are named at the end. With --json, the claims
of every script are written beside FILE, as NAME.json. NAMEs are scripts without `.py`; none = all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from bench.claims import Claim, machine, report

PARSER = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
PARSER.add_argument("names", nargs="*", metavar="NAME")
PARSER.add_argument("--json", type=Path, metavar="FILE")
PARSER.set_defaults(quick=True)

SCRIPTS = Path(__file__).resolve().parents[1]


def run(script: Path, figures: Path | None) -> dict:
    """One script in its quick form: its exit status and seconds. figures: where its claims go."""
    print(f"== {script.stem}", flush=True)
    command = [sys.executable, str(script), "--quick"]
    if figures:
        command += ["--json", str(figures)]
    began = time.perf_counter()
    status = subprocess.run(command).returncode
    seconds = time.perf_counter() - began
    print(f"== {script.stem}: exit status {status}, {seconds:.0f} s\n", flush=True)
    return {"script": script.stem, "status": status, "seconds": seconds}


def main(scripts: Path = SCRIPTS) -> int:
    arguments = PARSER.parse_args()
    names = arguments.names or sorted(path.stem for path in scripts.glob("*.py"))
    folder = arguments.json and arguments.json.parent
    rows = [run(scripts / f"{name}.py", folder and folder / f"{name}.json") for name in names]
    for row in rows:
        result = "failed" if row["status"] else "ok"
        print(f"{row['script']:<20} {row['seconds']:>5.0f} s  {result}")
    failed = [row["script"] for row in rows if row["status"]]
    good = len(rows) - len(failed)
    where = {**machine(), "rows": rows}
    report(
        [Claim("bench_scripts_ok", good, f"of {len(rows)}", str(len(rows)), None, where)],
        arguments,
    )
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
