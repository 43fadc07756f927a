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
from safetensors import SafetensorError, safe_open

from ..artifact import BATCH_VALUES, CODER_FILE, LOSSLESS_FILE, Artifact
from ..codec import MAX_DECODED, Codec, model_id
from ..coding import (
    BUNDLE,
    Block,
    Bundle,
    BundleHeader,
    CorruptSection,
    OutOfBounds,
    Sizes,
    Truncated,
    check_block,
    check_model,
    codes_crc,
    describe,
    opened,
    profile_of,
    read_file,
    usable_name,
    write_bundle,
)
from ..data import load_picture, picture_paths
from ..errors import VqkitError
from ..files import free_name, write_bytes
from ..metrics import picture_psnr
from ..untrusted import read_json

SUFFIX = ".vq"
BLOCK = 256
"""pictures that are coded together, and items of a block of a bundle, if they are small enough"""


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
class Decoded:
    """Codes (Q, h, w) of one image, checked; its height and width; its name if it has one; whether it was cut off."""

    codes: np.ndarray
    size: tuple[int, int]
    name: str | None
    truncated: bool


@dataclass(frozen=True)
class Verdict:
    """One file: images in it whose codes are right, whether it was cut off, and what is wrong with it, if anything."""

    source: Path
    images: int
    truncated: bool
    error: str | None


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
    sources = list(picture_paths(files))
    if not sources:
        raise VqkitError(f"no pictures in {', '.join(map(str, files))}")
    if target and not bundle and len(sources) > 1:
        raise VqkitError(f"{len(sources)} pictures do not fit in one file; add --bundle, or use --out-dir")
    if target and target.exists() and not force:
        raise VqkitError(f"{target} exists; choose another name, or add --force to replace it")
    if target and bundle:
        yield from _compress_bundle(artifact, codec, sources, target)
        return
    written: set[Path] = set()  # two pictures of one name must not replace each other, even with force
    for source, coded, error in _all_coded(artifact, codec, sources):
        if coded is None:
            yield Compressed(source, None, 0, 0, 0.0, error)
            continue
        path = target or (folder or Path()) / f"{source.stem}{SUFFIX}"
        path = path if force and path not in written else free_name(path)
        written.add(path)
        data = codec.file_of(coded.codes, coded.payloads, coded.size, _stored_name(source))
        _write(path, data)
        yield Compressed(source, path, len(data), math.prod(coded.size), coded.psnr)


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
    sizes = Sizes(item.size for item in items)
    together = min(BLOCK, MAX_DECODED // max(item.codes.size for item in items))
    header = BundleHeader(sizes, codec.num_stages, codec.coder, codec.model_id, together, codec.modality)
    blocks = []
    for number in range(header.num_blocks):
        inside = [items[item] for item in header.items(number)]
        crc = codes_crc(np.concatenate([item.codes.ravel() for item in inside]), number)
        blocks.append(Block(crc, tuple(item.payloads for item in inside)))
    _write(target, write_bundle(header, blocks, names))


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
    for places in _alike([image.shape for image in images]):
        codes = artifact.values(np.stack([images[place] for place in places]), codec)
        size = images[places[0]].shape[0], images[places[0]].shape[1]
        pixels, payloads = artifact.pixels_of(codec, codes, size), codec.engine.encode(codes)
        for place, shown, one, parts in zip(places, pixels, codes, payloads, strict=True):
            found[place] = _Coded(size, one.astype(np.uint32), tuple(parts), picture_psnr(shown, images[place]))
    return [found[place] for place in range(len(images))]


def _alike(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Places of equal shapes."""
    found: dict[tuple[int, ...], list[int]] = {}
    for place, shape in enumerate(shapes):
        found.setdefault(shape, []).append(place)
    return list(found.values())


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


def decompress(artifact: Artifact, source: Path, folder: Path, *, force: bool = False) -> Iterator[tuple[Path, bool]]:
    """Write the images of a .vq file as PNG into `folder`: yields each file, and whether its source was cut off.

    Names are those that were stored, else that of the source. Nothing is overwritten without `force`.
    Errors: coding.FormatError, a VqkitError, before anything wrong is written; VqkitError when it cannot be written.
    """
    written: set[Path] = set()
    with opened(source) as stream:
        for number, (decoded, pixels) in enumerate(pictures(artifact, stream)):
            name = decoded.name or (f"{source.stem}-{number}" if number else source.stem)
            target = folder / f"{Path(name).stem}.png"
            target = target if force and target not in written else free_name(target)
            written.add(target)
            buffer = io.BytesIO()
            Image.fromarray(pixels[:, :, 0] if artifact.channels == 1 else pixels).save(buffer, "PNG")
            _write(target, buffer.getvalue())
            yield target, decoded.truncated


def pictures(artifact: Artifact, stream: bytes | BinaryIO) -> Iterator[tuple[Decoded, np.ndarray]]:
    """The images of a file or bundle as codes and as pixels (H, W, C); those of a block are decoded together."""
    for codec, block in _blocks(artifact, stream):
        pixels = dict[int, np.ndarray]()
        for places in _alike([decoded.size for decoded in block]):
            codes = np.stack([block[place].codes for place in places])
            pixels |= zip(places, artifact.pixels_of(codec, codes, block[places[0]].size, exact=True), strict=True)
        yield from ((decoded, pixels[place]) for place, decoded in enumerate(block))


def decode(artifact: Artifact, stream: bytes | BinaryIO) -> Iterator[Decoded]:
    """The images of a file or bundle, as codes. Errors: coding.FormatError, before codes that are wrong are given."""
    for _, block in _blocks(artifact, stream):
        yield from block


def _blocks(artifact: Artifact, stream: bytes | BinaryIO) -> Iterator[tuple[Codec, list[Decoded]]]:
    """The image of a file, or those of one block of a bundle after the other. Errors as `decode`."""
    if profile_of(stream) != BUNDLE:
        file = read_file(stream)
        codec, size = artifact.codec_of(file.header), (file.header.height, file.header.width)
        yield codec, [Decoded(codec.codes_of(file), size, file.name, file.truncated)]
        return
    bundle = Bundle(stream)
    codec = artifact.codec_of(bundle.header)
    check_model(bundle.header.kind, codec.model_id)
    codec.check_stages(bundle.header.num_codebooks)
    names, lost = None, None
    try:
        names = bundle.names()
    except CorruptSection as error:  # the images are there; what is wrong is said behind them
        lost = error
    for number in range(bundle.whole_blocks):
        found = zip(bundle.header.items(number), _decode_block(codec, bundle, number), strict=True)
        yield (
            codec,
            [
                Decoded(codes, bundle.header.sizes[item], names[item] if names else None, bundle.truncated)
                for item, codes in found
            ],
        )
    if bundle.whole_blocks < bundle.header.num_blocks:
        missing = len(bundle.header.sizes) - bundle.header.items(bundle.whole_blocks).start
        raise Truncated(f"the bundle is cut off: its last {missing} images are lost")
    if lost:
        raise lost


def _decode_block(codec: Codec, bundle: Bundle, number: int) -> list[np.ndarray]:
    """Codes (Q, h, w) of the items of a block, checked."""
    block, items = bundle.block(number), bundle.header.items(number)
    grids = [codec.grid(bundle.header.sizes[item]) for item in items]
    if sum(map(math.prod, grids)) * bundle.header.num_codebooks > MAX_DECODED:
        raise OutOfBounds(f"a block of more than {MAX_DECODED} codes is not decoded at once")
    found: list[np.ndarray] = [np.zeros(0)] * len(items)
    for places in _alike(grids):
        codes = codec.engine.decode([block.payloads[place] for place in places], grids[places[0]])
        for place, one in zip(places, codes, strict=True):
            found[place] = one
    check_block(np.concatenate([one.ravel() for one in found]), number, block.crc)
    return found


def verify(artifact: Artifact, source: Path) -> Verdict:
    """Decode the codes of a .vq file and compare their check sums."""
    images, truncated = 0, False
    try:
        with opened(source) as stream:
            for decoded in decode(artifact, stream):
                images, truncated = images + 1, truncated or decoded.truncated
    except VqkitError as error:
        return Verdict(source, images, truncated, str(error))
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
        for path in (folder / CODER_FILE, folder / LOSSLESS_FILE):
            if path.exists():
                with safe_open(path, framework="np") as file:
                    yield str((file.metadata() or {}).get("coding_id"))
    except (VqkitError, OSError, SafetensorError):
        return
