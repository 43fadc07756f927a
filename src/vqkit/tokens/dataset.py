"""What trainers read: the tokens of a cache in one of the forms, with all that is known of them.

manifest.json          vocabulary, order, grids, model, counts, SHA-256 of each file; the last file
items.parquet          of every item: id, label, extent, grid, and the tokens before it
codebooks.safetensors  the vectors of every codebook, to begin embeddings with
...                    the files of the form
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import VqkitError
from ..files import open_regular, write_folder
from ..tables import check_group, pyarrow
from .cache import (
    CODEBOOKS,
    MANIFEST,
    VERSION,
    Cache,
    ModelInfo,
    Rows,
    open_cache,
    read_json,
    read_manifest,
    read_shard,
    sha256_of,
    shard_file,
    write_json,
)
from .formats import FORMATS
from .formats.base import Part, Place, TokenFormat
from .formats.columns import check_text
from .sequences import ORDERS, BadTokens, Sequences
from .vocabulary import Vocabulary

DATASET_FORMAT = "vqkit token dataset"
ITEMS = "items.parquet"
# Grids that a manifest counts items of.
MOST_GRIDS = 100
# Rows of a group of items.parquet.
_ITEMS_TOGETHER = 1 << 13

Progress = Callable[[float], None]


def nothing(share: float) -> None:
    """What is told of progress where nobody asks."""


@dataclass(frozen=True)
class Item:
    """An item of a set: what it was, and its tokens (L,)."""

    id: str
    label: str | None
    extent: tuple[int, ...]
    grid: tuple[int, ...]
    tokens: NDArray[Any]


@dataclass(frozen=True)
class TokenSet:
    """A set that is whole.

    manifest: as it was written.
    """

    folder: Path
    model: ModelInfo
    sequences: Sequences
    form: str
    dtype: np.dtype[Any]
    num_items: int
    parts: tuple[Part, ...]
    manifest: Mapping[str, Any]

    @property
    def commonest_grid(self) -> tuple[int, ...]:
        """The grid that most items have. VqkitError where the manifest does not say it."""
        try:
            first = next(iter(self.manifest["grids"]))
            return tuple(int(side) for side in first.split("x"))
        except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
            raise VqkitError(f"{self.folder / MANIFEST} is damaged: it names no grid") from error

    def item(self, number: int) -> Item:
        """An item by its number from 0. VqkitError for none, and for damaged files."""
        if not 0 <= number < self.num_items:
            raise VqkitError(
                f"{self.folder} has no item {number}: they are numbered from 0 to "
                f"{self.num_items - 1}"
            )
        row = self._row(number)
        grid = tuple(row["grid"])
        length = self.sequences.length(grid)
        place = Place(number, row["start"], length)
        try:
            tokens = FORMATS[self.form].read(self.folder, place, self.dtype, self.parts)
        except OSError as error:
            raise VqkitError(f"cannot read {error.filename}: {error.strerror}") from error
        return Item(row["id"], row["label"], tuple(row["extent"]), grid, tokens)

    def codes(self, tokens: NDArray[Any], grid: Sequence[int] | None = None) -> NDArray[np.int64]:
        """Tokens (L,) -> codes (Q, *grid). grid: None = what their row ends say, in a set without
        them the commonest. VqkitError as `Sequences.codes`.
        """
        try:
            if grid is None:
                grid = self.commonest_grid
                if self.sequences.vocabulary.has_row_ends:
                    grid = self.sequences.grid_of(tokens, len(grid))
            return self.sequences.codes(tokens, grid)
        except BadTokens as error:
            raise VqkitError(f"these tokens are no item of {self.folder}: {error}") from error

    def _row(self, number: int) -> dict[str, Any]:
        arrow = pyarrow()
        path = self.folder / ITEMS
        try:
            with open_regular(path) as file, arrow.parquet.ParquetFile(file) as table:
                for group in range(table.num_row_groups):
                    found = table.metadata.row_group(group)
                    if number >= found.num_rows:
                        number -= found.num_rows
                        continue
                    check_group(path, found, table.schema_arrow.names)
                    row = table.read_row_group(group).slice(number, 1).to_pylist()[0]
                    return _checked(row)
        except (arrow.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise VqkitError(f"{path} is damaged: {error}") from error
        raise VqkitError(f"{path} is damaged: it has fewer items than the manifest says")


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """A row of items.parquet. ValueError for what is none."""
    grid = row["grid"]
    extent = row["extent"]
    if not grid or len(grid) != len(extent) or min(*grid, *extent) < 1 or row["start"] < 0:
        raise ValueError("an item has no grid")
    if max(grid) > 1 << 31:
        raise ValueError("an item is larger than any model makes it")
    return row


# ----------------------------------------------------------------------------------------- writing


def materialize(
    cache: Cache,
    folder: Path,
    form: str,
    order: str = "raster",
    *,
    base: int = 0,
    row_ends: bool = False,
    text: str | None = None,
    progress: Progress = nothing,
) -> TokenSet:
    """Write the samples of a cache into a folder that is missing or empty, in the order of the
    cache.

    form: of FORMATS. order: of ORDERS. base: the first id. row_ends: show where rows end, so that
    tokens of several grids can be told apart; in the order raster. text: the name of a text that
    goes with the tokens of an item, where the form holds one. progress: called with the share that
    is done. VqkitError for ids that the form does not hold, for row ends where there are no rows,
    and where the cache is damaged; OSError.
    """
    kind = FORMATS[form]
    vocabulary = Vocabulary(cache.model.codebook_sizes, cache.model.groups, base, row_ends)
    sequences = Sequences(vocabulary, order)
    dtype = kind.dtype_for(vocabulary)
    check_text(text)
    if text is not None and not kind.holds_text:
        others = ", ".join(name for name, one in FORMATS.items() if one.holds_text)
        raise VqkitError(
            f"--to {form} holds tokens alone: leave out --text-column, or use {others}"
        )
    if not cache.num_samples:
        raise VqkitError(f"{cache.folder} holds no samples: there is nothing to write")

    def write(temporary: Path) -> None:
        temporary.mkdir()
        written = _Written(sequences, kind(temporary, dtype, text), temporary / ITEMS, text)
        try:
            for _, rows in cache.rows():
                written.add(rows)
                progress(written.num_items / cache.num_samples)
            written.close()
        except BaseException:
            written.discard()
            raise
        if written.num_items != cache.num_samples:
            raise VqkitError(
                f"{cache.folder} is damaged: it has {written.num_items} samples, its receipts say "
                f"{cache.num_samples}"
            )
        if (cache.folder / CODEBOOKS).exists():
            shutil.copyfile(cache.folder / CODEBOOKS, temporary / CODEBOOKS)
        manifest = {
            "format": DATASET_FORMAT,
            "version": VERSION,
            "form": form,
            "order": order,
            "dtype": dtype.name,
            "vocabulary": vocabulary.describe(),
            "model": cache.model.describe(),
            "source": cache.source,
            "text_column": text,
            **written.describe(),
            "num_skipped": cache.num_skipped,
            "omnimodal_config": vocabulary.omnimodal_config(cache.model.signal),
            "files": _listed(temporary, written.writer.parts),
        }
        write_json(temporary / MANIFEST, manifest)

    write_folder(folder, write)
    return open_dataset(folder)


class _Written:
    """What is written of a set, beside a count of it."""

    def __init__(
        self, sequences: Sequences, writer: TokenFormat, items: Path, text: str | None
    ) -> None:
        self.sequences = sequences
        self.writer = writer
        self.num_items = 0
        self.num_tokens = 0
        self.num_texts = 0
        self.text = text
        self.grids: Counter[str] = Counter()
        self._names: set[str] = set()
        arrow = pyarrow()
        numbers = arrow.list_(arrow.int64())
        self._schema = arrow.schema(
            [
                ("id", arrow.string()),
                ("label", arrow.string()),
                ("extent", numbers),
                ("grid", numbers),
                ("start", arrow.int64()),
            ]
        )
        self._path = items
        self._table: Any = None
        self._waiting: list[Any] = []

    def add(self, rows: Rows) -> None:
        arrow = pyarrow()
        grid = list(rows.codes.shape[2:])
        if self.sequences.vocabulary.has_row_ends and len(grid) == 1:
            raise VqkitError("items along one dimension have no rows: leave out --row-ends")
        tokens = self.sequences.tokens(rows.codes)
        count, length = tokens.shape
        starts = self.num_tokens + length * np.arange(count)
        columns = [
            arrow.array(rows.ids, arrow.string()),
            arrow.array(rows.labels, arrow.string()),
            arrow.array(rows.extents.tolist(), arrow.list_(arrow.int64())),
            arrow.array([grid] * count, arrow.list_(arrow.int64())),
            arrow.array(starts, arrow.int64()),
        ]
        self._waiting.append(arrow.record_batch(columns, schema=self._schema))
        if sum(batch.num_rows for batch in self._waiting) >= _ITEMS_TOGETHER:
            self._flush()
        self.writer.add(rows, tokens)
        self.num_items += count
        self.num_tokens += tokens.size
        if self.text is not None:
            self.num_texts += sum(self.text in texts for texts in rows.texts)
            self._names |= {name for texts in rows.texts for name in texts}
        self.grids["x".join(map(str, grid))] += count

    def close(self) -> None:
        """VqkitError where no item has the text that goes with it."""
        self._flush()
        if self._table is not None:
            self._table.close()
        self.writer.close()
        if self.text is not None and not self.num_texts:
            there = ", ".join(sorted(self._names)[:12]) or "none"
            raise VqkitError(f"no item has a text '{self.text}'; of texts there are: {there}")

    def discard(self) -> None:
        """Let go of files that are not finished."""
        self.writer.discard()
        if self._table is not None:
            with contextlib.suppress(OSError, pyarrow().ArrowException):
                self._table.close()

    def describe(self) -> dict[str, Any]:
        """Counts for the manifest."""
        counts: dict[str, Any] = {"num_items": self.num_items, "num_tokens": self.num_tokens}
        if self.text is not None:
            counts["num_texts"] = self.num_texts
        return {**counts, "grids": dict(self.grids.most_common(MOST_GRIDS))}

    def _flush(self) -> None:
        if not self._waiting:
            return
        arrow = pyarrow()
        if self._table is None:
            self._table = arrow.parquet.ParquetWriter(self._path, self._schema, compression="zstd")
        self._table.write_table(arrow.Table.from_batches(self._waiting).combine_chunks())
        self._waiting = []


def _listed(folder: Path, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Every file of a set, those with items in their order."""
    items = {part.name: part.num_items for part in parts}
    others = sorted(path.name for path in folder.iterdir() if path.name not in items)
    files = []
    for name in [*items, *others]:
        path = folder / name
        one: dict[str, Any] = {
            "name": name,
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        if name in items:
            one["items"] = items[name]
        files.append(one)
    return files


# ----------------------------------------------------------------------------------------- reading


def open_dataset(folder: Path) -> TokenSet:
    """A set that is whole. VqkitError for what is none."""
    manifest = read_manifest(folder, DATASET_FORMAT)
    try:
        form = str(manifest["form"])
        order = str(manifest["order"])
        vocabulary = Vocabulary.from_dict(manifest["vocabulary"])
        if form not in FORMATS or order not in ORDERS:
            raise ValueError(f"there is no form {form!r} or no order {order!r}")
        dtype = FORMATS[form].dtype_for(vocabulary)
        if manifest["dtype"] != dtype.name:
            raise ValueError("its tokens have another type than the form")
        parts = []
        for file in manifest["files"]:
            if "items" in file:
                parts.append(Part(_file_name(file["name"]), int(file["items"])))
        return TokenSet(
            folder,
            ModelInfo.from_dict(manifest["model"]),
            Sequences(vocabulary, order),
            form,
            dtype,
            int(manifest["num_items"]),
            tuple(parts),
            manifest,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise VqkitError(f"{folder / MANIFEST} is damaged: {error}") from error


def _file_name(name: object) -> str:
    """The name of a file in the folder itself. ValueError for any other."""
    if not isinstance(name, str) or Path(name).name != name or name in (".", ".."):
        raise ValueError(f"{name!r} is no name of a file in it")
    return name


def open_either(folder: Path) -> Cache | TokenSet:
    """A cache or a set. VqkitError for what is neither."""
    path = folder / MANIFEST
    if path.is_file() and read_json(path).get("format") == DATASET_FORMAT:
        return open_dataset(folder)
    return open_cache(folder)


def verify(folder: Path, progress: Progress = nothing) -> list[str]:
    """What is wrong with a cache or a set, a sentence each: every file beside its SHA-256, every
    sample beside the counts, ids that occur twice. VqkitError for what is neither.
    """
    found = open_either(folder)
    if isinstance(found, Cache):
        return list(_wrong_in_cache(found, progress))
    return list(_wrong_in_set(found, progress))


def _wrong_in_cache(cache: Cache, progress: Progress) -> Iterator[str]:
    for number, receipt in enumerate(cache.shards):
        path = cache.folder / shard_file(number)
        progress(number / len(cache.shards))
        if sha256_of(path) != receipt.sha256:
            yield f"{path} is not what was written: its SHA-256 differs"
            continue
        ids: set[str] = set()
        count = 0
        try:
            for rows in read_shard(path, cache.model):
                ids.update(rows.ids)
                count += len(rows.ids)
        except VqkitError as error:
            yield str(error)
            continue
        if count != receipt.num_samples:
            yield f"{path} holds {count} samples, its receipt says {receipt.num_samples}"
        if len(ids) != count:
            yield f"{path}: {count - len(ids)} samples have the id of another one"


def _wrong_in_set(found: TokenSet, progress: Progress) -> Iterator[str]:
    files = found.manifest["files"]
    for number, file in enumerate(files):
        progress(number / len(files))
        try:
            path = found.folder / _file_name(file["name"])
            if sha256_of(path) != file["sha256"]:
                yield f"{path} is not what was written: its SHA-256 differs"
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield f"a file of the set cannot be read: {error}"
    try:
        last = found.item(found.num_items - 1)
        found.codes(last.tokens, last.grid)
    except VqkitError as error:
        yield str(error)
