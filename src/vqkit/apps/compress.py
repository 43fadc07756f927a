"""Pictures to .vq files and back."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from ..artifact import CODER_FILE, MAX_DECODED, Artifact
from ..coding import (
    BUNDLE,
    INTEGER_PRIOR,
    Block,
    Bundle,
    BundleHeader,
    CorruptHeader,
    CorruptSection,
    OutOfBounds,
    Sizes,
    Truncated,
    check_codes,
    check_model,
    codes_crc,
    describe,
    profile_of,
    read_file,
    usable_name,
    write_bundle,
)
from ..data import load_picture, picture_paths
from ..errors import VqkitError
from ..files import free_name, write_bytes
from ..metrics import picture_psnr

SUFFIX = ".vq"
BLOCK = 256
"""items of a bundle that are coded together"""


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
    force: bool = False,
) -> Iterator[Compressed]:
    """Write pictures, or those of folders, as .vq files: into `folder`, a single one as `target`, with `bundle` all.

    Yields as it goes; a picture that cannot be read is reported and left out. Nothing is overwritten without `force`:
    in a folder a name that is taken gets a number.
    Errors: VqkitError without a coder, without pictures, and when the target is there or cannot be written.
    """
    artifact.wanted_coder()
    sources = list(picture_paths(files))
    if not sources:
        raise VqkitError(f"no pictures in {', '.join(map(str, files))}")
    if target and not bundle and len(sources) > 1:
        raise VqkitError(f"{len(sources)} pictures do not fit in one file; add --bundle, or use --out-dir")
    if target and target.exists() and not force:
        raise VqkitError(f"{target} exists; choose another name, or add --force to replace it")
    if target and bundle:
        yield from _compress_bundle(artifact, sources, target)
        return
    written: set[Path] = set()  # two pictures of one name must not replace each other, even with force
    for source in sources:
        image, error = _load(artifact, source)
        if image is None:
            yield Compressed(source, None, 0, 0, 0.0, error)
            continue
        path = target or (folder or Path()) / f"{source.stem}{SUFFIX}"
        path = path if force and path not in written else free_name(path)
        written.add(path)
        data = artifact.compress(image, source.name if usable_name(source.name) else None)
        _write(path, data)
        pixels = image.shape[0] * image.shape[1]
        yield Compressed(source, path, len(data), pixels, picture_psnr(artifact.decompress(data), image))


def _compress_bundle(artifact: Artifact, sources: list[Path], target: Path) -> Iterator[Compressed]:
    sizes, names, items = list[tuple[int, int]](), list[str](), list[np.ndarray]()
    for source in sources:
        image, error = _load(artifact, source)
        if image is None:
            yield Compressed(source, None, 0, 0, 0.0, error)
            continue
        sizes.append((image.shape[0], image.shape[1]))
        names.append(source.name if usable_name(source.name) else f"{len(names)}.png")
        items.append(artifact.encode(image)[0].numpy().astype(np.uint16))
        pixels = artifact.decode(items[-1][None].astype(np.int64), sizes[-1])[0]
        yield Compressed(source, target, 0, image.shape[0] * image.shape[1], picture_psnr(pixels, image))
    if not items:
        raise VqkitError("none of the pictures could be read; nothing was written")
    header = BundleHeader(Sizes(sizes), len(items[0]), INTEGER_PRIOR, artifact.coding_id, BLOCK)
    blocks = [_block(artifact, [items[item] for item in header.items(n)], n) for n in range(header.num_blocks)]
    _write(target, write_bundle(header, blocks, names))


def _block(artifact: Artifact, items: list[np.ndarray], number: int) -> Block:
    """Codes (Q, h, w) of the items of a block; those of one grid are coded together."""
    payloads: list[tuple[bytes, ...]] = [()] * len(items)
    for places in _by_grid([item.shape[1:] for item in items]):
        codes = np.stack([items[place] for place in places]).astype(np.int64)
        for place, parts in zip(places, artifact.wanted_coder().encode(codes), strict=True):
            payloads[place] = tuple(parts)
    return Block(codes_crc(np.concatenate([item.ravel() for item in items]), number), tuple(payloads))


def _by_grid(grids: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Places of equal grids."""
    found: dict[tuple[int, ...], list[int]] = {}
    for place, grid in enumerate(grids):
        found.setdefault(grid, []).append(place)
    return list(found.values())


def _load(artifact: Artifact, source: Path) -> tuple[np.ndarray | None, str | None]:
    try:
        return load_picture(source, artifact.channels, artifact.config.data.background), None
    except VqkitError as error:
        return None, str(error)


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
    with _opened(source) as stream:
        for number, decoded in enumerate(decode(artifact, stream)):
            pixels = artifact.decode(decoded.codes[None], decoded.size, exact=True)[0]
            name = decoded.name or (f"{source.stem}-{number}" if number else source.stem)
            target = folder / f"{Path(name).stem}.png"
            target = target if force and target not in written else free_name(target)
            written.add(target)
            buffer = io.BytesIO()
            Image.fromarray(pixels[:, :, 0] if artifact.channels == 1 else pixels).save(buffer, "PNG")
            _write(target, buffer.getvalue())
            yield target, decoded.truncated


def decode(artifact: Artifact, stream: bytes | BinaryIO) -> Iterator[Decoded]:
    """The images of a file or bundle, as codes. Errors: coding.FormatError, before codes that are wrong are given."""
    if profile_of(stream) != BUNDLE:
        file = read_file(stream)
        yield Decoded(artifact.codes_of(file), (file.header.height, file.header.width), file.name, file.truncated)
        return
    bundle = Bundle(stream)
    check_model(bundle.header.kind, artifact.coding_id)
    if bundle.header.num_codebooks != artifact.model.quantizer.num_codebooks:
        raise CorruptHeader(f"the header tells of {bundle.header.num_codebooks} codebooks; the model has others")
    names, lost = None, None
    try:
        names = bundle.names()
    except CorruptSection as error:  # the images are there; what is wrong is said behind them
        lost = error
    for number in range(bundle.whole_blocks):
        items = bundle.header.items(number)
        for item, codes in zip(items, _decode_block(artifact, bundle, number), strict=True):
            yield Decoded(codes, bundle.header.sizes[item], names[item] if names else None, bundle.truncated)
    if bundle.whole_blocks < bundle.header.num_blocks:
        missing = len(bundle.header.sizes) - bundle.header.items(bundle.whole_blocks).start
        raise Truncated(f"the bundle is cut off: its last {missing} images are lost")
    if lost:
        raise lost


def _decode_block(artifact: Artifact, bundle: Bundle, number: int) -> list[np.ndarray]:
    """Codes (Q, h, w) of the items of a block, checked."""
    block, items = bundle.block(number), bundle.header.items(number)
    grids = [artifact.model.grid(bundle.header.sizes[item]) for item in items]
    if sum(height * width for height, width in grids) * bundle.header.num_codebooks > MAX_DECODED:
        raise OutOfBounds(f"a block of more than {MAX_DECODED} codes is not decoded at once")
    found: list[np.ndarray] = [np.zeros(0)] * len(items)
    for places in _by_grid(grids):
        codes = artifact.wanted_coder().decode([block.payloads[place] for place in places], grids[places[0]])
        for place, one in zip(places, codes, strict=True):
            found[place] = one
    check_codes(np.concatenate([one.ravel() for one in found]), number, block.crc, "block")
    return found


def verify(artifact: Artifact, source: Path) -> Verdict:
    """Decode the codes of a .vq file and compare their check sums."""
    images, truncated = 0, False
    try:
        with _opened(source) as stream:
            for decoded in decode(artifact, stream):
                images, truncated = images + 1, truncated or decoded.truncated
    except VqkitError as error:
        return Verdict(source, images, truncated, str(error))
    return Verdict(source, images, truncated, None)


def _opened(source: Path) -> BinaryIO:
    try:
        return open(source, "rb")
    except OSError as error:
        raise VqkitError(f"cannot read {source}: {error.strerror}") from error


def find_model(source: Path, folders: Sequence[Path] = (Path(),)) -> Path:
    """The artifact that a .vq file was written with, among folders and what lies up to two levels below them.

    Errors: VqkitError when there is none, and for what is no .vq file.
    """
    with _opened(source) as stream:
        model_id = describe(stream).header.kind.model_id
    for folder in folders:
        for depth in ("", "*/", "*/*/"):
            for path in sorted(folder.glob(depth + CODER_FILE)):
                if model_id is not None and _coding_id(path) == model_id.hex():
                    return path.parent
    known = model_id.hex() if model_id else "not said in the file"
    raise VqkitError(f"the model of {source} ({known}) is not below {os.curdir}; say where it is with --model DIR")


def _coding_id(path: Path) -> str | None:
    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("coding_id")
    except (OSError, SafetensorError):
        return None
