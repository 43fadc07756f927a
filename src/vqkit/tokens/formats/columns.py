"""Forms in which an item is a row: parquet and lines of JSON."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ...errors import VqkitError
from ...files import open_regular
from ...tables import check_group, pyarrow
from ..cache import Rows
from .base import Part, Place, TokenFormat, damaged, part_of

# Items of a file.
ITEMS_A_PART = 100_000
# Bytes of a line of JSON at most.
_MAX_LINE = 1 << 28
# Columns that every row has.
COLUMNS = ("id", "tokens", "label", "extent", "grid")


class Parquet(TokenFormat):
    """data-00000.parquet and so on: id, tokens (a list of numbers), label, extent, grid, and the
    text.
    """

    holds_text = True

    def __init__(self, folder: Path, dtype: np.dtype[Any], text: str | None) -> None:
        super().__init__(folder, dtype, text)
        self._table: Any = None
        self._in_part = 0

    def add(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        arrow = pyarrow()
        if self._table is None:
            name = f"data-{len(self.parts):05d}.parquet"
            self._table = arrow.parquet.ParquetWriter(
                self.folder / name, self._schema(arrow), compression="zstd"
            )
        ends = np.arange(0, tokens.size + 1, tokens.shape[1], dtype=np.int32)
        values = arrow.array(tokens.reshape(-1).astype(self.dtype))
        grid = list(rows.codes.shape[2:])
        columns = [
            arrow.array(rows.ids, arrow.string()),
            arrow.ListArray.from_arrays(arrow.array(ends, arrow.int32()), values),
            arrow.array(rows.labels, arrow.string()),
            arrow.array(rows.extents.tolist(), arrow.list_(arrow.int64())),
            arrow.array([grid] * len(tokens), arrow.list_(arrow.int64())),
        ]
        if self.text is not None:
            texts = [found.get(self.text) for found in rows.texts]
            columns.append(arrow.array(texts, arrow.string()))
        batch = arrow.record_batch(columns, schema=self._schema(arrow))
        self._table.write_batch(batch)
        self._in_part += len(tokens)
        if self._in_part >= ITEMS_A_PART:
            self._close_part()

    def close(self) -> None:
        if self._table is not None:
            self._close_part()

    def discard(self) -> None:
        if self._table is not None:
            with contextlib.suppress(OSError, pyarrow().ArrowException):
                self._table.close()

    def _close_part(self) -> None:
        self._table.close()
        self.parts.append(Part(f"data-{len(self.parts):05d}.parquet", self._in_part))
        self._table = None
        self._in_part = 0

    def _schema(self, arrow: Any) -> Any:
        numbers = arrow.list_(arrow.int64())
        columns = [
            ("id", arrow.string()),
            ("tokens", arrow.list_(arrow.from_numpy_dtype(self.dtype))),
            ("label", arrow.string()),
            ("extent", numbers),
            ("grid", numbers),
        ]
        if self.text is not None:
            columns.append((self.text, arrow.string()))
        return arrow.schema(columns)

    @staticmethod
    def read(
        folder: Path, place: Place, dtype: np.dtype[Any], parts: Sequence[Part]
    ) -> NDArray[Any]:
        name, row = part_of(parts, place.item)
        path = folder / name
        arrow = pyarrow()
        try:
            with open_regular(path) as file, arrow.parquet.ParquetFile(file) as table:
                for number in range(table.num_row_groups):
                    group = table.metadata.row_group(number)
                    if row >= group.num_rows:
                        row -= group.num_rows
                        continue
                    check_group(path, group, ["tokens"])
                    found = table.read_row_group(number, columns=["tokens"]).column("tokens")
                    return found[row].values.to_numpy(zero_copy_only=False)
        except (arrow.ArrowException, KeyError) as error:
            raise damaged(path, str(error)) from error
        raise damaged(path, f"there is no item {place.item} in it")


class Jsonl(TokenFormat):
    """data-00000.jsonl and so on: an object a line with what `Parquet` has in its columns."""

    holds_text = True

    def __init__(self, folder: Path, dtype: np.dtype[Any], text: str | None) -> None:
        super().__init__(folder, dtype, text)
        self._file: TextIO | None = None
        self._in_part = 0

    def add(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        if self._file is None:
            name = f"data-{len(self.parts):05d}.jsonl"
            self._file = open(self.folder / name, "w", encoding="utf-8")
        grid = list(rows.codes.shape[2:])
        for row, of_item in enumerate(tokens.tolist()):
            item: dict[str, Any] = {
                "id": rows.ids[row],
                "tokens": of_item,
                "label": rows.labels[row],
                "extent": rows.extents[row].tolist(),
                "grid": grid,
            }
            if self.text is not None:
                item[self.text] = rows.texts[row].get(self.text)
            self._file.write(json.dumps(item, ensure_ascii=False) + "\n")
        self._in_part += len(tokens)
        if self._in_part >= ITEMS_A_PART:
            self._close_part()

    def close(self) -> None:
        if self._file is not None:
            self._close_part()

    def discard(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    def _close_part(self) -> None:
        assert self._file is not None
        self._file.close()
        self.parts.append(Part(f"data-{len(self.parts):05d}.jsonl", self._in_part))
        self._file = None
        self._in_part = 0

    @staticmethod
    def read(
        folder: Path, place: Place, dtype: np.dtype[Any], parts: Sequence[Part]
    ) -> NDArray[Any]:
        name, row = part_of(parts, place.item)
        path = folder / name
        line = b""
        with open_regular(path) as file:
            for _ in range(row + 1):
                line = file.readline(_MAX_LINE)
        try:
            return np.array(json.loads(line)["tokens"], dtype)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise damaged(path, f"line {row + 1} holds no tokens") from error


def check_text(text: str | None) -> None:
    """VqkitError for a text whose name is that of another column."""
    if text in COLUMNS:
        raise VqkitError(f"--text-column {text} is the name of a column that every row has")
