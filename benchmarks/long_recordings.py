"""Claim audio_memory_10h: a recording of ten hours takes no more memory than one of a minute.

    python benchmarks/long_recordings.py [--quick] [--seed 0] [--run DIR] [--work DIR] [--json FILE]

A recording of ten hours (--quick: of five minutes) at 8 kHz is made of the French prompts of
Debian's asterisk-core-sounds, in a random order and at random levels, again and again; its first
minute is a file of its own. Both go through `vqkit compress`, `decompress` and `reconstruct`, each
in a process of its own, of which the peak of resident memory is taken. The figure is the largest
ratio of the three. --run: a codec of 8 kHz; without it one is trained for a moment, which needs the
same memory.

What comes back must be as long as what went in, be the same from `decompress` and `reconstruct`,
and begin with what comes back of the minute alone, up to what is heard of the second minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from bench.claims import Claim, machine, options, report
from bench.speech_sets import RATE, UNHEARD, read_all, write_prompts

PARSER = options(__doc__, work=True)
PARSER.add_argument("--run", type=Path, metavar="DIR")

SECONDS = 36_000
QUICK_SECONDS = 300
SHORT_SECONDS = 60
# Seconds before the end of the minute in which the next one may be heard.
HEARD = 2
TINY = ["train.steps=20", "train.guard=off", "coder.steps=20"]


def trained(work: Path, seed: int) -> Path:
    out = work / "run"
    if not out.exists():
        command = [sys.executable, "-m", "vqkit", "train", str(work / "unheard"), "--out", str(out)]
        subprocess.run([*command, *TINY, f"seed={seed}"], check=True)
    return out


def write_recordings(work: Path, seconds: int, seed: int) -> tuple[Path, Path]:
    """The long recording and the short one."""
    prompts = list(read_all(work / "unheard" / UNHEARD, most=1000).values())
    random = np.random.default_rng(seed)
    long = work / f"{seconds}.wav"
    left = seconds * RATE
    with soundfile.SoundFile(long, "w", RATE, 1, "PCM_16") as sound:
        while left:
            samples = prompts[random.integers(len(prompts))][:left]
            sound.write(np.rint(samples * random.uniform(0.2, 1)).astype(np.int16))
            left -= len(samples)
    short = work / f"{SHORT_SECONDS}.wav"
    first, _ = soundfile.read(long, SHORT_SECONDS * RATE, dtype="int16")
    soundfile.write(short, first, RATE, "PCM_16")
    return long, short


def peak_of(*words: str | Path) -> tuple[float, float]:
    """MiB of resident memory at the peak of a command, and the seconds that it took."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "vqkit", *map(str, words)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"vqkit {' '.join(map(str, words))} failed")
    return usage.ru_maxrss / 1024, time.perf_counter() - began


def peaks(run: Path, sound: Path) -> dict[str, tuple[float, float]]:
    """Of the three verbs, in order."""
    coded = sound.with_suffix(".vq")
    decoded = sound.with_suffix(".decoded.wav")
    folder = sound.with_suffix("")
    (folder / sound.name).unlink(missing_ok=True)
    return {
        "compress": peak_of("compress", run, sound, "--out", coded, "--force"),
        "decompress": peak_of("decompress", coded, "--model", run, "--out", decoded, "--force"),
        "reconstruct": peak_of("reconstruct", run, sound, "--out", folder),
    }


def check(long: Path, short: Path) -> None:
    """See above. AssertionError."""
    decoded = long.with_suffix(".decoded.wav")
    assert soundfile.info(decoded).frames == soundfile.info(long).frames
    reconstructed = long.with_suffix("") / long.name
    with soundfile.SoundFile(decoded) as one, soundfile.SoundFile(reconstructed) as other:
        assert one.frames == other.frames
        for block in one.blocks(1 << 20, dtype="int16"):
            assert np.array_equal(block, other.read(1 << 20, "int16"))
    count = (SHORT_SECONDS - HEARD) * RATE
    first, _ = soundfile.read(decoded, count, dtype="int16")
    alone, _ = soundfile.read(short.with_suffix(".decoded.wav"), count, dtype="int16")
    assert np.array_equal(first, alone)


def main() -> None:
    arguments = PARSER.parse_args()
    seconds = QUICK_SECONDS if arguments.quick else SECONDS
    with tempfile.TemporaryDirectory(prefix="vqkit-bench-") as name:
        work = arguments.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        write_prompts(work)
        run = arguments.run or trained(work, arguments.seed)
        long, short = write_recordings(work, seconds, arguments.seed)
        # The first call compiles, in more memory than any other.
        peaks(run, short)
        of_minute = peaks(run, short)
        of_hours = peaks(run, long)
        check(long, short)
        size = long.with_suffix(".vq").stat().st_size
    settings: dict = {"seconds_of_sound": seconds, "seed": arguments.seed, "bytes": size}
    ratio = 0.0
    for verb, (peak, took) in of_hours.items():
        before, _ = of_minute[verb]
        ratio = max(ratio, peak / before)
        settings |= {f"{verb}_mib": [round(before), round(peak)], f"{verb}_seconds": round(took)}
        print(f"{verb:<12} {before:.0f} MiB, {peak:.0f} MiB of the long one, {took:.0f} s")
    settings |= machine()
    report(
        [Claim("audio_memory_10h", round(ratio, 3), "times", "<= 1.1", None, settings)], arguments
    )


if __name__ == "__main__":
    main()
