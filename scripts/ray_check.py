"""`vqkit tokenize --engine ray` on a cluster of two nodes that are processes of this machine.

    python scripts/ray_check.py

Prints a line for each: the cache is that of the local engine to the byte; workers that would take
all CPUs are refused before the start; a cluster that goes in the middle ends with a sentence, and
--resume does the rest, on another cluster and without one, with the bytes of a run that nothing
disturbed. The exit status is 1 where one does not hold. It takes some minutes: too long for a test.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# A model with trained weights that lies in the repository.
MODEL = Path(__file__).parents[1] / "tests" / "golden" / "emoji-model"


def vqkit(*words: object, address: str | None = None) -> subprocess.Popen[str]:
    variables = dict(os.environ)
    variables.pop("RAY_ADDRESS", None)
    if address is not None:
        variables["RAY_ADDRESS"] = address
    return subprocess.Popen(
        [sys.executable, "-m", "vqkit", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status, and what was said."""
    output, errors = process.communicate(timeout=900)
    return process.returncode, output + errors


def write_source(folder: Path, num_shards: int, samples: int) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as archive:
            for number in range(samples):
                buffer = io.BytesIO()
                values = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(values).save(buffer, "PNG")
                member = tarfile.TarInfo(f"{shard:03}-{number:05}.png")
                member.size = len(buffer.getvalue())
                archive.addfile(member, io.BytesIO(buffer.getvalue()))
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("shard-*")}


def two_nodes() -> Any:
    """A cluster of two nodes with three CPUs."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    return cluster


def main() -> int:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    failures = 0

    def say(holds: bool, what: str) -> None:
        nonlocal failures
        failures += not holds
        print(f"{'ok' if holds else 'FAILED'}  {what}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = write_source(work / "source", 6, 100)
        command = ("tokenize", MODEL, source)
        assert ended(vqkit(*command, "--out", work / "local", "--workers", 1))[0] == 0
        cluster = two_nodes()
        on_ray = (*command, "--engine", "ray")

        began = time.perf_counter()
        status, said = ended(
            vqkit(*on_ray, "--out", work / "ray", "--workers", 2, address=cluster.address)
        )
        seconds = time.perf_counter() - began
        same = bytes_of(work / "ray") == bytes_of(work / "local")
        say(status == 0 and same, f"two nodes write the bytes of one process ({seconds:.0f} s)")
        if status:
            print(said)

        began = time.perf_counter()
        status, said = ended(
            vqkit(*on_ray, "--out", work / "many", "--workers", 3, address=cluster.address)
        )
        seconds = time.perf_counter() - began
        refused = status == 2 and "enough for 2 workers" in said
        say(refused, f"three workers on three CPUs are refused ({seconds:.0f} s)")
        if not refused:
            print(said)

        many = write_source(work / "many-source", 40, 100)
        long = ("tokenize", MODEL, many, "--workers", 2, "--out")
        on_ray = (*long, work / "cut", "--engine", "ray")
        process = vqkit(*on_ray, address=cluster.address)
        while not list((work / "cut").glob("shard-*.json")) and process.poll() is None:
            time.sleep(0.2)
        cluster.shutdown()
        began = time.perf_counter()
        status, said = ended(process)
        seconds = time.perf_counter() - began
        left = 40 - len(list((work / "cut").glob("shard-*.json")))
        told = status == 2 and "--resume" in said and "Traceback" not in said
        say(told and left > 0, f"a cluster that goes is said after {seconds:.0f} s, {left} left")
        print(said.strip().splitlines()[-1:] if told else said)
        shutil.copytree(work / "cut", work / "alone")
        assert ended(vqkit(*long, work / "whole"))[0] == 0

        cluster = two_nodes()
        began = time.perf_counter()
        status, said = ended(vqkit(*on_ray, "--resume", address=cluster.address))
        seconds = time.perf_counter() - began
        cluster.shutdown()
        same = bytes_of(work / "cut") == bytes_of(work / "whole")
        say(status == 0 and same, f"--resume on another cluster does the rest ({seconds:.0f} s)")
        if status:
            print(said)

        status, said = ended(vqkit(*long, work / "alone", "--resume"))
        same = bytes_of(work / "alone") == bytes_of(work / "whole")
        say(status == 0 and same, "--resume on this machine alone does the rest")
        if status:
            print(said)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
