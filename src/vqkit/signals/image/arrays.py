"""Images stored as arrays: IDX (the format of MNIST), .npy and .npz.

Headers are checked before memory is taken.
"""

from __future__ import annotations

import ast
import gzip
import math
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ...data.names import NumberedNames
from ...data.splits import digest, pack
from ...errors import VqkitError
from ...files import delete_with, open_regular, temporary_file
from .config import DataConfig
from .modes import MODES
from .ranges import Extent, ValueRange
from .stores import ArrayStore, Items, Reading

# No deflate stream expands by more than this, so a larger promise in a header is a lie.
_DEFLATE_LIMIT = 1032
_CHUNK_BYTES = 1 << 26
# Compressed arrays beyond this size are unpacked to disk, not to memory.
_LARGE_BYTES = 1 << 26
# Types of numbers that images may have: truth values, whole numbers, floats.
_NUMBERS = "buif"
# What NumPy, zipfile and the parser of a header raise when they are fed something else than they
# expect.
_BROKEN = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, SyntaxError, NotImplementedError),
    *(struct.error, zlib.error, zipfile.BadZipFile, RecursionError, MemoryError),
)
IDX_PARTS = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


def array_items(
    array: np.ndarray,  # (N, H, W) or (N, H, W, C)
    kind: str,
    names: Sequence[str],
    where: str,
    value_range: ValueRange | None = None,
    *,
    find_range: bool = False,
    mapped: tuple[Path, Callable[[np.ndarray], np.ndarray]] | None = None,
) -> Items:
    """Items of an array: uint8 as they are, other numbers scaled from `value_range`.

    find_range: find one from all values where None is given. mapped: as of ArrayStore. VqkitError
    for what is no images, for other types, and for values that are not finite or outside of the
    range.
    """
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or not 1 <= array.shape[3] <= 4 or 0 in array.shape:
        raise VqkitError(
            f"{where} must be images (N, H, W) or (N, H, W, C) with 1 to 4 channels, not "
            f"{array.shape}"
        )
    if array.dtype.kind not in _NUMBERS:
        raise VqkitError(f"{where} holds {array.dtype}; images must be whole numbers or floats")
    is_wide = array.dtype != np.uint8
    step = max(1, _CHUNK_BYTES // max(1, array[0].nbytes))
    try:
        if is_wide and find_range and value_range is None:
            value_range = _extent(array, step).range()
        store = ArrayStore(array, value_range, mapped)
        digests = []
        for start in range(0, len(array), step):
            digests += [digest(pixels.data) for pixels in store.chunk(start, start + step)]
    except ValueError as error:
        raise VqkitError(f"cannot use {where}: {error}") from error
    height, width, channels = array.shape[1:]
    return Items(
        kind=kind,
        store=store,
        names=names,
        digests=pack(digests),
        modes={MODES[channels]: len(array)},
        sizes={(height, width): len(array)},
        value_range=value_range if is_wide else None,
    )


def _extent(array: np.ndarray, step: int) -> Extent:
    extent = Extent()
    for start in range(0, len(array), step):
        extent.add(array[start : start + step])
    return extent


# ------------------------------------------------------------------------------------------ layouts


def layout_of(shape: tuple[int, ...], where: str) -> str:
    """Names of the dimensions of an array of images: N images, H, W, C channels.

    VqkitError when there are several.
    """
    if len(shape) == 3 and 0 not in shape:
        readings = {"NHW": True, "HWC": shape[2] <= 4, "CHW": shape[0] in (3, 4)}
    elif len(shape) == 4 and 0 not in shape:
        readings = {"NHWC": shape[3] <= 4, "NCHW": shape[1] <= 4}
    else:
        readings = {}
    possible = [layout for layout, fits in readings.items() if fits]
    if not possible:
        raise VqkitError(
            f"{where} must be images (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 to 4 channels, "
            f"not {shape}"
        )
    if len(possible) > 1:
        choices = [f"data.layout={layout}: {_in_words(layout, shape)}" for layout in possible]
        raise VqkitError(
            f"{where} has the shape {shape}, which can be read in {len(possible)} ways: set "
            f"{'; '.join(choices)}"
        )
    return possible[0]


def _in_words(layout: str, shape: tuple[int, ...]) -> str:
    size = dict(zip(layout, shape, strict=True))
    count = size.get("N", 1)
    channels = size.get("C", 1)
    return (
        f"{count} image{'s' * (count > 1)} of {size['W']}x{size['H']} pixels (width x height), "
        f"{channels} channel{'s' * (channels > 1)}"
    )


def arranged(array: np.ndarray, layout: str) -> np.ndarray:  # (N, H, W, C)
    """A view of an array of this layout with its dimensions in the order of images.

    ValueError for another number.
    """
    if array.ndim != len(layout):
        raise ValueError(
            f"data.layout={layout} has {len(layout)} dimensions, the array has {array.ndim}"
        )
    missing = [name for name in "NHWC" if name not in layout]
    expanded = np.expand_dims(array, tuple(range(array.ndim, array.ndim + len(missing))))
    order = [*layout, *missing]
    return expanded.transpose([order.index(name) for name in "NHWC"])


def _laid_out(
    array: np.ndarray, kind: str, path: Path, where: str, mapped_from: Path | None, how: Reading
) -> Items:
    """Items of an array in the layout that the settings or its shape say."""
    layout = how.config.layout or layout_of(array.shape, where)
    arrange = partial(arranged, layout=layout)
    try:
        images = arrange(array)
    except ValueError as error:
        raise VqkitError(f"cannot use {where}: {error}") from error
    items = array_items(
        images,
        kind,
        NumberedNames(path.name, len(images)),
        where,
        how.value_range,
        find_range=how.find_range,
        mapped=(mapped_from, arrange) if mapped_from else None,
    )
    items.notes.append(
        f"{where}: shape {array.shape} is read as {layout}, {_in_words(layout, array.shape)}"
    )
    return items


# ----------------------------------------------------------------------------------------- npy, npz


def read_npy(path: Path, how: Reading) -> Items:
    """Images in a .npy file, mapped from disk.

    VqkitError if it is broken, or pickled, or no images.
    """
    try:
        with open_regular(path) as file:
            _check_npy_header(file, os.fstat(file.fileno()).st_size, str(path))
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _BROKEN as error:
        raise VqkitError(f"cannot read {path}: {_words(error)}") from error
    return _laid_out(array, "npy", path, str(path), path, how)


def read_npz(path: Path, how: Reading) -> Items:
    """Images in a .npz file: its only array, or the one called images, x_train, x or arr_0.

    A large array is unpacked to a temporary file, piece by piece, and mapped. Errors as `read_npy`,
    and for more than data.max_bytes.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            member = _image_member(archive, path)
            where = f"{path} [{member.filename.removesuffix('.npy')}]"
            if member.file_size > _DEFLATE_LIMIT * max(1, member.compress_size):
                raise VqkitError(f"{where}: its header promises more data than the file can hold")
            check_unpacked(member.file_size, where, how.config)
            with archive.open(member) as stream:
                _check_npy_header(cast(BinaryIO, stream), member.file_size, where)
            with archive.open(member) as stream:
                in_memory = min(_LARGE_BYTES, how.config.max_memory_mb << 20)
                array, unpacked = _load_npy(cast(BinaryIO, stream), member.file_size, in_memory)
    except _BROKEN as error:
        raise VqkitError(f"cannot read {path}: {_words(error)}") from error
    try:
        items = _laid_out(array, "npz", path, where, unpacked, how)
    except VqkitError:
        if unpacked:
            unpacked.unlink()
        raise
    if unpacked:
        delete_with(items.store, unpacked)
    return items


def max_unpacked(config: DataConfig) -> int:
    """data.max_bytes, by default a quarter of the memory of this machine."""
    if config.max_bytes is not None:
        return config.max_bytes
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, OSError, ValueError):
        # This system does not say how much it has.
        return 4 << 30


def check_unpacked(num_bytes: int, where: str, config: DataConfig) -> None:
    """VqkitError for what would unpack to more than data.max_bytes."""
    limit = max_unpacked(config)
    if num_bytes > limit:
        raise VqkitError(
            f"{where} unpacks to {num_bytes} bytes, more than the {limit} that are allowed; if the "
            f"file can be trusted, set data.max_bytes={num_bytes}"
        )


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _image_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    members = {}
    for info in archive.infolist():
        if info.filename.endswith(".npy"):
            members[info.filename.removesuffix(".npy")] = info
    if len(members) == 1:
        return next(iter(members.values()))
    for name in ("images", "x_train", "x", "arr_0"):
        if name in members:
            return members[name]
    raise VqkitError(
        f"{path} holds the arrays {', '.join(members) or '(none)'}; call the one with images "
        "'images'"
    )


def _check_npy_header(file: BinaryIO, num_bytes: int, where: str) -> None:
    """VqkitError unless the header promises exactly the bytes that are there.

    Nothing is allocated before.
    """
    version = np.lib.format.read_magic(file)
    # The header's length: two bytes in the first version of the format, then four.
    length_format = "<H" if version == (1, 0) else "<I"
    length_size = struct.calcsize(length_format)
    (length,) = struct.unpack(length_format, file.read(length_size))
    header = ast.literal_eval(file.read(min(length, 65536)).decode("latin1"))
    dtype = np.dtype(header["descr"])
    shape = header["shape"]
    if dtype.hasobject:
        raise VqkitError(
            f"{where} holds Python objects; they would run code when loaded and are refused"
        )
    start = 8 + length_size + length
    if math.prod(shape) * dtype.itemsize != num_bytes - start:
        raise VqkitError(
            f"{where}: its header promises the shape {shape}, but the file holds "
            f"{num_bytes - start} bytes"
        )


def _load_npy(stream: BinaryIO, num_bytes: int, in_memory: int) -> tuple[np.ndarray, Path | None]:
    """The array, and the temporary file that it is mapped from when it has more than `in_memory`
    bytes.
    """
    if num_bytes <= in_memory:
        return np.lib.format.read_array(stream, allow_pickle=False), None
    path, file = temporary_file("npz")
    try:
        with file:
            shutil.copyfileobj(stream, file, 1 << 20)
        return np.load(path, mmap_mode="r", allow_pickle=False), path
    except BaseException:
        # A broken archive, or Ctrl-C.
        path.unlink()
        raise


# ---------------------------------------------------------------------------------------------- IDX


def read_idx(path: Path, config: DataConfig, num_dims: int = 3) -> np.ndarray:
    """uint8 array of an IDX file, gzipped or not (format: yann.lecun.com/exdb/mnist).

    VqkitError if it is not one, if the header promises another amount of data than there is, or
    more than data.max_bytes.
    """
    try:
        with open_regular(path) as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            most = os.fstat(raw.fileno()).st_size
            if packed:
                most *= _DEFLATE_LIMIT
            with gzip.open(raw) if packed else raw as file:
                head = file.read(4 + 4 * num_dims)
                if head[:4] != bytes([0, 0, 8, num_dims]) or len(head) != 4 + 4 * num_dims:
                    raise VqkitError(
                        f"{path} is not an IDX file of uint8 with {num_dims} dimensions"
                    )
                shape = struct.unpack(f">{num_dims}I", head[4:])
                promised = math.prod(shape)
                if promised > most:
                    raise VqkitError(
                        f"{path}: its header promises the shape {shape}, far more than the file "
                        "can hold"
                    )
                check_unpacked(promised, str(path), config)
                # One byte more, which tells whether there is more than was promised.
                content = file.read(promised + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise VqkitError(f"cannot read {path}: {_words(error)}") from error
    if len(content) != promised:
        held = "more" if len(content) > promised else f"only {len(content)} bytes"
        raise VqkitError(
            f"{path}: its header promises {promised} bytes of images, but it holds {held}"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def find_idx(folder: Path) -> list[list[Path | None]] | None:
    """[[train images, train labels], [t10k images, t10k labels]] in a folder, .gz or not.

    None without train images.
    """

    def find(name: str) -> Path | None:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
        return None

    parts = [[find(images), find(labels)] for images, labels in IDX_PARTS]
    if parts[0][0] is None:
        return None
    return parts


def read_idx_folder(
    folder: Path, config: DataConfig, kind: str = "idx", classes: tuple[str, ...] = ()
) -> Items:
    """Train and t10k images of a folder, one after the other.

    t10k, where present, is the test set as it is.

    Labels become `groups`, with the names in `classes` if given.
    """
    images: list[np.ndarray] = []
    groups: list[str] = []
    for image_path, label_path in find_idx(folder) or []:
        if image_path is None:
            continue
        images.append(read_idx(image_path, config))
        if label_path is not None:
            groups += _labels(label_path, len(images[-1]), config, classes)
    if len({array.shape[1:] for array in images}) > 1:
        raise VqkitError(f"{folder}: the train and t10k images differ in size")
    array = np.concatenate(images)
    items = array_items(array, kind, NumberedNames(folder.name, len(array)), str(folder))
    if len(groups) == len(array):
        items.groups = groups
    num_train = len(images[0])
    if len(array) > num_train:
        items.fixed_test = np.arange(num_train, len(array))
    return items


def _labels(path: Path, count: int, config: DataConfig, classes: tuple[str, ...]) -> list[str]:
    """Names of the labels in an IDX file, which must be `count`; numbers where `classes` ends."""
    labels = read_idx(path, config, num_dims=1)
    if len(labels) != count:
        raise VqkitError(f"{path} holds {len(labels)} labels for {count} images")
    names = []
    for label in labels.tolist():
        names.append(classes[label] if label < len(classes) else str(label))
    return names
