"""General compressors that text is shown beside; all of them give every byte back."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from importlib.util import find_spec

from torch import Tensor

from ..base import Peer


def xz(content: bytes) -> bytes:
    """As `xz -9e` makes it."""
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def gzip(content: bytes) -> bytes:
    """As `gzip -9` makes it, but for 12 bytes of names and times."""
    return zlib.compress(content, 9)


def bzip2(content: bytes) -> bytes:
    """As `bzip2 -9` makes it."""
    return bz2.compress(content, 9)


def zstd(content: bytes) -> bytes:
    """As `zstd -19` makes it."""
    import zstandard

    return zstandard.compress(content, 19)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": gzip,
    "bzip2 -9": bzip2,
    "xz -9e": xz,
}


def peers() -> list[Peer]:
    """All that are there."""
    found = dict(COMPRESSORS)
    if find_spec("zstandard"):
        found["zstd -19"] = zstd
    return [Peer(name, _code(compress)) for name, compress in found.items()]


def _code(compress: Callable[[bytes], bytes]) -> Callable[[Tensor], tuple[int, Tensor]]:
    def code(values: Tensor) -> tuple[int, Tensor]:
        return len(compress(values.numpy().tobytes())), values

    return code
