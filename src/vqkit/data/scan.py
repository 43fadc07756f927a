"""Surveys of many picture files: hash and header of each, nothing decoded, flat in memory."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..errors import VqkitError
from .images import Header, picture_suffixes, pillow_warnings, probe, reason
from .splits import digest, pack
from .stores import BadFile, BlobStore, FileStore, Items, PackedStrings, delete_with, temporary_file

Found: TypeAlias = "tuple[bytes, Header] | str"
"""digest and header of a picture, or why it is bad"""

NUM_THREADS = min(8, os.cpu_count() or 1)
_CHUNK = 256


@dataclass
class _Survey:
    """Running totals over files."""

    names: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    bad: list[BadFile] = field(default_factory=list)

    def add(self, name: str, found: Found) -> bool:
        """Whether the file is good."""
        if isinstance(found, str):
            self.bad.append(BadFile(name, found))
            return False
        content, header = found
        self.names.append(name)
        self.digests.append(content)
        self.modes[header.mode] += 1
        self.sizes[header.size] += 1
        return True


def picture_files(folder: Path, suffixes: frozenset[str]) -> list[str]:
    """Relative paths, sorted, of the files below `folder` with one of these suffixes; hidden ones are passed over."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                found.append(os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/"))
    return sorted(found)


def scan_folder(folder: Path) -> Items:
    """The pictures below `folder`; folders right below it are classes (`folder_classes`).

    VqkitError if there is no file with the suffix of a picture.
    """
    names = picture_files(folder, picture_suffixes())
    if not names:
        raise VqkitError(f"{folder} holds no pictures (looked for .png, .jpg and every other format that Pillow reads)")
    survey = _Survey()
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    with pillow_warnings(), ThreadPoolExecutor(NUM_THREADS) as pool:
        surveyed = pool.map(lambda chunk: [_inspect_file(folder / name) for name in chunk], chunks)
        for chunk, results in zip(chunks, surveyed, strict=True):
            for name, found in zip(chunk, results, strict=True):
                survey.add(name, found)
    store = FileStore(folder, survey.names)
    digests = pack(survey.digests)
    items = Items("folder", store, store.names, digests, dict(survey.modes), dict(survey.sizes), survey.bad)
    items.groups = folder_classes(survey.names)
    return items


def folder_classes(names: list[str]) -> list[str] | None:
    """Of pictures 'folder/.../file' their first folder, if that looks like a class.

    None where a picture lies beside the folders, for one folder alone, and for folders of fewer than two pictures each
    on average.
    """
    first = [name.split("/", 1)[0] for name in names if "/" in name]
    different = len(set(first))
    return first if len(first) == len(names) and different > 1 and 2 * different <= len(names) else None


def _inspect_file(path: Path) -> Found:
    try:
        return _inspect(path.read_bytes())
    except OSError as error:
        return error.strerror or str(error)


def _inspect(content: bytes) -> Found:
    try:
        return digest(content), probe(io.BytesIO(content))
    except Exception as error:  # a broken file may raise anything in Pillow; one bad file must not end the survey
        return reason(error)


# ------------------------------------------------------------------------------------------------------- parquet


def scan_parquet(files: list[Path]) -> Items:
    """Pictures in a column of parquet files: binary, or the struct {bytes, path} of Hugging Face datasets.

    Rows are shuffled in training, and parquet can only be read in large groups: the encoded pictures are copied once,
    as they are, to a temporary file (in TMPDIR, as large as the column) that is read at random.
    Errors: VqkitError without pyarrow, without such a column, or if a file is broken.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise VqkitError("reading parquet needs pyarrow: pip install 'vqkit[parquet]'") from error
    survey, lengths = _Survey(), []
    path, file = temporary_file("parquet")
    try:
        with file, pillow_warnings():
            for source in files:
                for row, content in enumerate(_parquet_rows(source, pyarrow.parquet.ParquetFile)):
                    found = _inspect(content) if content is not None else "the row holds no bytes"
                    if survey.add(f"{source.name}:{row}", found) and content is not None:
                        lengths.append(file.write(content))
    except (pyarrow.ArrowException, OSError) as error:
        path.unlink(missing_ok=True)
        raise VqkitError(f"cannot read {source}: {reason(error)}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    ends = np.cumsum(lengths, dtype=np.int64)
    store = BlobStore(path, ends - np.array(lengths, dtype=np.int64), ends)
    delete_with(store, path)
    names = PackedStrings(survey.names)
    return Items("parquet", store, names, pack(survey.digests), dict(survey.modes), dict(survey.sizes), survey.bad)


def _parquet_rows(path: Path, parquet_file: Any) -> Iterator[bytes | None]:
    with parquet_file(path) as table:
        column, nested = _image_column(path, table.schema_arrow)
        for batch in table.iter_batches(batch_size=_CHUNK, columns=[column]):
            values = batch.column(0).field("bytes") if nested else batch.column(0)
            for value in values:
                yield value.as_py()


def _image_column(path: Path, schema: Any) -> tuple[str, bool]:
    """Name of the first column of pictures, one called 'image' before others, and whether it is a struct."""
    found = []
    for column in schema:
        kind = str(column.type)
        if kind in ("binary", "large_binary"):
            found.append((column.name, False))
        elif kind.startswith("struct<") and any(str(part.name) == "bytes" for part in column.type):
            found.append((column.name, True))
    if not found:
        raise VqkitError(f"{path} has no column of pictures: it must be binary or a struct with 'bytes' inside")
    return min(found, key=lambda item: item[0] != "image")
