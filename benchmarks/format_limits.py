"""Claims limit_seconds, limit_memory: what small .vq files that claim much cost a reader, at most.

    python benchmarks/format_limits.py [--quick] [--json FILE]

Each file is crafted in memory, and read by a process of its own on one thread: seconds, and by how
much its resident memory grows at its peak. `result` is what became of it: an error of the format,
or `read`. The files are those that the format allows at most, or that claim what they have not got.
--quick: sixteen times smaller claims.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from bench.claims import Claim, machine, options, report

PARSER = options(__doc__)

MODEL = bytes(8)
Work = Callable[[], object]


def claims_positions(scale: int) -> tuple[bytes, Work]:
    """A header of 2^28 positions and 64 stages, with one stage of no bytes."""
    from vqkit.coding import FileHeader, Stage, describe, write_file

    header = FileHeader((1 << 14, (1 << 14) // scale), 64, 1, MODEL)
    data = write_file(header, [Stage(0, b"")] * 64)
    return data, lambda: describe(data)


def codes_for_nothing(scale: int) -> tuple[bytes, Work]:
    """2^22 equal codes of two under context mixing, of the bytes that they take."""
    return equal_numbers(2, (2048, 2048 // scale))


def row_for_nothing(scale: int) -> tuple[bytes, Work]:
    """2^26 equal codes of two in a row under context mixing, of the bytes that they take."""
    return equal_numbers(2, ((1 << 26) // scale,))


def values_for_nothing(scale: int) -> tuple[bytes, Work]:
    """2^22 equal values under context mixing without a network, of the bytes that they take."""
    return equal_numbers(256, (2048, 2048 // scale))


def equal_numbers(num_codes: int, grid: tuple[int, ...]) -> tuple[bytes, Work]:
    import numpy as np

    from vqkit.coding import MixingCoder

    coder = MixingCoder((num_codes,))
    data = coder.encode(np.zeros((1, 1, *grid), np.int64))[0][0]
    return data, lambda: coder.decode([[data]], grid)


def scalar_codes_for_nothing(scale: int) -> tuple[bytes, Work]:
    """2^28 scalar codes of 256 channels, all zero, of the bytes that they take."""
    return equal_scalar_codes(256, (1024, 1024 // scale))


def scalar_row_for_nothing(scale: int) -> tuple[bytes, Work]:
    """2^26 scalar codes of 256 channels in one row, all zero, of the bytes that they take."""
    return equal_scalar_codes(256, (1, (1 << 18) // scale))


def scalar_positions_for_nothing(scale: int) -> tuple[bytes, Work]:
    """2^22 positions of two channels, all zero, in one column, of the bytes that they take."""
    return equal_scalar_codes(2, ((1 << 22) // scale, 1))


def equal_scalar_codes(channels: int, grid: tuple[int, int]) -> tuple[bytes, Work]:
    from vqkit.coding import ScalarCoder, ScalarCodes

    coder = ScalarCoder.new(1, channels, 3)
    data = coder.encode([ScalarCodes(channels, grid, 3)])[0][0]
    return data, lambda: coder.decode([[data]], grid)


def many_extents(scale: int) -> tuple[bytes, Work]:
    """A bundle of 2^20 items, each with another extent than the one before, and its index."""
    from vqkit.coding import Block, Bundle, BundleHeader, Extents, write_bundle

    count = (1 << 20) // scale
    header = BundleHeader(Extents((1 + number % 2, 1) for number in range(count)), 1, 1, MODEL)
    empty = Block(0, ((b"",),) * 256)
    data = write_bundle(header, [empty] * header.num_blocks)
    return data, lambda: Bundle(data)


def claims_items(scale: int) -> tuple[bytes, Work]:
    """A bundle that says that it has 2^24 items and ends there."""
    from vqkit.coding import BUNDLE, Bundle
    from vqkit.coding.format.header import Kind
    from vqkit.coding.format.numbers import crc_bytes, varint

    count = (1 << 24) // scale
    first = Kind(BUNDLE, MODEL, 0, 0, 1).written() + b"".join(
        map(varint, (64, count, 1, count, 1, 1))
    )
    data = first + crc_bytes(first)
    return data, lambda: Bundle(data)


def named(names: bytes, count: int) -> tuple[bytes, Work]:
    from vqkit.coding import Block, Bundle, BundleHeader, Extents, write_bundle
    from vqkit.coding.format.sections import NAMES, section

    extents = Extents()
    extents.add(count, (1, 1))
    header = BundleHeader(extents, 1, 1, MODEL)
    blocks = [
        Block(0, ((b"",),) * len(header.items(number))) for number in range(header.num_blocks)
    ]
    data = write_bundle(header, blocks) + section(NAMES, zlib.compress(names, 9))
    return data, lambda: Bundle(data).names()


def long_names(scale: int) -> tuple[bytes, Work]:
    """A bundle of 2^18 items with names of 1023 bytes, 2^28 together, the most that are
    unpacked.
    """
    count = (1 << 18) // scale
    return named(b"\0".join([b"a" * 1023] * count), count)


def one_long_name(scale: int) -> tuple[bytes, Work]:
    """A bundle of one item, whose names unpack to 2^28 bytes."""
    return named(b"a" * ((1 << 28) // scale), 1)


def many_names(scale: int) -> tuple[bytes, Work]:
    """A bundle of 2^20 items with names of one letter."""
    count = (1 << 20) // scale
    return named(b"\0".join([b"a"] * count), count)


CASES = {
    one.__name__: one
    for one in (
        claims_positions,
        claims_items,
        codes_for_nothing,
        row_for_nothing,
        values_for_nothing,
        scalar_codes_for_nothing,
        scalar_row_for_nothing,
        scalar_positions_for_nothing,
        many_extents,
        long_names,
        one_long_name,
        many_names,
    )
}


def measure(name: str, scale: int) -> dict:
    """One case, in this process."""
    from vqkit.coding import FormatError, MixingCoder, ScalarCoder

    data, work = CASES[name](scale)
    # Compiled, or their machine code loaded, before.
    MixingCoder((2,)).decode([[b""]], (1, 1))
    ScalarCoder.new(1, 2, 3).decode([[b""]], (1, 1))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    began = time.perf_counter()
    try:
        work()
        result = "read"
    except FormatError as error:
        result = type(error).__name__
    seconds = time.perf_counter() - began
    return {
        "bytes": len(data),
        "seconds": seconds,
        "mib": resident("VmHWM") - before,
        "result": result,
    }


def resident(what: str) -> float:
    """Resident memory of this process, MiB: VmRSS, now, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def main() -> None:
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
        return
    arguments = PARSER.parse_args()
    rows = {}
    for name in CASES:
        command = [sys.executable, __file__, "--case", name, "16" if arguments.quick else "1"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[name] = json.loads(done.stdout)
        row = rows[name]
        print(
            f"{name:<20} {row['bytes']:>9} bytes {row['seconds']:>8.2f} s {row['mib']:>7.0f} MiB  "
            f"{row['result']}"
        )
    where = {**machine(), "rows": rows}
    claims = [
        Claim(
            "limit_seconds",
            max(row["seconds"] for row in rows.values()),
            "s",
            "reported",
            None,
            where,
        ),
        Claim(
            "limit_memory", max(row["mib"] for row in rows.values()), "MiB", "reported", None, where
        ),
    ]
    report(claims, arguments)


if __name__ == "__main__":
    main()
