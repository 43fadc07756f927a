"""Sources of many samples, cut into shards that are read one sample after another in memory that
does not grow: files, tar archives in the layout of WebDataset, parquet, and tables of Hugging Face
datasets.

What a source is cut into depends on its files alone, so that every process finds the same shards.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from ..errors import VqkitError
from ..files import open_regular, read_bounded
from ..tables import check_group, pyarrow

# Bytes of a sample at most, and of the text, the class or the JSON beside one.
MAX_CONTENT = 1 << 29
MAX_TEXT = 1 << 16
# Bytes of a list of files at most.
MAX_LIST = 1 << 30
# Single files that make a shard: a sixteenth of them all, within these.
FEWEST_FILES = 32
MOST_FILES = 1000
# Rows of a table that are held at once.
ROWS_TOGETHER = 64

TAR = (".tar", ".tar.gz", ".tgz")
LISTS = (".txt", ".lst")
# The name of a sample in an archive, and what its member is, as WebDataset cuts them.
_MEMBER = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
# Texts that are captions by their suffix, and names of fields and columns that tell the class.
_CAPTIONS = ("txt", "caption")
_LABELS = ("label", "class", "cls")
_BROKEN_ARCHIVE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)


@dataclass(frozen=True)
class SourceShard:
    """A part of a source.

    kind: files, tar, parquet, arrow, or set (items with numbers). name: unique within the source.
    root: folder that `paths` lie below. start, stop: numbers of the items of a set. fingerprint:
    changes with the size or the time of any of its files.
    """

    kind: str
    name: str
    root: str
    paths: tuple[str, ...]
    fingerprint: str
    start: int = 0
    stop: int = 0


class Entry(NamedTuple):
    """A sample that is not decoded yet.

    content: its file, or the bytes of it. label: its class. texts: what is said of it, by name.
    done: share of the shard that is read.
    """

    id: str
    content: Path | bytes
    label: str | None
    texts: Mapping[str, str]
    done: float


class Skipped(NamedTuple):
    """A sample, or a part of a shard, that cannot be used, and why."""

    name: str
    reason: str


Found: TypeAlias = "Entry | Skipped"


def find_shards(source: str, is_item: Callable[[Path], bool]) -> list[SourceShard]:
    """The shards of a folder, a file, a pattern (`photos/*.tar`) or a list of files, one a line
    (.txt, .lst), in the order of their names.

    is_item: whether a file is a sample by itself, by its suffix. None where nothing is found.
    VqkitError for a list that cannot be read, and for files that it names and are not there.
    """
    root, names = _names(source)
    shards = []
    single = []
    for name in names:
        kind = _kind(name)
        # A series is a table, which then holds no samples but is one.
        if is_item(Path(name)):
            single.append(name)
        elif kind is not None:
            shards.append(SourceShard(kind, name, str(root), (name,), _stamp(root / name)))
    size = min(MOST_FILES, max(FEWEST_FILES, len(single) // 16))
    for start in range(0, len(single), size):
        shards.append(_shard_of_files(root, tuple(single[start : start + size])))
    return shards


def read_shard(shard: SourceShard, is_item: Callable[[Path], bool]) -> Iterator[Found]:
    """The samples of a shard, one after another, and what cannot be used of it.

    VqkitError for a table without a column of samples, or without pyarrow.
    """
    if shard.kind == "files":
        return _files(shard)
    if shard.kind == "tar":
        return _archive(shard, is_item)
    return _table(shard)


# ------------------------------------------------------------------------------------ finding files


def _names(source: str) -> tuple[Path, list[str]]:
    """A folder, and the names below it that a source stands for, with forward slashes."""
    path = Path(os.path.abspath(Path(source).expanduser()))
    if path.is_dir():
        return path, sorted(_below(path))
    if path.is_file() and path.suffix.lower() in LISTS:
        return path.parent, _listed(path)
    if path.exists():
        return path.parent, [path.name]
    root = _root_of_pattern(path)
    found = (Path(name) for name in glob.glob(str(path), recursive=True))
    return root, sorted(one.relative_to(root).as_posix() for one in found if one.is_file())


def _below(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        # os.walk goes on into what is left in the list.
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")


def _listed(path: Path) -> list[str]:
    try:
        text = read_bounded(path, MAX_LIST).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise VqkitError(f"cannot read {path}: {error.strerror}") from error
    return [line for line in text.splitlines() if line.strip()]


def _root_of_pattern(path: Path) -> Path:
    parts = []
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _kind(name: str) -> str | None:
    lower = name.lower()
    if lower.endswith(TAR):
        return "tar"
    if lower.endswith(".parquet"):
        return "parquet"
    # Hugging Face keeps what it computed from a table beside it.
    if lower.endswith(".arrow") and not lower.rsplit("/", 1)[-1].startswith("cache-"):
        return "arrow"
    return None


def _stamp(path: Path) -> str:
    """Size and time of a file: what changes with it. VqkitError where there is none."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise VqkitError(f"cannot read {path}: {error.strerror}; is the list right?") from error
    return f"{found.st_size} bytes of {found.st_mtime_ns}"


def _shard_of_files(root: Path, names: tuple[str, ...]) -> SourceShard:
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n{_stamp(root / name)}\n".encode("utf-8", "surrogateescape"))
    name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    return SourceShard("files", plain(name), str(root), names, digest.hexdigest())


def plain(name: str) -> str:
    """A name as text: bytes that are none as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


# -------------------------------------------------------------------------------------------- files


def _files(shard: SourceShard) -> Iterator[Found]:
    root = Path(shard.root)
    for number, name in enumerate(shard.paths, 1):
        parts = name.split("/")
        label = plain(parts[0]) if len(parts) > 1 and not name.startswith("/") else None
        texts = _text_beside(root / name)
        yield Entry(plain(name), root / name, label, texts, number / len(shard.paths))


def _text_beside(path: Path) -> dict[str, str]:
    text = path.with_suffix(".txt")
    try:
        if not text.is_file():
            return {}
        return {"caption": _words(read_bounded(text, MAX_TEXT))}
    except OSError:
        return {}


def _words(content: bytes) -> str:
    return " ".join(content.decode("utf-8", "replace").split())


# ----------------------------------------------------------------------------------------- archives


@dataclass
class _Parts:
    """What members of an archive say of one sample."""

    key: str
    content: bytes | None = None
    label: str | None = None
    texts: dict[str, str] = field(default_factory=dict)
    # What became of the sample itself.
    trouble: str = "no member is a sample by its suffix"

    def found(self, done: float) -> Found:
        if self.content is None:
            return Skipped(self.key, self.trouble)
        return Entry(self.key, self.content, self.label, self.texts, done)


def _archive(shard: SourceShard, is_item: Callable[[Path], bool]) -> Iterator[Found]:
    path = Path(shard.root) / shard.name
    size = max(1, path.stat().st_size)
    parts: _Parts | None = None
    done = 0.0
    is_sample = by_suffix(is_item)
    with open_regular(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:*", errors="surrogateescape") as archive:
                for member in archive:
                    # Otherwise an archive remembers all of its members.
                    archive.members = []  # type: ignore[attr-defined]
                    done = min(1.0, file.tell() / size)
                    key, suffix = key_of(member.name)
                    if not member.isreg() or suffix is None:
                        continue
                    if parts is not None and parts.key != key:
                        yield parts.found(done)
                        parts = None
                    parts = parts or _Parts(key)
                    _take(parts, archive, member, suffix, is_sample)
                check_end(archive)
        except _BROKEN_ARCHIVE as error:
            # What was read in full stands.
            if parts is not None:
                yield parts.found(done)
                parts = None
            yield Skipped(plain(shard.name), f"damaged from here on: {_reason(error)}")
    if parts is not None:
        yield parts.found(1.0)


def key_of(name: str) -> tuple[str, str | None]:
    """The sample that a member of an archive belongs to, and its suffix; None of none."""
    name = name.removeprefix("./")
    matched = _MEMBER.fullmatch(name)
    if matched is None:
        return plain(name), None
    return plain(matched[1]), matched[2].lower()


def by_suffix(is_item: Callable[[Path], bool]) -> Callable[[str], bool]:
    """Whether a member of a suffix, as `key_of` has it, is a sample. Each is asked for once: Python
    keeps a table of the parts of all paths, which grows in whatever thread makes one.
    """
    return lru_cache(64)(lambda suffix: is_item(Path(f"x.{suffix.rsplit('.', 1)[-1]}")))


def _take(
    parts: _Parts,
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    suffix: str,
    is_sample: Callable[[str], bool],
) -> None:
    """Read a member of an archive into the sample that it belongs to."""
    if is_sample(suffix):
        if parts.content is not None:
            return
        if member.size > MAX_CONTENT:
            parts.trouble = f"it holds more than {MAX_CONTENT >> 20} MiB"
            return
        parts.trouble = "the archive ends inside of it"
        parts.content = _content(archive, member)
        return
    last = suffix.rsplit(".", 1)[-1]
    if member.size > MAX_TEXT or last not in (*_CAPTIONS, *_LABELS, "json"):
        return
    content = _content(archive, member)
    if last in _CAPTIONS:
        parts.texts["caption"] = _words(content)
    elif last in _LABELS:
        parts.label = _words(content)
    else:
        _take_fields(parts, content)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    content = b"" if file is None else file.read(member.size)
    if len(content) != member.size:
        raise tarfile.ReadError(f"it ends inside of {plain(member.name)}")
    return content


def _take_fields(parts: _Parts, content: bytes) -> None:
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return
    if not isinstance(fields, dict):
        return
    for name, value in fields.items():
        if not isinstance(value, str | int | float):
            continue
        if name in _LABELS and parts.label is None:
            parts.label = plain(str(value))
        elif name not in _LABELS:
            parts.texts.setdefault(plain(name), plain(str(value)))


def check_end(archive: tarfile.TarFile) -> None:
    """The library stops without a word at a header that makes no sense, and where there is nothing
    any more, as it does at the block of zeros that ends an archive.
    """
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    block = archive.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it breaks off without an end")
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"no header of a member at byte {archive.offset}")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


# ------------------------------------------------------------------------------------------- tables


class _Columns(NamedTuple):
    """Columns of a table that are used: that of samples, whether it is a struct {bytes, path}, that
    of classes with their names, and those of texts.
    """

    item: str
    is_struct: bool
    label: str | None
    names: list[str] | None
    texts: list[str]

    def all(self) -> list[str]:
        label = [] if self.label is None else [self.label]
        return [self.item, *label, *self.texts]


def _table(shard: SourceShard) -> Iterator[Found]:
    arrow = pyarrow()
    path = Path(shard.root) / shard.name
    read = _parquet_batches if shard.kind == "parquet" else _arrow_batches
    row = 0
    try:
        with open_regular(path) as file:
            for columns, batch, done in read(path, file, arrow):
                yield from _rows(columns, batch, f"{plain(shard.name)}:", row, done)
                row += batch.num_rows
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Skipped(f"{plain(shard.name)}:{row}", f"damaged from here on: {_reason(error)}")


def _parquet_batches(
    path: Path, file: BinaryIO, arrow: Any
) -> Iterator[tuple[_Columns, Any, float]]:
    with arrow.parquet.ParquetFile(file) as table:
        columns = _columns(path, table.schema_arrow, arrow)
        for number in range(table.num_row_groups):
            check_group(path, table.metadata.row_group(number), columns.all())
            batches = table.iter_batches(
                batch_size=ROWS_TOGETHER, row_groups=[number], columns=columns.all()
            )
            for batch in batches:
                yield columns, batch, number / table.num_row_groups


def _arrow_batches(path: Path, file: BinaryIO, arrow: Any) -> Iterator[tuple[_Columns, Any, float]]:
    size = max(1, os.fstat(file.fileno()).st_size)
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    if is_file:
        reader = arrow.ipc.open_file(file)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        reader = arrow.ipc.open_stream(file)
        batches = iter(reader)
    columns = _columns(path, reader.schema, arrow)
    for whole in batches:
        whole.validate(full=True)
        for start in range(0, whole.num_rows, ROWS_TOGETHER):
            part = whole.slice(start, ROWS_TOGETHER).select(columns.all())
            yield columns, part, min(1.0, file.tell() / size)


def _columns(path: Path, schema: Any, arrow: Any) -> _Columns:
    item, is_struct = column_of_samples(path, schema, arrow)
    texts = []
    label = None
    for column in schema:
        if column.name == item:
            continue
        if column.name in _LABELS:
            label = label or column.name
        elif arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type):
            texts.append(column.name)
    return _Columns(item, is_struct, label, _class_names(schema, label), texts)


def has_samples(path: Path) -> bool:
    """Whether a parquet table has a column of samples; of others each is a series. VqkitError
    without pyarrow.
    """
    arrow = pyarrow()
    try:
        with open_regular(path) as file, arrow.parquet.ParquetFile(file) as table:
            column_of_samples(path, table.schema_arrow, arrow)
    except (VqkitError, OSError, arrow.ArrowException):
        return False
    return True


def column_of_samples(path: Path, schema: Any, arrow: Any) -> tuple[str, bool]:
    """The column of a table that holds samples, one named after them before others, and whether it
    is a struct {bytes, path}. VqkitError where there is none.
    """
    possible = []
    for column in schema:
        if arrow.types.is_binary(column.type) or arrow.types.is_large_binary(column.type):
            possible.append((column.name, False))
        elif arrow.types.is_struct(column.type) and "bytes" in _fields(column.type):
            possible.append((column.name, True))
    if not possible:
        raise VqkitError(
            f"{path} has no column of samples: it must be binary or a struct with 'bytes' inside"
        )
    return min(possible, key=lambda each: each[0] not in ("image", "audio"))


def _fields(struct: Any) -> set[str]:
    return {str(struct.field(index).name) for index in range(struct.num_fields)}


def _class_names(schema: Any, label: str | None) -> list[str] | None:
    """Names of the classes, as Hugging Face datasets has them beside a table."""
    text = (schema.metadata or {}).get(b"huggingface")
    if label is None or text is None:
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        names = json.loads(text)["info"]["features"][label]["names"]
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    return None


def _rows(columns: _Columns, batch: Any, prefix: str, first: int, done: float) -> Iterator[Found]:
    items = batch.column(columns.item)
    if columns.is_struct:
        items = items.field("bytes")
    for row in range(batch.num_rows):
        name = f"{prefix}{first + row}"
        content = items[row].as_py()
        if content is None:
            yield Skipped(name, "the row holds no bytes")
            continue
        label = None
        if columns.label is not None:
            label = _label(batch.column(columns.label)[row].as_py(), columns.names)
        texts = {}
        for text in columns.texts:
            value = batch.column(text)[row].as_py()
            if value is not None and len(value) <= MAX_TEXT:
                texts[text] = value
        yield Entry(name, content, label, texts, done)


def _label(value: object, names: list[str] | None) -> str | None:
    if value is None:
        return None
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return plain(str(value))
