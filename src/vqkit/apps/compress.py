"""Pictures to .vq files and back."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from safetensors import SafetensorError

from ..artifact import BATCH_VALUES, Artifact
from ..codec import MAX_DECODED, Codec, coding_ids, model_id
from ..coding import (
    Block,
    BundleHeader,
    Extents,
    FormatError,
    WrongModel,
    codes_crc,
    describe,
    opened,
    usable_name,
    write_bundle,
)
from ..data import load_picture, picture_paths
from ..errors import VqkitError
from ..files import free_name, write_bytes
from ..metrics import picture_psnr
from ..reading import Decoded, alike, blocks, decode, one_image
from ..untrusted import read_json

SUFFIX = ".vq"
BLOCK = 256
"""pictures that are coded together, and items of a block of a bundle, if they are small enough"""

MAX_STEM = 220
"""bytes of a stored name that are taken for a file's: systems have 255, of which suffixes and numbers need some"""


@dataclass(frozen=True)
class Compressed:
    """One picture: where it came from and went to, bytes on disk (of a bundle: 0), pixels, PSNR in dB; or why not."""

    source: Path
    target: Path | None
    size: int
    pixels: int
    psnr: float
    error: str | None = None


@dataclass(frozen=True)
class Verdict:
    """One file: images in it whose codes are right, whether it was cut off, and what is wrong with it, if anything.

    checked: whether there was a model to check it with."""

    source: Path
    images: int
    truncated: bool
    error: str | None
    checked: bool = True

    @classmethod
    def failed(cls, source: Path, error: VqkitError, images: int = 0, truncated: bool = False) -> Verdict:
        """Where that was raised; of a model that is missing, or another one, it says nothing about the file."""
        checked = isinstance(error, FormatError) and not isinstance(error, WrongModel)
        return cls(source, images, truncated, str(error), checked)


# ---------------------------------------------------------------------------------------------------------- compress


def compress(
    artifact: Artifact,
    files: Sequence[str | Path],
    *,
    folder: Path | None = None,
    target: Path | None = None,
    bundle: bool = False,
    lossless: bool = False,
    rate: str | None = None,
    force: bool = False,
) -> Iterator[Compressed]:
    """Write pictures, or those of folders, as .vq files: into `folder`, a single one as `target`, with `bundle` all.

    Yields as it goes; a picture that cannot be read is reported and left out. Nothing is overwritten without `force`:
    in a folder a name that is taken gets a number. lossless: files of pixels, not of codes; pictures that the model's
    channels cannot hold in full are left out, too. rate: one of rates.NAMES.
    Errors: VqkitError without codebooks, without pictures, for a rate that the model does not have, and when the target
    is there or cannot be written.
    """
    codec = artifact.codec(lossless=lossless, rate=rate)
    sources = _sources(files, target, bundle, force)
    if target and bundle:
        yield from _compress_bundle(artifact, codec, sources, target)
        return
    # Two pictures of one name must not replace each other, even with force, which gives the same names every time.
    written: set[Path] = set()
    for source, coded, error in _all_coded(artifact, codec, sources):
        if coded is None:
            yield Compressed(source, None, 0, 0, 0.0, error)
            continue
        path = target or (folder or Path()) / f"{source.stem}{SUFFIX}"
        path = free_name(path, written.__contains__ if force else Path.exists)
        written.add(path)
        data = codec.file_of(coded.codes, coded.payloads, coded.size, _stored_name(source))
        _write(path, data)
        yield Compressed(source, path, len(data), math.prod(coded.size), coded.psnr)


def _sources(files: Sequence[str | Path], target: Path | None, bundle: bool, force: bool) -> list[Path]:
    """The pictures to compress, after all that can be refused before any is read."""
    sources = list(picture_paths(files))
    if not sources:
        raise VqkitError(f"no pictures in {', '.join(map(str, files))}")
    if target and not bundle and len(sources) > 1:
        raise VqkitError(f"{len(sources)} pictures do not fit in one file; add --bundle, or use --out-dir")
    if target and target.exists() and not force:
        raise VqkitError(f"{target} exists; choose another name, or add --force to replace it")
    return sources


def _compress_bundle(artifact: Artifact, codec: Codec, sources: list[Path], target: Path) -> Iterator[Compressed]:
    items, names = list[_Coded](), list[str]()
    for source, coded, error in _all_coded(artifact, codec, sources):
        if coded is None:
            yield Compressed(source, None, 0, 0, 0.0, error)
            continue
        names.append(_stored_name(source) or f"{len(names)}.png")
        items.append(coded)
        yield Compressed(source, target, 0, math.prod(coded.size), coded.psnr)
    if not items:
        raise VqkitError("none of the pictures could be read; nothing was written")
    sizes = Extents(item.size for item in items)
    together = min(BLOCK, MAX_DECODED // max(item.codes.size for item in items))
    header = BundleHeader(sizes, codec.num_stages, codec.coder, codec.model_id, together, holds=codec.holds)
    written = []
    for number in range(header.num_blocks):
        inside = [items[item] for item in header.items(number)]
        crc = codes_crc(np.concatenate([item.codes.ravel() for item in inside]), number)
        written.append(Block(crc, tuple(item.payloads for item in inside)))
    _write(target, write_bundle(header, written, names))


def _stored_name(source: Path) -> str | None:
    return source.name if usable_name(source.name) else None


@dataclass(frozen=True)
class _Coded:
    """One picture: height and width; codes (Q, h, w) uint32; the coder's bytes of each stage; PSNR of them, dB."""

    size: tuple[int, int]
    codes: np.ndarray
    payloads: tuple[bytes, ...]
    psnr: float


def _all_coded(
    artifact: Artifact, codec: Codec, sources: Sequence[Path]
) -> Iterator[tuple[Path, _Coded | None, str | None]]:
    """Pictures in order, or why one cannot be read; as many at once as a block has and BATCH_VALUES allows."""
    rows, images, values = list[tuple[Path, str | None]](), list[np.ndarray](), 0
    for number, source in enumerate(sources, 1):
        image, error = _load(artifact, codec, source)
        rows.append((source, error))
        if image is not None:
            images.append(image)
            values += image.size
        if len(rows) == BLOCK or values >= BATCH_VALUES or number == len(sources):
            coded = iter(_coded(artifact, codec, images))
            yield from ((path, None if why else next(coded), why) for path, why in rows)
            rows, images, values = [], [], 0


def _coded(artifact: Artifact, codec: Codec, images: Sequence[np.ndarray]) -> list[_Coded]:
    """Pictures (H, W, C) of any sizes as codes; those of one size go through coder and decoder together."""
    found = dict[int, _Coded]()
    for places in alike([image.shape for image in images]):
        codes = artifact.values(np.stack([images[place] for place in places]), codec)
        size = images[places[0]].shape[0], images[places[0]].shape[1]
        pixels, payloads = artifact.pixels_of(codec, codes, size), codec.engine.encode(codes)
        for place, shown, one, parts in zip(places, pixels, codes, payloads, strict=True):
            found[place] = _Coded(size, one.astype(np.uint32), tuple(parts), picture_psnr(shown, images[place]))
    return [found[place] for place in range(len(images))]


def _load(artifact: Artifact, codec: Codec, source: Path) -> tuple[np.ndarray | None, str | None]:
    try:
        image = load_picture(source, artifact.channels, artifact.config.data.background, exact=codec.lossless)
        codec.grid((image.shape[0], image.shape[1]))
    except VqkitError as error:
        return None, str(error)
    return image, None


def _write(path: Path, data: bytes) -> None:
    try:
        write_bytes(path, data)
    except OSError as error:
        raise VqkitError(f"cannot write {path}: {error.strerror or error}; choose another name") from error


# -------------------------------------------------------------------------------------------------------- decompress


def decompress(
    artifact: Artifact, source: Path, folder: Path, *, item: str | None = None, force: bool = False
) -> Iterator[tuple[Path, str]]:
    """Write the images of a .vq file as PNG into `folder`: yields each, and in words what was cut off, '' for nothing.

    item: of that image alone, by its number from 0 or its stored name; of a bundle only its block is read. Names are
    those that were stored, else, and where those are too long for a file, that of the source with a number. Nothing is
    overwritten without `force`.
    Errors: coding.FormatError, a VqkitError, before anything wrong is written; of a bundle behind the images that are
    whole. VqkitError when an image cannot be written, or there is none of that number or name.
    """
    written: set[Path] = set()
    with opened(source) as stream:
        for decoded, pixels in pictures(artifact, stream, item):
            stem = Path(decoded.name or "").stem
            if not 0 < len(stem.encode()) <= MAX_STEM:
                stem = f"{source.stem}-{decoded.number}" if decoded.number else source.stem
            target = folder / f"{stem}.png"
            target = free_name(target, written.__contains__ if force else Path.exists)
            written.add(target)
            buffer = io.BytesIO()
            Image.fromarray(pixels[:, :, 0] if artifact.channels == 1 else pixels).save(buffer, "PNG")
            _write(target, buffer.getvalue())
            whole = "coarser than it was" if decoded.coarser else "but this image is whole"
            yield target, f"the file is cut off, {whole}" if decoded.truncated else ""


def pictures(
    artifact: Artifact, stream: bytes | BinaryIO, item: str | None = None
) -> Iterator[tuple[Decoded, np.ndarray]]:
    """The images of a file or bundle as codes and as pixels (H, W, C); those of a block are decoded together.

    item: as in `decompress`. Errors as there.
    """
    for codec, block in blocks(artifact, stream) if item is None else [one_image(artifact, stream, item)]:
        pixels = dict[int, np.ndarray]()
        for places in alike([decoded.size for decoded in block]):
            codes = np.stack([block[place].codes for place in places])
            pixels |= zip(places, artifact.pixels_of(codec, codes, block[places[0]].size, exact=True), strict=True)
        yield from ((decoded, pixels[place]) for place, decoded in enumerate(block))


def verify(artifact: Artifact, source: Path) -> Verdict:
    """Decode the codes of a .vq file and compare their check sums."""
    images, truncated = 0, False
    try:
        with opened(source) as stream:
            for decoded in decode(artifact, stream):
                images, truncated = images + 1, truncated or decoded.truncated
    except VqkitError as error:
        return Verdict.failed(source, error, images, truncated)
    return Verdict(source, images, truncated, None)


def find_model(source: Path, folders: Sequence[Path] = (Path(),)) -> Path:
    """The artifact that a .vq file was written with, among folders and what lies up to two levels below them.

    Errors: VqkitError when there is none, and for what is no .vq file.
    """
    with opened(source) as stream:
        wanted = describe(stream).header.kind.model_id
    known = wanted.hex() if wanted else "not said in the file"
    for folder in folders:
        for depth in ("", "*/", "*/*/"):
            for path in sorted(folder.glob(depth + "config.json")):
                if wanted and known in _coding_ids(path.parent):
                    return path.parent
    raise VqkitError(f"the model of {source} ({known}) is not below {os.curdir}; say where it is with --model DIR")


def _coding_ids(folder: Path) -> Iterator[str]:
    """Names, in compressed files, of an artifact with each of its coders and without any; of other folders, none."""
    try:
        yield model_id(str(read_json(folder / "config.json").get("content_id")), {}).hex()
        yield from coding_ids(folder)
    except (VqkitError, OSError, SafetensorError):
        return
