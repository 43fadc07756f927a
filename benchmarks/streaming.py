"""Claim stream_memory_growth: an epoch over 100,000 files takes no more memory at its end than near
its beginning.

    python benchmarks/streaming.py [--quick] [--seed 0] [--json FILE]

Writes 100,000 small JPEG and PNG files (--quick: 2,000) into a temporary folder: crops of the
built-in emoji at random places and scales. They are opened as a streamed set and read for one epoch
with two workers. The memory of the parent and its workers is taken at 10 % and 100 % of the epoch,
in two ways, and the larger growth is reported: resident memory (RSS), and private memory. RSS alone
cannot see the commonest failure: a forked worker that copies shared pages as it touches them has
the same RSS before and after. Private memory is Pss_Anon + Pss_Shmem of /proc/PID/smaps_rollup:
pages that processes share are divided among them, and files such as libtorch are left out, as other
programs map them too.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from bench.claims import Claim, machine, options, report
from bench.image_sets import arrays
from PIL import Image

from vqkit.signals.image.config import AugmentConfig, DataConfig
from vqkit.signals.image.source import ImageData, open_images

PARSER = options(__doc__)

BATCH = 128
SIDE = 32


def write_images(folder: Path, count: int, seed: int) -> None:
    """Crops of emoji that were scaled up to 48x48; every second one as JPEG."""
    emoji = open_images("emoji", DataConfig(), seed)
    random = np.random.default_rng(seed)
    for number in range(count):
        if number % 1000 == 0:
            (folder / f"{number // 1000:03}").mkdir()
        pixels = arrays(emoji, [int(random.integers(len(emoji)))])[0]
        left, top = random.uniform(0, 8, 2)
        box = (left, top, left + random.uniform(16, 24), top + random.uniform(16, 24))
        image = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
        name = folder / f"{number // 1000:03}" / f"{number:06}"
        if number % 2:
            image.save(f"{name}.jpg", quality=90)
        else:
            image.save(f"{name}.png", compress_level=1)


@dataclass(frozen=True)
class Memory:
    """MiB of this process and its children; see above."""

    resident: float
    private: float


def memory() -> Memory:
    process = psutil.Process()
    members = (process, *process.children(recursive=True))
    resident = sum(member.memory_info().rss for member in members) / 2**20
    return Memory(resident, sum(private_kib(member.pid) for member in members) / 2**10)


def private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(
        int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))
    )


def read_epoch(data: ImageData, seed: int) -> tuple[Memory, Memory, float]:
    """Memory at 10 % and at 100 % of one epoch, and images per second."""
    steps = -(-len(data.splits["train"]) // BATCH)
    batches = data.train(0, BATCH, seed)
    began = time.perf_counter()
    for step in range(steps):
        next(batches)
        if step == steps // 10:
            early = memory()
    late = memory()  # before `batches` goes, and the workers with it
    return early, late, steps * BATCH / (time.perf_counter() - began)


def main() -> None:
    arguments = PARSER.parse_args()
    count = 2_000 if arguments.quick else 100_000
    config = DataConfig(max_memory_mb=1, num_workers=2, augment=AugmentConfig(shift=2, flip=True))
    with tempfile.TemporaryDirectory(prefix="vqkit-bench-") as name:
        write_images(Path(name), count, arguments.seed)
        before = memory()
        began = time.perf_counter()
        data = open_images(name, config, arguments.seed)
        opening = time.perf_counter() - began
        opened = memory()
        assert not data.in_memory and len(data) == count
        early, late, speed = read_epoch(data, arguments.seed)
    growth = {
        kind: 100 * (getattr(late, kind) / getattr(early, kind) - 1)
        for kind in ("resident", "private")
    }
    settings = {
        "files": count,
        "batch": BATCH,
        "workers": config.num_workers,
        "side": SIDE,
        "seed": arguments.seed,
    }
    for kind in ("resident", "private"):
        at = f"{kind}_mib_at"
        settings |= {
            f"{at}_10": round(getattr(early, kind), 2),
            f"{at}_100": round(getattr(late, kind), 2),
        }
        print(
            f"{kind} at 10 %: {settings[f'{at}_10']} MiB, at 100 %: {settings[f'{at}_100']} MiB "
            f"({growth[kind]:+.2f} %)"
        )
    settings |= {"images_per_second": round(speed), "open_seconds": round(opening, 1)}
    settings |= {"open_growth_mib": round(opened.resident - before.resident, 1)}
    worst = round(max(growth.values()), 2)
    report(
        [Claim("stream_memory_growth", worst, "%", "<= 5", None, {**machine(), **settings})],
        arguments,
    )


if __name__ == "__main__":
    main()
