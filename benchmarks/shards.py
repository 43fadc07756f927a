"""Claims stream_vs_memory, stream_tables_vs_memory, stream_start_memory, stream_memory_shards:
training from shards is as fast as training from memory, and takes no more memory for more samples.

    python benchmarks/shards.py [--quick] [--seed 0] [--json FILE]

stream_vs_memory: images a second of `vqkit train` (recipe emoji) from tar archives of 64x64 PNG
files, over those from one .npy file of the same images, which is held in memory; the mean of three
runs of each, in turns. stream_tables_vs_memory: the same from parquet tables with data.stream=true.
Items per second are those that the trainer reports, without what comes before and after its loop.
stream_start_memory, stream_memory_shards: private memory (as in streaming.py) of a process that
reads a million 8x8 images in archives, over that of ten thousand: when the set is open, and after
500 batches of 128 are read.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow
from bench.claims import Claim, machine, options, report
from bench.image_sets import arrays
from PIL import Image
from pyarrow import parquet
from streaming import memory

from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import open_images

PARSER = options(__doc__)

SIDE = 64
TINY = 8
A_SHARD = 1000
BATCH = 128


def images(count: int, side: int, seed: int) -> np.ndarray:
    """Crops of the built-in emoji, uint8 (N, side, side, 3)."""
    emoji = open_images("emoji", DataConfig(), seed)
    random = np.random.default_rng(seed)
    found = []
    for number in random.integers(len(emoji), size=count).tolist():
        image = Image.fromarray(arrays(emoji, [number])[0])
        left, top = random.uniform(0, 8, 2)
        box = (left, top, left + 24, top + 24)
        found.append(np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box)))
    return np.stack(found)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_archives(folder: Path, contents: list[bytes], count: int) -> None:
    """So many samples, the contents again and again, A_SHARD in an archive."""
    folder.mkdir(parents=True)
    again = cycle(contents)
    for first in range(0, count, A_SHARD):
        with tarfile.open(folder / f"{first:09}.tar", "w") as archive:
            for number, content in enumerate(islice(again, min(A_SHARD, count - first)), first):
                member = tarfile.TarInfo(f"{number:09}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_tables(folder: Path, contents: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for first in range(0, len(contents), A_SHARD):
        table = pyarrow.table({"image": contents[first : first + A_SHARD]})
        parquet.write_table(table, folder / f"{first:09}.parquet", row_group_size=250)


def speed(source: Path, out: Path, steps: int, *settings: str) -> float:
    """Items a second of a run."""
    command = [sys.executable, "-m", "vqkit", "train", str(source), "--out", str(out)]
    command += ["--recipe", "emoji", f"train.steps={steps}", "coder.steps=0"]
    command += [f"data.image_size=[{SIDE},{SIDE}]", *settings]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))["items_per_second"]


def speeds(work: Path, quick: bool, seed: int) -> list[Claim]:
    count = 1000 if quick else 10_000
    steps = 30 if quick else 400
    pixels = images(count, SIDE, seed)
    np.save(work / "memory.npy", pixels)
    contents = [png(one) for one in pixels]
    write_archives(work / "archives", contents, count)
    write_tables(work / "tables", contents)
    sources = {
        "memory": (work / "memory.npy",),
        "archives": (work / "archives",),
        "tables": (work / "tables", "data.stream=true"),
    }
    found: dict[str, list[float]] = {name: [] for name in sources}
    for turn in range(1 if quick else 3):
        for name, (source, *settings) in sources.items():
            out = work / f"run-{name}-{turn}"
            found[name].append(speed(source, out, steps, f"seed={seed}", *settings))
            print(name, round(found[name][-1]), flush=True)
    where = {**machine(), "images": count, "steps": steps, "seed": seed, "items_per_second": found}
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    return [
        Claim(claim, mean[name] / mean["memory"], "x", ">= 0.9", "from memory", where)
        for claim, name in (
            ("stream_vs_memory", "archives"),
            ("stream_tables_vs_memory", "tables"),
        )
    ]


def measured(source: Path, seed: int) -> dict[str, float]:
    """Private MiB with the set open, and after some batches."""
    data = open_images(source, DataConfig(), seed)
    opened = memory().private
    batches = data.train(0, BATCH, seed)
    for _ in range(500):
        next(batches)
    return {"open": opened, "read": memory().private}


def memories(work: Path, quick: bool, seed: int) -> list[Claim]:
    small, large = (2000, 10_000) if quick else (10_000, 1_000_000)
    contents = [png(one) for one in images(200, TINY, seed)]
    found = {}
    for count in (small, large):
        source = work / f"tiny-{count}"
        write_archives(source, contents, count)
        # In a process of its own, which nothing before has made larger.
        command = [sys.executable, __file__, "--measure", str(source), str(seed)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[count] = json.loads(done.stdout)
        print(count, found[count], flush=True)
    where = {**machine(), "samples": [small, large], "mib": found}
    peer = f"{small} samples"
    return [
        Claim(claim, found[large][when] / found[small][when], "x", "<= 1.1", peer, where)
        for claim, when in (("stream_start_memory", "open"), ("stream_memory_shards", "read"))
    ]


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measured(Path(sys.argv[2]), int(sys.argv[3]))))
        return
    arguments = PARSER.parse_args()
    with tempfile.TemporaryDirectory(prefix="vqkit-bench-") as folder:
        claims = speeds(Path(folder), arguments.quick, arguments.seed)
        claims += memories(Path(folder), arguments.quick, arguments.seed)
    report(claims, arguments)


if __name__ == "__main__":
    main()
