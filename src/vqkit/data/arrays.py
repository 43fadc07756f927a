"""Images stored as arrays: IDX (the format of MNIST), .npy and .npz. Headers are checked before memory is taken."""

from __future__ import annotations

import ast
import gzip
import math
import shutil
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ..errors import VqkitError
from .images import MODES
from .splits import digest, pack
from .stores import ArrayStore, Items, NumberedNames, delete_with, temporary_file

_DEFLATE_LIMIT = 1032
"""no deflate stream expands by more than this, so a larger promise in a header is a lie"""
_CHUNK_BYTES = 1 << 26
# What NumPy, zipfile and the parser of a header raise when they are fed something else than they expect.
_BROKEN = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, SyntaxError, NotImplementedError),
    *(struct.error, zlib.error, zipfile.BadZipFile, RecursionError, MemoryError),
)
IDX_PARTS = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


def array_items(
    array: np.ndarray, kind: str, names: Sequence[str], where: str, mapped_from: Path | None = None
) -> Items:
    """Items of an array (N, H, W) or (N, H, W, C), uint8 or float in [0, 1]. VqkitError if it is anything else."""
    if array.ndim not in (3, 4) or array.ndim == 4 and not 1 <= array.shape[3] <= 4 or 0 in array.shape:
        raise VqkitError(f"{where} must be images (N, H, W) or (N, H, W, C) with 1 to 4 channels, not {array.shape}")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise VqkitError(f"{where} holds {array.dtype}; images must be uint8 or floats in [0, 1]")
    store, digests = ArrayStore(array, mapped_from), []
    array = store.array
    step = max(1, _CHUNK_BYTES // max(1, array[0].nbytes))
    for start in range(0, len(array), step):
        if array.dtype.kind == "f":
            _check_range(array[start : start + step], where)
        digests += [digest(pixels.data) for pixels in store.chunk(start, start + step)]
    height, width, channels = array.shape[1:]
    counts = {MODES[channels]: len(array)}, {(height, width): len(array)}
    return Items(kind, store, names, pack(digests), *counts)


def _check_range(values: np.ndarray, where: str) -> None:
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise VqkitError(f"{where} holds NaN or infinite values")
    if low < 0 or high > 1:
        raise VqkitError(f"{where} holds floats from {low:g} to {high:g}; they must lie in [0, 1], or be uint8")


# ------------------------------------------------------------------------------------------------------ npy, npz


def read_npy(path: Path) -> Items:
    """Images in a .npy file, mapped from disk. VqkitError if it is broken, or pickled, or no images."""
    try:
        with path.open("rb") as file:
            _check_npy_header(file, path.stat().st_size, str(path))
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _BROKEN as error:
        raise VqkitError(f"cannot read {path}: {_words(error)}") from error
    return array_items(array, "npy", NumberedNames(path.name, len(array) if array.ndim else 0), str(path), path)


def read_npz(path: Path, max_bytes: int) -> Items:
    """Images in a .npz file: its only array, or the one called images, x_train, x or arr_0.

    An array larger than max_bytes is unpacked to a temporary file and mapped. Errors as `read_npy`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = _image_member(archive, path)
            where = f"{path} [{member.filename.removesuffix('.npy')}]"
            if member.file_size > _DEFLATE_LIMIT * max(1, member.compress_size):
                raise VqkitError(f"{where}: its header promises more data than the file can hold")
            with archive.open(member) as stream:
                _check_npy_header(cast(BinaryIO, stream), member.file_size, where)
            with archive.open(member) as stream:
                array, unpacked = _load_npy(cast(BinaryIO, stream), member.file_size, max_bytes)
    except _BROKEN as error:
        raise VqkitError(f"cannot read {path}: {_words(error)}") from error
    try:
        items = array_items(array, "npz", NumberedNames(path.name, len(array) if array.ndim else 0), where, unpacked)
    except VqkitError:
        if unpacked:
            unpacked.unlink()
        raise
    if unpacked:
        delete_with(items.store, unpacked)
    return items


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _image_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    members = {
        info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")
    }
    for name in (*(members if len(members) == 1 else ()), "images", "x_train", "x", "arr_0"):
        if name in members:
            return members[name]
    raise VqkitError(f"{path} holds the arrays {', '.join(members) or '(none)'}; call the one with images 'images'")


def _check_npy_header(file: BinaryIO, num_bytes: int, where: str) -> None:
    """VqkitError unless the header promises exactly the bytes that are there; nothing is allocated before."""
    version = np.lib.format.read_magic(file)
    length = struct.unpack("<H" if version == (1, 0) else "<I", file.read(2 if version == (1, 0) else 4))[0]
    header = ast.literal_eval(file.read(min(length, 65536)).decode("latin1"))
    dtype, shape = np.dtype(header["descr"]), header["shape"]
    if dtype.hasobject:
        raise VqkitError(f"{where} holds Python objects; they would run code when loaded and are refused")
    start = 8 + (2 if version == (1, 0) else 4) + length
    if math.prod(shape) * dtype.itemsize != num_bytes - start:
        raise VqkitError(
            f"{where}: its header promises the shape {shape}, but the file holds {num_bytes - start} bytes"
        )


def _load_npy(stream: BinaryIO, num_bytes: int, max_bytes: int) -> tuple[np.ndarray, Path | None]:
    """The array, and the temporary file that it is mapped from when it is larger than max_bytes."""
    if num_bytes <= max_bytes:
        return np.lib.format.read_array(stream, allow_pickle=False), None
    path, file = temporary_file("npz")
    try:
        with file:
            shutil.copyfileobj(stream, file, 1 << 20)
        return np.load(path, mmap_mode="r", allow_pickle=False), path
    except BaseException:  # a broken archive, or Ctrl-C
        path.unlink()
        raise


# ----------------------------------------------------------------------------------------------------------- IDX


def read_idx(path: Path, num_dims: int = 3) -> np.ndarray:
    """uint8 array of an IDX file, gzipped or not (format: yann.lecun.com/exdb/mnist).

    VqkitError if it is not one, or if the header promises another amount of data than there is.
    """
    try:
        packed = path.read_bytes()[:2] == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(4 + 4 * num_dims)
            if head[:4] != bytes([0, 0, 8, num_dims]) or len(head) != 4 + 4 * num_dims:
                raise VqkitError(f"{path} is not an IDX file of uint8 with {num_dims} dimensions")
            shape = struct.unpack(f">{num_dims}I", head[4:])
            promised = math.prod(shape)
            if promised > path.stat().st_size * (_DEFLATE_LIMIT if packed else 1):
                raise VqkitError(f"{path}: its header promises the shape {shape}, far more than the file can hold")
            content = file.read(promised + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise VqkitError(f"cannot read {path}: {error}") from error
    if len(content) != promised:
        held = "more" if len(content) > promised else f"only {len(content)} bytes"
        raise VqkitError(f"{path}: its header promises {promised} bytes of images, but it holds {held}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def find_idx(folder: Path) -> list[list[Path | None]] | None:
    """[[train images, train labels], [t10k images, t10k labels]] in a folder, .gz or not; None without train images."""

    def find(name: str) -> Path | None:
        choices = (folder / name, folder / f"{name}.gz")
        return next((path for path in choices if path.is_file()), None)

    found = [[find(images), find(labels)] for images, labels in IDX_PARTS]
    return found if found[0][0] is not None else None


def read_idx_folder(folder: Path, kind: str = "idx", classes: tuple[str, ...] = ()) -> Items:
    """Train and t10k images of a folder, one after the other; t10k, where present, is the test set as it is.

    Labels become `groups`, with the names in `classes` if given.
    """
    images, groups, num_train = [], [], 0
    for part, (image_path, label_path) in enumerate(find_idx(folder) or []):
        if image_path is None:
            continue
        images.append(read_idx(image_path))
        num_train = num_train or len(images[0])
        if label_path is not None:
            labels = read_idx(label_path, num_dims=1)
            if len(labels) != len(images[part]):
                raise VqkitError(f"{label_path} holds {len(labels)} labels for {len(images[part])} images")
            groups += [classes[label] if label < len(classes) else str(label) for label in labels.tolist()]
    if len({array.shape[1:] for array in images}) > 1:
        raise VqkitError(f"{folder}: the train and t10k images differ in size")
    array = np.concatenate(images) if len(images) > 1 else images[0]
    items = array_items(array, kind, NumberedNames(folder.name, len(array)), str(folder))
    items.groups = groups if len(groups) == len(array) else None
    items.fixed_test = np.arange(num_train, len(array)) if len(array) > num_train else None
    return items
