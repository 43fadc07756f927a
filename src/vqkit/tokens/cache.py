"""The cache: codes of every sample of a source, a parquet file for each of its shards.

    plan.json              what the source is cut into, and the model; the first file
    codebooks.safetensors  the vectors of every codebook
    shard-000000.parquet   samples: id, label, texts, extent, grid, codes
    shard-000000.json      its receipt, written after it: counts, what was skipped, SHA-256
    manifest.json          the last file: the cache is whole

Every file is there in full or not at all, and depends on its shard and the model alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import VqkitError
from ..files import open_regular, read_bounded, write_bytes, write_text
from ..tables import check_group, pyarrow
from .vocabulary import whole_number_type

PLAN = "plan.json"
MANIFEST = "manifest.json"
CODEBOOKS = "codebooks.safetensors"
CACHE_FORMAT = "vqkit token cache"
VERSION = 1
# Bytes of a JSON file at most.
MAX_JSON = 1 << 28
# Samples and codes that are written, and read, together.
ROWS = 1024
CODES = 1 << 22
# Skipped samples that a receipt names; all are counted.
MOST_NAMED = 1000
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ModelInfo:
    """What tokens depend on of a model, and where it was.

    codes_id: names encoder and codebooks. folder: of the artifact, when the cache was written.
    codebook_sizes, groups: as of `Vocabulary`.
    """

    codes_id: str
    folder: str
    signal: str
    codebook_sizes: tuple[int, ...]
    groups: tuple[int, ...]

    def describe(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> ModelInfo:
        """ValueError, KeyError or TypeError for what is none."""
        sizes = tuple(int(size) for size in found["codebook_sizes"])
        groups = tuple(int(group) for group in found["groups"])
        if not sizes or len(sizes) != len(groups) or min(sizes) < 1:
            raise ValueError("it names no codebooks")
        names = (found["codes_id"], found["folder"], found["signal"])
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a name of the model is no text")
        return cls(*names, sizes, groups)


class Sample(NamedTuple):
    """codes: (Q, *grid). extent: of the item. label: its class. texts: what is said of it."""

    id: str
    codes: NDArray[Any]
    extent: Sequence[int]
    label: str | None
    texts: Mapping[str, str]


class Rows(NamedTuple):
    """Samples of one grid, one after another.

    codes: (B, Q, *grid). extents: (B, n).
    """

    ids: list[str]
    codes: NDArray[Any]
    extents: NDArray[np.int64]
    labels: list[str | None]
    texts: list[dict[str, str]]


@dataclass(frozen=True)
class Receipt:
    """What became of a shard of a source.

    sha256, num_bytes: of its parquet file. skipped: names and reasons, the first MOST_NAMED of
    num_skipped.
    """

    codes_id: str
    source: str
    fingerprint: str
    num_samples: int
    num_codes: int
    num_skipped: int
    skipped: tuple[tuple[str, str], ...]
    num_bytes: int
    sha256: str


def shard_file(number: int) -> str:
    """Name of the parquet file of a shard."""
    return f"shard-{number:06d}.parquet"


def receipt_file(number: int) -> str:
    """Name of the receipt of a shard."""
    return f"shard-{number:06d}.json"


# ---------------------------------------------------------------------------------------- a shard


@dataclass
class ShardWriter:
    """Writes samples into a parquet file a group of rows at a time; `close` it at the end."""

    path: Path
    model: ModelInfo
    num_samples: int = 0
    num_codes: int = 0
    _waiting: list[Sample] = field(default_factory=list)
    _num_waiting: int = 0
    _table: Any = None

    def add(self, sample: Sample) -> None:
        """One more sample."""
        self._waiting.append(sample)
        self._num_waiting += sample.codes.size
        self.num_samples += 1
        self.num_codes += sample.codes.size
        if len(self._waiting) == ROWS or self._num_waiting >= CODES:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        if self._waiting or self._table is None:
            self._flush()
        self._table.close()

    def discard(self) -> None:
        """Let go of the file, which is not finished."""
        if self._table is not None:
            with contextlib.suppress(OSError, pyarrow().ArrowException):
                self._table.close()

    def _flush(self) -> None:
        arrow = pyarrow()
        schema = _schema(arrow, self.model)
        rows = self._waiting
        kind = whole_number_type(self.model.codebook_sizes)
        columns = [
            arrow.array([row.id for row in rows], arrow.string()),
            arrow.array([row.label for row in rows], arrow.string()),
            arrow.array([_texts(row.texts) for row in rows], arrow.string()),
            arrow.array([list(row.extent) for row in rows], schema.field("extent").type),
            arrow.array([row.codes.shape[1:] for row in rows], schema.field("grid").type),
            _lists(arrow, [row.codes.reshape(-1).astype(kind) for row in rows], kind),
        ]
        if self._table is None:
            self._table = arrow.parquet.ParquetWriter(self.path, schema, compression="zstd")
        self._table.write_batch(arrow.record_batch(columns, schema=schema))
        self._waiting = []
        self._num_waiting = 0


def _schema(arrow: Any, model: ModelInfo) -> Any:
    numbers = arrow.list_(arrow.int64())
    kind = arrow.from_numpy_dtype(whole_number_type(model.codebook_sizes))
    return arrow.schema(
        [
            ("id", arrow.string()),
            ("label", arrow.string()),
            ("texts", arrow.string()),
            ("extent", numbers),
            ("grid", numbers),
            ("codes", arrow.list_(kind)),
        ],
        metadata={"vqkit": json.dumps({"codes_id": model.codes_id})},
    )


def _texts(texts: Mapping[str, str]) -> str | None:
    return json.dumps(dict(texts), ensure_ascii=False) if texts else None


def _lists(arrow: Any, arrays: Sequence[NDArray[Any]], kind: np.dtype[Any]) -> Any:
    ends = np.cumsum([0, *(len(one) for one in arrays)])
    values = np.concatenate(arrays) if arrays else np.empty(0, kind)
    return arrow.ListArray.from_arrays(arrow.array(ends, arrow.int32()), arrow.array(values))


def read_shard(path: Path, model: ModelInfo) -> Iterator[Rows]:
    """The samples of a parquet file of a cache, some at a time, in its order.

    VqkitError for what `ShardWriter` did not write, and for tokens of another model.
    """
    arrow = pyarrow()
    try:
        with open_regular(path) as file, arrow.parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            if not schema.equals(_schema(arrow, model)):
                raise VqkitError(f"{path} is no part of a cache of tokens")
            if schema.metadata.get(b"vqkit") != _schema(arrow, model).metadata[b"vqkit"]:
                raise VqkitError(f"{path} holds tokens of another model than {model.codes_id[:16]}")
            for number in range(table.num_row_groups):
                check_group(path, table.metadata.row_group(number), schema.names)
                yield from _of_group(path, table.read_row_group(number), model)
    except (arrow.ArrowException, OSError) as error:
        raise VqkitError(f"cannot read {path}: {error}") from error
    except (TypeError, ValueError) as error:
        raise VqkitError(f"{path} is damaged: a sample lacks its grid, or text is none") from error


def _of_group(path: Path, table: Any, model: ModelInfo) -> Iterator[Rows]:
    """A group of rows in runs of one grid."""
    ids = table.column("id").to_pylist()
    labels = table.column("label").to_pylist()
    texts = [_fields(text) for text in table.column("texts").to_pylist()]
    grids = table.column("grid").to_pylist()
    extents = table.column("extent").to_pylist()
    codes = table.column("codes").combine_chunks()
    values = codes.flatten().to_numpy(zero_copy_only=False)
    lengths = codes.value_lengths().to_numpy(zero_copy_only=False)
    num_codebooks = len(model.codebook_sizes)
    first = 0
    read = 0
    while first < len(ids):
        grid = grids[first]
        last = first
        while last < len(ids) and grids[last] == grid and len(extents[last]) == len(grid):
            last += 1
        count = last - first
        size = num_codebooks * math.prod(grid or [0])
        if not count or size <= 0 or min(grid) < 1 or (lengths[first:last] != size).any():
            raise VqkitError(f"{path} is damaged at {ids[first]!r}: its codes do not fill its grid")
        found = values[read : read + count * size].reshape(count, num_codebooks, *grid)
        limits = np.array(model.codebook_sizes).reshape(-1, *[1] * len(grid))
        if (found >= limits).any():
            raise VqkitError(f"{path} holds codes that the model has not, near {ids[first]!r}")
        some = slice(first, last)
        sides = np.array(extents[some], np.int64)
        if (sides < 1).any():
            raise VqkitError(f"{path} is damaged at {ids[first]!r}: an item has no extent")
        yield Rows(ids[some], found, sides, labels[some], texts[some])
        read += count * size
        first = last


def _fields(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def write_receipt(folder: Path, number: int, receipt: Receipt) -> None:
    """Say that a shard is done, which its parquet file lies there for. OSError."""
    write_json(folder / receipt_file(number), asdict(receipt))


def read_receipt(folder: Path, number: int) -> Receipt | None:
    """The receipt of a shard that is done; None where it is not, or its file is not as it says.

    VqkitError for a file that is no receipt.
    """
    path = folder / receipt_file(number)
    if not path.exists():
        return None
    found = read_json(path)
    try:
        skipped = tuple((str(name), str(reason)) for name, reason in found["skipped"])
        receipt = Receipt(**{**found, "skipped": skipped})
        counts = (receipt.num_samples, receipt.num_codes, receipt.num_skipped, receipt.num_bytes)
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError
    except (TypeError, KeyError, ValueError) as error:
        raise VqkitError(f"{path} is no receipt of a shard; delete it and --resume") from error
    try:
        size = (folder / shard_file(number)).stat().st_size
    except OSError:
        return None
    return receipt if size == receipt.num_bytes else None


# ------------------------------------------------------------------------------------- the whole


@dataclass(frozen=True)
class Cache:
    """A cache that is whole.

    shards: a receipt each, in the order of the source.
    """

    folder: Path
    model: ModelInfo
    source: str
    shards: tuple[Receipt, ...]

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def num_codes(self) -> int:
        return sum(shard.num_codes for shard in self.shards)

    @property
    def num_skipped(self) -> int:
        return sum(shard.num_skipped for shard in self.shards)

    def rows(self) -> Iterator[tuple[int, Rows]]:
        """All samples, with the number of their shard. VqkitError as `read_shard`."""
        for number in range(len(self.shards)):
            for rows in read_shard(self.folder / shard_file(number), self.model):
                yield number, rows


def write_manifest(folder: Path, model: ModelInfo, source: str, shards: Sequence[Receipt]) -> None:
    """Say that a cache is whole. VqkitError where a shard is of another model. OSError."""
    for number, shard in enumerate(shards):
        if shard.codes_id != model.codes_id:
            raise VqkitError(
                f"{folder} mixes models: {shard_file(number)} has tokens of model "
                f"{shard.codes_id[:16]}, the others of {model.codes_id[:16]}"
            )
    cache = Cache(folder, model, source, tuple(shards))
    manifest = {
        "format": CACHE_FORMAT,
        "version": VERSION,
        "model": model.describe(),
        "source": source,
        "num_samples": cache.num_samples,
        "num_codes": cache.num_codes,
        "num_skipped": cache.num_skipped,
        "shards": len(shards),
    }
    write_json(folder / MANIFEST, manifest)


def open_cache(folder: Path) -> Cache:
    """A cache that is whole. VqkitError for one that is not, and for what is none."""
    manifest = read_manifest(folder, CACHE_FORMAT)
    try:
        model = ModelInfo.from_dict(manifest["model"])
        count = int(manifest["shards"])
        source = str(manifest["source"])
    except (KeyError, TypeError, ValueError) as error:
        raise VqkitError(f"{folder / MANIFEST} is damaged: {error}") from error
    shards = []
    for number in range(count):
        receipt = read_receipt(folder, number)
        if receipt is None:
            raise VqkitError(
                f"{folder / shard_file(number)} is missing or cut off: run vqkit tokenize with "
                "--resume"
            )
        shards.append(receipt)
        if receipt.codes_id != model.codes_id:
            raise VqkitError(
                f"{folder} mixes models: {shard_file(number)} has tokens of model "
                f"{receipt.codes_id[:16]}, the manifest says {model.codes_id[:16]}"
            )
    cache = Cache(folder, model, source, tuple(shards))
    if cache.num_samples != manifest.get("num_samples"):
        raise VqkitError(
            f"{folder} holds {cache.num_samples} samples, its manifest says "
            f"{manifest.get('num_samples')}"
        )
    return cache


# ------------------------------------------------------------------------------------------- files


def read_manifest(folder: Path, wanted: str) -> dict[str, Any]:
    """manifest.json of a folder of a kind. VqkitError for another kind, and where there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / PLAN).is_file():
            raise VqkitError(f"{folder} is not whole yet: run vqkit tokenize with --resume")
        raise VqkitError(f"{folder} holds no tokens: there is no {MANIFEST} in it")
    manifest = read_json(path)
    if manifest.get("format") != wanted or manifest.get("version") != VERSION:
        raise VqkitError(
            f"{folder} is not a {wanted.removeprefix('vqkit ')} of this version, but "
            f"{str(manifest.get('format'))[:40]!r}"
        )
    return manifest


def read_json(path: Path) -> dict[str, Any]:
    """An object of JSON. VqkitError naming the file."""
    try:
        found = json.loads(read_bounded(path, MAX_JSON))
    except OSError as error:
        raise VqkitError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise VqkitError(f"{path} is damaged: it is no JSON") from error
    if not isinstance(found, dict):
        raise VqkitError(f"{path} is damaged: it is no object of JSON")
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """An object of JSON, whole or not at all. OSError."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_codebooks(path: Path, vectors: Sequence[NDArray[np.float32]]) -> None:
    """Code vectors (K, D) of every codebook as safetensors: codebook_0 and so on. OSError."""
    from safetensors.numpy import save

    tensors = {f"codebook_{number}": one for number, one in enumerate(vectors)}
    write_bytes(path, save(tensors))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. OSError."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
