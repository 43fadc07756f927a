"""What is in a file of codes and how many bytes each part takes; no model is needed."""

from __future__ import annotations

from dataclasses import dataclass

from .bundle import Bundle, BundleHeader
from .container import FileHeader, read_layout
from .framing import BUNDLE, NAME, NAMES, PROFILES, STAGE, Section, Source, profile_of


@dataclass(frozen=True)
class Description:
    """profile: bare, file or bundle. parts: what lies in the file, in order, with its bytes, all of `size` together.
    pixels: of all original images. truncated: the file was cut off."""

    profile: str
    header: FileHeader | BundleHeader
    parts: tuple[tuple[str, int], ...]
    size: int
    pixels: int
    truncated: bool

    @property
    def bpp(self) -> float:
        """Bits per pixel, of the whole file, header included; with a file that was cut off, of what is left."""
        return 8 * self.size / self.pixels


def describe(source: Source) -> Description:
    """Header, parts and rate of a file, stream or bundle. Errors as `read_file` and `Bundle`; no payload is read."""
    if profile_of(source) == BUNDLE:
        return _describe_bundle(Bundle(source))
    layout = read_layout(source)
    header = layout.header
    parts = [("header", layout.header_bytes), *_section_parts(layout.sections)]
    rest = _rest(parts, layout.size)
    pixels = header.height * header.width
    return Description(PROFILES[header.kind.profile], header, rest, layout.size, pixels, layout.truncated)


def _describe_bundle(bundle: Bundle) -> Description:
    header, start, end = bundle.header, bundle.span(0)[0], bundle.span(bundle.whole_blocks - 1)[1]
    parts = [("header", bundle.header_bytes), ("index", start - bundle.header_bytes), ("blocks", end - start)]
    rest = _rest(parts + _section_parts(bundle.sections), bundle.size)
    return Description(PROFILES[BUNDLE], header, rest, bundle.size, header.sizes.pixels(), bundle.truncated)


def _section_parts(sections: tuple[Section, ...]) -> list[tuple[str, int]]:
    parts, stages = [], 0
    for one in sections:
        stages += one.tag == STAGE
        known = {STAGE: f"stage {stages}", NAME: "name", NAMES: "names"}
        parts.append((known.get(one.tag, f"section {one.tag}, not known"), one.end - one.start))
    return parts


def _rest(parts: list[tuple[str, int]], size: int) -> tuple[tuple[str, int], ...]:
    """Parts, and what is left of one that was cut off."""
    missing = size - sum(length for _, length in parts)
    return (*parts, ("cut off", missing)) if missing else tuple(parts)
