"""Safetensors files whose every bit is checked: bounded before memory is taken, and held against a
sum of their own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import VqkitError
from ..files import open_regular, read_bounded, write_whole

# Bytes of config.json that are read at most.
MAX_JSON = 4 << 20
# Bytes of the header of a safetensors file: names, shapes and metadata.
MAX_HEADER = 8 << 20
SUM = "crc32"
# What vqkit writes, as safetensors calls it.
DTYPES = ("F32", "I64", "I32", "I16", "I8", "U8", "BOOL")


@dataclass(frozen=True)
class TensorFile:
    """Tensors by name, and the metadata of the file."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_json(path: Path) -> dict[str, Any]:
    """A file of an artifact. VqkitError when it is missing, too large or not a JSON object."""
    try:
        tree = json.loads(read_bounded(path, MAX_JSON))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise VqkitError(f"{path.parent} is not a vqkit artifact: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error
    if not isinstance(tree, dict):
        raise VqkitError(f"{path} is not a vqkit file")
    return tree


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file with the sum of all that is in it. VqkitError when that fails."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        header, data = _parts(save(whole, dict(metadata)))
        header["__metadata__"][SUM] = file_sum(header, data)
        text = json.dumps(header).encode()
        # Data start at a multiple of eight bytes, as the format asks: blanks fill the header up.
        text += b" " * (-len(text) % 8)

        def write(where: Path) -> None:
            with where.open("wb") as file:
                file.write(len(text).to_bytes(8, "little") + text)
                file.write(data)

        write_whole(path, write)
    except (OSError, SafetensorError) as error:
        raise VqkitError(f"cannot write {path}: {reason(error)}") from error


def read_tensors(
    path: Path, max_bytes: int, keys: frozenset[str], optional: frozenset[str] = frozenset()
) -> TensorFile:
    """Read a file of at most max_bytes of tensors, whose metadata have these keys, and no others
    that are not optional.

    Files of before sums were written have none, and pass without one. VqkitError for what is
    damaged, too large, or not finite.
    """
    try:
        content = read_bounded(path, max_bytes + MAX_HEADER)
        header, data = _parts(content)
        metadata = header["__metadata__"]
        tensors = load(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error
    if not keys <= metadata.keys() <= keys | optional | {SUM}:
        raise VqkitError(f"{path} is damaged: its header is not what vqkit wrote")
    if SUM in metadata and metadata[SUM] != file_sum(header, data):
        raise VqkitError(f"{path} is damaged: it does not fit its own sum")
    check_values(path, header, data)
    return TensorFile(tensors, metadata)


def check_values(path: Path, header: Mapping[str, Any], data: memoryview) -> None:
    """VqkitError for tensors of a kind that vqkit does not write."""
    floats = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise VqkitError(
                f"{path} is damaged: tensor {name} holds {entry['dtype']}, which vqkit never writes"
            )
        if entry["dtype"] == "F32":
            floats.append((*entry["data_offsets"], name))
    for start, stop in _spans(floats):
        # Hundreds of small tensors are looked at as one.
        is_finite = np.isfinite(np.frombuffer(data[start:stop], np.float32))
        if not is_finite.all():
            place = start + 4 * int(is_finite.argmin())
            name = next(name for first, last, name in floats if first <= place < last)
            raise VqkitError(f"{path} is damaged: tensor {name} holds values that are not finite")


def _spans(ranges: list[tuple[int, int, str]]) -> list[tuple[int, int]]:
    """Ranges of bytes with those that follow one another joined."""
    spans: list[tuple[int, int]] = []
    for start, stop, _ in sorted(ranges):
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((start, stop))
    return spans


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a file alone. VqkitError when they cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(8)
            content = start + file.read(min(int.from_bytes(start, "little"), MAX_HEADER))
            header, _ = _parts(content)
            return header["__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error


def _parts(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """A safetensors file as its header, with metadata of texts, and its data."""
    start = 8 + int.from_bytes(content[:8], "little")
    if start > 8 + MAX_HEADER:
        raise ValueError("its header is too long")
    header = json.loads(content[8:start])
    metadata = header["__metadata__"]
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise ValueError("its header is not what vqkit wrote")
    return header, memoryview(content)[start:]


def file_sum(header: Mapping[str, Any], data: memoryview) -> str:
    """CRC-32 over the header of a file, without its sum, and its data, hexadecimal.

    However the header is written down: a tool that copies tensors and metadata changes nothing.
    The sum is there to tell damage. A forger could make any anew, so that SHA-256 would be no
    safer, and it takes more than twice the time.
    """
    metadata = {key: text for key, text in header["__metadata__"].items() if key != SUM}
    text = json.dumps({**header, "__metadata__": metadata}, sort_keys=True)
    return f"{zlib.crc32(data, zlib.crc32(text.encode())):08x}"


def reason(error: BaseException) -> str:
    """An error in one line, without the path that the message names anyway."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
