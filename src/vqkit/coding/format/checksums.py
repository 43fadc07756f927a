"""Check sums of codes: they find damage that the entropy coder decodes without a complaint."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from .errors import CorruptCodes


def codes_crc(codes: np.ndarray | Iterable[np.ndarray], number: int, before: int = 0) -> int:
    """CRC-32 of a number and the codes behind it, any shape, in row-major order as little-endian
    uint32; of several arrays, one behind the other.

    The number is that of the stage or block, from 0, so that one that stands in the place of
    another is found out. before: the sum of what comes before, which goes on. ValueError for codes
    that are negative or beyond 32 bits.
    """
    found = zlib.crc32(number.to_bytes(4, "little"), before)
    for part in [codes] if isinstance(codes, np.ndarray) else codes:
        if part.size and not (0 <= int(part.min()) and int(part.max()) < 1 << 32):
            raise ValueError("codes must be numbers from 0 to 2^32 - 1")
        found = zlib.crc32(np.ascontiguousarray(part, "<u4").data, found)
    return found


def stage_crcs(codes: Iterable[np.ndarray | Iterable[np.ndarray]]) -> list[int]:
    """Codes of every stage of an item -> the sum of each, which covers all stages up to it.

    So a stage of another item does not fit, although its own codes are what they were.
    """
    sums = []
    before = 0
    for number, stage in enumerate(codes):
        before = codes_crc(stage, number, before)
        sums.append(before)
    return sums


def check_stages(codes: Iterable[np.ndarray | Iterable[np.ndarray]], sums: Sequence[int]) -> None:
    """CorruptCodes unless decoded codes of every stage are those of which `stage_crcs` gave the
    sums.
    """
    for number, (found, expected) in enumerate(zip(stage_crcs(codes), sums, strict=True), 1):
        if found != expected:
            raise CorruptCodes(
                f"stage {number} is corrupt, or of another item: its codes do not fit its check sum"
            )


def check_block(codes: np.ndarray | Iterable[np.ndarray], number: int, expected: int) -> None:
    """CorruptCodes unless decoded codes of a block are those of which `codes_crc` gave the sum."""
    if codes_crc(codes, number) != expected:
        raise CorruptCodes(f"block {number + 1} is corrupt: its codes do not fit their check sum")
