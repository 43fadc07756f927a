"""Claims tokenize_efficiency, tokenize_kills, tokenize_memory and tokenize_readers: many samples to
tokens, with `vqkit tokenize` and `vqkit tokens materialize` as processes of their own.

    python benchmarks/tokens_at_scale.py [--quick] [--seed 0] [--json FILE] [--only NAME ...]

Images are parts of a photograph at random places, in tar archives of a thousand.

efficiency  images a second of two workers over those of one, medians of three rounds in turn, of
            100,000 images, and of 8,000, where starting processes shows; both are included
kills       runs that end with every sample exactly once, of 30 in which a driver or one of its two
            workers gets a SIGKILL at a random time, and the same command with --resume follows
memory      the largest resident memory of a run over a million small samples beside that of one
            over ten thousand, one worker, all in one archive; the same for materialize
readers     items that megatron-core and datatrove give back as they were written, of all

The script has another name than the verb: Python's own module `tokenize` would be hidden by it.
"""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import numpy as np
from bench.claims import Claim, machine, options, report
from PIL import Image

NAMES = ("efficiency", "kills", "memory", "readers")
PARSER = options(__doc__)
PARSER.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
SAMPLES_A_SHARD = 1000
# Small enough that a million of them take minutes.
SIDE = 8
# A small model of the emoji that lies in the repository.
MODEL = Path(__file__).parents[1] / "tests" / "golden" / "emoji-model"


def vqkit(*words: object) -> list[str]:
    return [sys.executable, "-m", "vqkit", *map(str, words)]


def run(*words: object) -> None:
    done = subprocess.run(vqkit(*words), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"vqkit {words[0]} failed:\n{done.stderr}")


def parts(count: int, side: int, seed: int) -> list[bytes]:
    """PNG files of parts of a photograph."""
    from skimage import data

    photo = data.coffee()
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        top = generator.integers(0, photo.shape[0] - side)
        left = generator.integers(0, photo.shape[1] - side)
        buffer = io.BytesIO()
        Image.fromarray(photo[top : top + side, left : left + side]).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def write_shards(folder: Path, images: list[bytes], count: int) -> Path:
    """`count` samples in archives, the images over and over, each under a name of its own."""
    folder.mkdir(parents=True)
    for first in range(0, count, SAMPLES_A_SHARD):
        with tarfile.open(folder / f"{first // SAMPLES_A_SHARD:06d}.tar", "w") as archive:
            for number in range(first, min(count, first + SAMPLES_A_SHARD)):
                member = tarfile.TarInfo(f"{number:09d}.png")
                content = images[number % len(images)]
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                archive.members = []
    return folder


def write_one_shard(folder: Path, images: list[bytes], count: int) -> Path:
    """All samples in a single archive."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "all.tar", "w") as archive:
        for number in range(count):
            member = tarfile.TarInfo(f"{number:09d}.png")
            content = images[number % len(images)]
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
            archive.members = []
    return folder


# --------------------------------------------------------------------------------------- efficiency


def efficiency(work: Path, artifact: Path, quick: bool, seed: int) -> list[Claim]:
    counts, rounds = ((400, 800), 1) if quick else ((8000, 100_000), 3)
    images = parts(200, 32, seed)
    claims = []
    for count in counts:
        source = write_shards(work / f"source-{count}", images, count)
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for workers in rates:
                out = work / "tokens"
                began = time.perf_counter()
                run("tokenize", artifact, source, "--out", out, "--workers", workers)
                rates[workers].append(count / (time.perf_counter() - began))
                shutil.rmtree(out)
        ratio = median(rates[2]) / median(rates[1])
        where = {**machine(), "samples": count, "images_per_second": rates}
        name = "tokenize_efficiency" if count == counts[-1] else "tokenize_efficiency_small"
        claims.append(Claim(name, ratio, "x", ">= 1.8", "one worker", where))
    return claims


# -------------------------------------------------------------------------------------------- kills


def children(pid: int) -> list[int]:
    """Processes that a process started, as Linux has them, but for the tracker of resources."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and b"spawn_main" in command:
            found.append(int(path.parent.name))
    return found


def one_kill(command: list[str], seconds: float, draw: random.Random) -> str:
    """Start a command, kill the driver or a worker after so long, and see it to its end: who was
    killed.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + draw.random() * seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)
    whom = draw.choice(["driver", "worker"])
    mine = children(process.pid)
    if process.poll() is not None:
        return "nobody"
    if whom == "worker" and mine:
        os.kill(draw.choice(mine), signal.SIGKILL)
        process.wait()
        return "worker"
    process.kill()
    process.wait()
    return "driver"


def sample_counts(out: Path) -> Counter[str]:
    """How often each sample is in a cache that is whole."""
    from vqkit.tokens.cache import open_cache

    found: Counter[str] = Counter()
    for _, rows in open_cache(out).rows():
        found.update(rows.ids)
    return found


def kills(work: Path, artifact: Path, quick: bool, seed: int) -> Claim:
    from vqkit.tokens.dataset import verify

    count, times = (240, 2) if quick else (1200, 30)
    source = work / "source"
    source.mkdir(parents=True)
    images = parts(60, 32, seed)
    for shard in range(12):
        with tarfile.open(source / f"{shard:02}.tar", "w") as archive:
            for number in range(shard, count, 12):
                member = tarfile.TarInfo(f"{number:06d}.png")
                member.size = len(images[number % 60])
                archive.addfile(member, io.BytesIO(images[number % 60]))
    command = ["tokenize", artifact, source, "--workers", 2]
    began = time.perf_counter()
    run(*command, "--out", work / "whole")
    seconds = time.perf_counter() - began
    wanted = {path.name: path.read_bytes() for path in (work / "whole").glob("shard-*.parquet")}
    draw = random.Random(seed)
    good = 0
    killed: Counter[str] = Counter()
    for number in range(times):
        out = work / f"killed-{number}"
        killed[one_kill(vqkit(*command, "--out", out, "--resume"), seconds, draw)] += 1
        run(*command, "--out", out, "--resume")
        once = sample_counts(out) == dict.fromkeys((f"{one:06d}" for one in range(count)), 1)
        there = {path.name: path.read_bytes() for path in out.glob("shard-*.parquet")}
        left = [path for path in out.iterdir() if path.name.startswith(".")]
        is_good = once and there == wanted and not verify(out) and not left
        print(f"kill {number}: {killed.most_common()}, {'whole' if is_good else out}", flush=True)
        good += is_good
        shutil.rmtree(out, ignore_errors=True)
    where = {**machine(), "samples": count, "shards": 12, "killed": dict(killed)}
    return Claim("tokenize_kills", good, f"of {times}", str(times), None, where)


# ------------------------------------------------------------------------------------------- memory


def peak(*words: object) -> float:
    """The largest resident memory of a command, MiB."""
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], "
        "stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *vqkit(*words)], check=True, capture_output=True, text=True
    )
    # Linux counts in KiB, macOS in bytes.
    return int(done.stdout) / (1 << 10 if sys.platform != "darwin" else 1 << 20)


def memory(work: Path, artifact: Path, quick: bool, seed: int) -> list[Claim]:
    small, large = (500, 3000) if quick else (10_000, 1_000_000)
    images = parts(200, SIDE, seed)
    found: dict[str, dict[int, float]] = {"tokenize": {}, "materialize": {}}
    for count in (small, large):
        # One archive: what grows with a shard shows, too.
        source = write_one_shard(work / f"source-{count}", images, count)
        tokens = work / f"tokens-{count}"
        words = ("tokenize", artifact, source, "--out", tokens, "--workers", 1, "--device", "cpu")
        found["tokenize"][count] = peak(*words)
        words = ("tokens", "materialize", tokens, "--to", "megatron", "--out", work / f"ds-{count}")
        found["materialize"][count] = peak(*words)
        shutil.rmtree(source)
    claims = []
    for name, goal in (("tokenize", "<= 1.1"), ("materialize", "<= 1.1")):
        ratio = found[name][large] / found[name][small]
        where = {**machine(), "samples": [small, large], "mib": found[name]}
        claim = "tokenize_memory" if name == "tokenize" else "tokenize_memory_materialize"
        claims.append(Claim(claim, ratio, "x", goal, f"{small} samples", where))
    return claims


# ------------------------------------------------------------------------------------------ readers


def readers(work: Path, artifact: Path, quick: bool, seed: int) -> Claim:
    from datatrove.utils.dataset import DatatroveFileDataset
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    from vqkit.tokens.dataset import open_dataset

    count = 100 if quick else 2000
    source = write_shards(work / "source", parts(100, 32, seed), count)
    run("tokenize", artifact, source, "--out", work / "tokens", "--workers", 1)
    good = total = 0
    for order in ("raster", "coarse-first", "delay"):
        made = {}
        for form in ("jsonl", "megatron", "datatrove"):
            out = work / f"{form}-{order}"
            words = ("--to", form, "--order", order, "--out", out)
            run("tokens", "materialize", work / "tokens", *words)
            made[form] = open_dataset(out)
        megatron = IndexedDataset(str(work / f"megatron-{order}" / "tokens"))
        length = len(made["jsonl"].item(0).tokens)
        path = work / f"datatrove-{order}" / "00000_tokens.ds"
        # All items have one length, which windows are as long as.
        datatrove = DatatroveFileDataset(str(path), length - 1)
        for number in range(count):
            wanted = made["jsonl"].item(number).tokens.tolist()
            good += megatron[number].tolist() == wanted
            good += datatrove[number]["input_ids"].tolist() == wanted
            total += 2
    where = {**machine(), "samples": count}
    return Claim("tokenize_readers", good, f"of {total}", str(total), "their own readers", where)


def main() -> None:
    arguments = PARSER.parse_args()
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        steps = {"efficiency": efficiency, "kills": kills, "memory": memory, "readers": readers}
        for name in arguments.only:
            found = steps[name](work / name, MODEL, arguments.quick, arguments.seed)
            claims += found if isinstance(found, list) else [found]
            shutil.rmtree(work / name)
    report(claims, arguments)


if __name__ == "__main__":
    main()
