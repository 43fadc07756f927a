"""Safetensors files whose every bit is checked: bounded before memory is taken, and held against a
sum of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from ..errors import VqkitError
from ..files import open_regular, read_bounded, write_whole

# Bytes of config.json that are read at most.
MAX_JSON = 4 << 20
# Bytes of the header of a safetensors file: names, shapes and metadata.
MAX_HEADER = 8 << 20
SUM = "sha256"
# What vqkit writes. Of others PyTorch cannot tell in all cases whether they are finite.
DTYPES = (torch.float32, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


@dataclass(frozen=True)
class TensorFile:
    """Tensors by name, and the metadata of the file."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_json(path: Path) -> dict[str, Any]:
    """A file of an artifact. VqkitError when it is missing, too large or not a JSON object."""
    try:
        tree = json.loads(read_bounded(path, MAX_JSON))
    except FileNotFoundError as error:
        raise VqkitError(f"{path.parent} is not a vqkit artifact: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error
    if not isinstance(tree, dict):
        raise VqkitError(f"{path} is not a vqkit file")
    return tree


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file with the sum of all that is in it. VqkitError when that fails."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    summed = {**metadata, SUM: file_sum(whole, metadata)}
    try:
        write_whole(path, lambda where: save_file(whole, where, metadata=summed))
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
        metadata = _metadata(content)
        tensors = load(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error
    if not keys <= metadata.keys() <= keys | optional | {SUM}:
        raise VqkitError(f"{path} is damaged: its header is not what vqkit wrote")
    file = TensorFile(tensors, metadata)
    check(path, file)
    return file


def check(path: Path, file: TensorFile) -> None:
    """VqkitError for tensors that are not those that the file's own sum is of, or are of no kind
    that vqkit writes.
    """
    if SUM in file.metadata and file.metadata[SUM] != file_sum(file.tensors, file.metadata):
        raise VqkitError(f"{path} is damaged: it does not fit its own sum")
    for name, value in file.tensors.items():
        if value.dtype not in DTYPES:
            raise VqkitError(
                f"{path} is damaged: tensor {name} holds {value.dtype}, which vqkit never writes"
            )
        # NumPy tells in a fifth of the time.
        if value.is_floating_point() and not np.isfinite(value.numpy()).all():
            raise VqkitError(f"{path} is damaged: tensor {name} holds values that are not finite")


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a file alone. VqkitError when they cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(8)
            return _metadata(start + file.read(min(int.from_bytes(start, "little"), MAX_HEADER)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise VqkitError(f"cannot read {path}: {reason(error)}") from error


def _metadata(content: bytes) -> dict[str, str]:
    length = int.from_bytes(content[:8], "little")
    if length > MAX_HEADER:
        raise ValueError("its header is too long")
    found = json.loads(content[8 : 8 + length])["__metadata__"]
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("its header is not what vqkit wrote")
    return found


def file_sum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 over metadata and tensors in order of name, hexadecimal."""
    digest = hashlib.sha256()
    for name, text in sorted(metadata.items()):
        if name != SUM:
            digest.update(f"{name}={len(text)}:{text}\n".encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}\n".encode())
        if value.numel():
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def reason(error: BaseException) -> str:
    """An error in one line, without the path that the message names anyway."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
