"""Tables in parquet, by pyarrow (the extra [parquet]), read within bounds."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from .errors import VqkitError

# Bytes that the columns which are read of a group of rows unpack to, at most.
MAX_GROUP = 1 << 32


def pyarrow() -> Any:
    """The library. VqkitError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise VqkitError(
            "tables are read and written with pyarrow: pip install 'vqkit[parquet]'"
        ) from error
    return pyarrow


def check_group(path: Path, group: Any, columns: Collection[str]) -> int:
    """Bytes that columns of a group of rows of a parquet file unpack to.

    group: what pyarrow says of it. VqkitError where they are more than is read.
    """
    size = 0
    for index in range(group.num_columns):
        part = group.column(index)
        if part.path_in_schema.split(".")[0] in columns:
            size += part.total_uncompressed_size
    if size > MAX_GROUP:
        raise VqkitError(
            f"a group of rows of {path} unpacks to {size} bytes, more than {MAX_GROUP}: write it "
            "with fewer rows a group"
        )
    return size
