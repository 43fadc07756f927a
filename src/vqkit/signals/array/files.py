"""Arrays in files: NumPy's .npy, tables of comma-separated values, and parquet.

Numbers come as float32 (C, *extent), NaN where a value is missing. Pickles are never read, and
sizes are checked before memory is taken.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import VqkitError
from ...files import open_regular, read_bounded
from .config import SeriesData, VolumeData

SERIES_SUFFIXES = (".npy", ".csv", ".parquet")
VOLUME_SUFFIXES = (".npy",)
# Values of one file, and bytes of a table of text.
MAX_VALUES = 1 << 30
MAX_TEXT = 1 << 30

Numbers = NDArray[np.float32]


class BadArray(ValueError):
    """What is wrong with a file, as a clause."""


class Target(NamedTuple):
    """What a file is brought to: dimensions of an item, and its channels, None = as it has."""

    dims: int
    channels: int | None
    settings: SeriesData | VolumeData


def read(path: Path, target: Target) -> Numbers:
    """(C, *extent). BadArray."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            found = _from_array(_load_npy(path), target)
        elif target.dims == 1 and suffix == ".csv":
            found = _from_csv(path, target)
        elif target.dims == 1 and suffix == ".parquet":
            found = _from_parquet(path, target)
        else:
            raise BadArray(f"a file {suffix or 'without a suffix'} holds no array of this kind")
    except VqkitError as error:
        raise BadArray(str(error)) from error
    if not found.size:
        raise BadArray("it is empty")
    if np.isinf(found).any():
        raise BadArray("a value is infinite")
    if np.isnan(found).all():
        raise BadArray("all of its values are missing")
    if target.channels is not None and len(found) != target.channels:
        raise BadArray(f"it has {len(found)} channels, where {target.channels} are expected")
    return found


def write(values: np.ndarray, target: Target) -> bytes:
    """(C, *extent) as an .npy file, laid out as those that were read."""
    if target.dims == 1:
        assert isinstance(target.settings, SeriesData)
        array = values.T if target.settings.layout == "time_first" else values
    else:
        assert isinstance(target.settings, VolumeData)
        array = np.moveaxis(values, 0, -1) if target.settings.has_channels else values[0]
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array, np.float32), allow_pickle=False)
    return stream.getvalue()


def _load_npy(path: Path) -> np.ndarray:
    _check_regular(path)
    try:
        # Mapped: the header says how large it is before any of it is read.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise BadArray(f"it is no .npy file that can be read: {error}") from error
    if not isinstance(array, np.ndarray):
        raise BadArray("it is an archive of arrays: unpack it into .npy files")
    if array.dtype.kind not in "iufb":
        raise BadArray(f"its values are {array.dtype}, not numbers")
    if array.size > MAX_VALUES:
        raise BadArray(f"it has {array.size} values, more than {MAX_VALUES}: cut it in parts")
    return array


def _check_regular(path: Path) -> None:
    try:
        open_regular(path).close()
    except OSError as error:
        raise BadArray(error.strerror or str(error)) from error


def _from_array(array: np.ndarray, target: Target) -> Numbers:
    settings = target.settings
    has_channels = not isinstance(settings, VolumeData) or settings.has_channels
    if array.ndim == target.dims:
        array = array[None]
    elif has_channels and array.ndim == target.dims + 1:
        is_first = isinstance(settings, SeriesData) and settings.layout == "channels_first"
        array = array if is_first else np.moveaxis(array, -1, 0)
    else:
        hint = "" if target.dims == 1 else "; set data.has_channels for volumes with channels"
        raise BadArray(f"its shape {list(array.shape)} is none of an item here{hint}")
    return np.ascontiguousarray(array, np.float32)


def _from_csv(path: Path, target: Target) -> Numbers:
    try:
        text = read_bounded(path, MAX_TEXT).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadArray("it is no UTF-8 text") from error
    try:
        dialect = csv.Sniffer().sniff(text[:4096], ",;\t ")
    except csv.Error:
        dialect = csv.excel
    rows = [row for row in csv.reader(io.StringIO(text), dialect) if row]
    if not rows:
        raise BadArray("it is empty")
    names = None
    if not any(_number(cell) is not None for cell in rows[0] if cell.strip()):
        names = [cell.strip() for cell in rows[0]]
        rows = rows[1:]
    width = len(rows[0]) if rows else 0
    for number, row in enumerate(rows, 2 if names else 1):
        if len(row) != width:
            raise BadArray(f"line {number} has {len(row)} cells, others have {width}")
    table = np.full((len(rows), width), np.nan, np.float32)
    is_number = [True] * width
    for place, row in enumerate(rows):
        for column, cell in enumerate(row):
            value = _number(cell)
            if value is None and cell.strip().lower() not in ("", "na", "null", "none"):
                is_number[column] = False
            table[place, column] = np.nan if value is None else value
    names = names or [str(number) for number in range(width)]
    return table[:, _chosen(names, is_number, target)].T.copy()


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _from_parquet(path: Path, target: Target) -> Numbers:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise BadArray("parquet files need pyarrow: pip install 'vqkit[parquet]'") from error
    _check_regular(path)
    try:
        file = parquet.ParquetFile(path)
        schema = file.schema_arrow
        if file.metadata.num_rows * max(1, len(schema.names)) > MAX_VALUES:
            raise BadArray(f"it has more than {MAX_VALUES} values: cut it in parts")
        is_number = [
            str(kind).startswith(("int", "uint", "float", "double", "half", "bool"))
            for kind in schema.types
        ]
        chosen = [schema.names[place] for place in _chosen(schema.names, is_number, target)]
        table = file.read(columns=chosen)
        columns = [table[name].to_numpy(zero_copy_only=False) for name in chosen]
    except BadArray:
        raise
    except Exception as error:  # pyarrow raises many kinds for what is no parquet file
        raise BadArray(f"it is no parquet file that can be read: {error}") from error
    return np.stack([np.asarray(column, np.float32) for column in columns])


def _chosen(names: Sequence[str], is_number: Sequence[bool], target: Target) -> list[int]:
    """Places of the columns to take. BadArray."""
    assert isinstance(target.settings, SeriesData)
    wanted = target.settings.columns
    if wanted is None:
        found = [place for place, good in enumerate(is_number) if good]
        if not found:
            raise BadArray("it has no column of numbers")
        return found
    missing = [name for name in wanted if name not in names]
    if missing:
        raise BadArray(f"it has no column {missing[0]!r}")
    places = [list(names).index(name) for name in wanted]
    for place in places:
        if not is_number[place]:
            raise BadArray(f"its column {names[place]!r} holds no numbers")
    return places
