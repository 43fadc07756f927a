"""What is in a .vq file and how many bytes each part takes; no model is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .blocks import Blocks
from .bundle import Bundle, BundleHeader
from .header import BUNDLE, PARTS, PROFILES, profile_of
from .numbers import Source
from .parts import Parts, PartsHeader
from .sections import NAME, NAMES, STAGE, Section
from .single import FileHeader, read_layout


@dataclass(frozen=True)
class Description:
    """What is in a file.

    profile: bare, file, bundle or parts. parts: what lies in the file, in order, with its bytes,
    all of `size` together. positions: products of the extents, of all items together: what a rate
    is measured by. truncated: the file was cut off.
    """

    profile: str
    header: FileHeader | BundleHeader | PartsHeader
    parts: tuple[tuple[str, int], ...]
    size: int
    positions: int
    truncated: bool

    @property
    def bits_per_position(self) -> float:
        """Bits of the whole file, header included, for each position of the original.

        Of a file that was cut off, the bits of what is left.
        """
        return 8 * self.size / self.positions


def describe(source: Source) -> Description:
    """Header, parts and rate of a file, stream or bundle; no payload is read.

    Errors as `read_file` and `Bundle`.
    """
    profile = profile_of(source)
    if profile == BUNDLE:
        bundle = Bundle(source)
        return _describe_blocks(bundle, bundle.header, bundle.header.extents.positions())
    if profile == PARTS:
        parts = Parts(source)
        return _describe_blocks(parts, parts.header, parts.header.length)
    layout = read_layout(source)
    header = layout.header
    found = _complete([("header", layout.header_bytes), *_named(layout.sections)], layout.size)
    positions = math.prod(header.extent)
    return Description(PROFILES[profile], header, found, layout.size, positions, layout.truncated)


def _describe_blocks(
    blocks: Blocks, header: BundleHeader | PartsHeader, positions: int
) -> Description:
    first_block = blocks.span(0)[0]
    end = blocks.span(blocks.whole_blocks - 1)[1]
    found = [
        ("header", blocks.header_bytes),
        ("index", first_block - blocks.header_bytes),
        ("blocks", end - first_block),
        *_named(blocks.sections),
    ]
    complete = _complete(found, blocks.size)
    profile = PROFILES[header.kind.profile]
    return Description(profile, header, complete, blocks.size, positions, blocks.truncated)


def _named(sections: tuple[Section, ...]) -> list[tuple[str, int]]:
    """What sections hold, in words, and how many bytes they take."""
    parts = []
    stages = 0
    for one in sections:
        stages += one.tag == STAGE
        known = {STAGE: f"stage {stages}", NAME: "name", NAMES: "names"}
        words = known.get(one.tag, f"section {one.tag}, not known")
        parts.append((words, one.end - one.start))
    return parts


def _complete(parts: list[tuple[str, int]], size: int) -> tuple[tuple[str, int], ...]:
    """Parts, and what is left of one that was cut off."""
    missing = size - sum(length for _, length in parts)
    return (*parts, ("cut off", missing)) if missing else tuple(parts)
