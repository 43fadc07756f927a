"""The images of .vq files and bundles as codes: all that are whole, then what is wrong with the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from .artifact import Artifact
from .codec import IMAGE_SIGNAL, MAX_DECODED, Codec, image_size
from .coding import (
    BUNDLE,
    Bundle,
    CorruptSection,
    FormatError,
    OutOfBounds,
    Truncated,
    check_block,
    check_model,
    profile_of,
    read_file,
)
from .errors import VqkitError

MAX_SAID = 20
"""runs of lost images that an error lists"""


@dataclass(frozen=True)
class Decoded:
    """Codes (Q, h, w) of one image, checked; its height and width; its name if it has one; whether the file was
    cut off; its place in the file, from 0; whether stages are missing, which make a coarser image."""

    codes: np.ndarray
    size: tuple[int, int]
    name: str | None
    truncated: bool
    number: int = 0
    coarser: bool = False


def decode(artifact: Artifact, stream: bytes | BinaryIO) -> Iterator[Decoded]:
    """The images of a file or bundle, as codes.

    Errors: coding.FormatError, before codes that are wrong are given; of a bundle behind all images that are
    whole, with the numbers of those that are lost.
    """
    for _, block in blocks(artifact, stream):
        yield from block


def blocks(artifact: Artifact, stream: bytes | BinaryIO) -> Iterator[tuple[Codec, list[Decoded]]]:
    """The image of a file, or those of one block of a bundle after the other. Errors as `decode`."""
    if profile_of(stream) != BUNDLE:
        file = read_file(stream)
        codec, size = artifact.codec_of(file.header), image_size(file.header.extent)
        coarser = len(file.stages) < file.header.num_codebooks
        yield codec, [Decoded(codec.codes_of(file), size, file.name, file.truncated, coarser=coarser)]
        return
    bundle, codec = _open_bundle(artifact, stream)
    sizes, truncated = bundle.header.extents, bundle.truncated
    names, unnamed = _names(bundle)
    lost = list[int]()
    why: FormatError | None = None
    for number in range(bundle.whole_blocks):
        try:
            found = _decode_block(codec, bundle, number)
        except FormatError as error:  # other blocks know nothing of this one
            why = why or error.with_traceback(None)  # which would keep the block in memory
            lost.append(number)
            continue
        items = zip(bundle.header.items(number), found, strict=True)
        yield codec, [Decoded(one, image_size(sizes[i]), names[i] if names else None, truncated, i) for i, one in items]
    _check_whole(bundle, lost, why)
    if unnamed:
        raise unnamed


def one_image(artifact: Artifact, stream: bytes | BinaryIO, item: str) -> tuple[Codec, list[Decoded]]:
    """The image with a number, from 0, or with a stored name; of a bundle only its block is read.

    Errors: FormatError for what is wrong with it; VqkitError if there is none of that number or name.
    """
    if profile_of(stream) != BUNDLE:
        codec, (decoded,) = next(blocks(artifact, stream))
        if item not in ("0", decoded.name):
            raise VqkitError(f"there is no image {item!r}: the file holds a single one, number 0")
        return codec, [decoded]
    bundle, codec = _open_bundle(artifact, stream)
    names, _ = _names(bundle)
    number = _number_of(bundle, names, item)
    found = bundle.item(number)
    codes = _decode_block(codec, bundle, found.block)[found.place]  # a block has one check sum for all of its items
    name = names[number] if names else None
    return codec, [Decoded(codes, image_size(found.extent), name, False, number)]


def _number_of(bundle: Bundle, names: Sequence[str] | None, item: str) -> int:
    count = len(bundle.header.extents)
    if item.isdecimal() and len(item) <= len(str(count)) and int(item) < count:
        return int(item)
    if names and item in names:
        return names.index(item)
    raise VqkitError(f"there is no image {item!r}: the bundle has the numbers 0 to {count - 1}, or stored names")


def _open_bundle(artifact: Artifact, stream: bytes | BinaryIO) -> tuple[Bundle, Codec]:
    bundle = Bundle(stream)
    codec = artifact.codec_of(bundle.header)
    check_model(bundle.header.kind, codec.model_id, IMAGE_SIGNAL)
    codec.check_stages(bundle.header.num_codebooks)
    return bundle, codec


def _names(bundle: Bundle) -> tuple[list[str] | None, CorruptSection | None]:
    """Names if there are any, and what is wrong with them: the images are there without them."""
    try:
        return bundle.names(), None
    except CorruptSection as error:
        return None, error


def _check_whole(bundle: Bundle, lost: Sequence[int], why: FormatError | None) -> None:
    """Raise the error of the first lost block, with the images of all of them; Truncated if only the end is missing."""
    missing = len(bundle.header.extents) - bundle.header.items(bundle.whole_blocks).start
    cut = f"the bundle is cut off: its last {missing} images are lost" if missing > 0 else ""
    if why is None:
        if cut:
            raise Truncated(cut)
        return
    spans = list[range]()
    for items in map(bundle.header.items, lost):
        joined = spans and spans[-1].stop == items.start
        spans.append(range(spans.pop().start, items.stop) if joined else items)
    said = [f"{span.start} to {span[-1]}" if len(span) > 1 else f"{span.start}" for span in spans[:MAX_SAID]]
    said += [f"{len(spans) - MAX_SAID} more spans"] if len(spans) > MAX_SAID else []
    words = f"{why}; lost are the images {', '.join(said)}, counted from 0" + (f"; {cut}" if cut else "")
    raise type(why)(words)


def _decode_block(codec: Codec, bundle: Bundle, number: int) -> list[np.ndarray]:
    """Codes (Q, h, w) of the items of a block, checked."""
    block, items = bundle.block(number), bundle.header.items(number)
    grids = [codec.grid(image_size(bundle.header.extents[item])) for item in items]
    if sum(map(math.prod, grids)) * bundle.header.num_codebooks > MAX_DECODED:
        raise OutOfBounds(f"a block of more than {MAX_DECODED} codes is not decoded at once")
    found: list[np.ndarray] = [np.zeros(0)] * len(items)
    for places in alike(grids):
        codes = codec.engine.decode([block.payloads[place] for place in places], grids[places[0]])
        for place, one in zip(places, codes, strict=True):
            found[place] = one
    check_block(np.concatenate([one.ravel() for one in found]), number, block.crc)
    return found


def alike(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Places of equal shapes."""
    found: dict[tuple[int, ...], list[int]] = {}
    for place, shape in enumerate(shapes):
        found.setdefault(shape, []).append(place)
    return list(found.values())
