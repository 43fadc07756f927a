"""What is in a .vq file and how many bytes each part takes; no model is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .bundle import Bundle, BundleHeader
from .header import BUNDLE, PROFILES, profile_of
from .numbers import Source
from .sections import NAME, NAMES, STAGE, Section
from .single import FileHeader, read_layout


@dataclass(frozen=True)
class Description:
    """What is in a file.

    profile: bare, file or bundle. parts: what lies in the file, in order, with its bytes, all of
    `size` together. positions: products of the extents, of all items together: what a
    rate is measured by. truncated: the file was cut off.
    """

    profile: str
    header: FileHeader | BundleHeader
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
    if profile_of(source) == BUNDLE:
        return _describe_bundle(Bundle(source))
    layout = read_layout(source)
    header = layout.header
    parts = _complete([("header", layout.header_bytes), *_named(layout.sections)], layout.size)
    profile = PROFILES[header.kind.profile]
    positions = math.prod(header.extent)
    return Description(profile, header, parts, layout.size, positions, layout.truncated)


def _describe_bundle(bundle: Bundle) -> Description:
    first_block = bundle.span(0)[0]
    end = bundle.span(bundle.whole_blocks - 1)[1]
    parts = [
        ("header", bundle.header_bytes),
        ("index", first_block - bundle.header_bytes),
        ("blocks", end - first_block),
        *_named(bundle.sections),
    ]
    complete = _complete(parts, bundle.size)
    positions = bundle.header.extents.positions()
    return Description(
        PROFILES[BUNDLE], bundle.header, complete, bundle.size, positions, bundle.truncated
    )


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
