"""Forms in which the tokens of all items lie one after another in one file of numbers."""

from __future__ import annotations

import contextlib
import os
import struct
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import VqkitError
from ...files import open_regular
from ..cache import Rows
from ..vocabulary import MOST_16, Vocabulary
from .base import Part, Place, TokenFormat, damaged, smallest

# Lengths of items that an index is made of at once.
_TOGETHER = 1 << 16
# What the index of Megatron begins with, and its numbers of the types of tokens.
_MEGATRON = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1)
_MEGATRON_TYPES = {4: np.dtype(np.int32), 8: np.dtype(np.uint16)}


class _Flat(TokenFormat):
    """Tokens in one file; lengths of items are kept in another until the end."""

    file_name: ClassVar[str]

    def __init__(self, folder: Path, dtype: np.dtype[Any], text: str | None) -> None:
        super().__init__(folder, dtype, text)
        self._file = open(folder / self.file_name, "wb")
        self._lengths = open(folder / "lengths", "wb")
        self.num_items = 0

    def add(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        self._file.write(tokens.astype(self.dtype.newbyteorder("<")).tobytes())
        self._lengths.write(np.full(len(tokens), tokens.shape[1], "<i4").tobytes())
        self.num_items += len(tokens)

    def close(self) -> None:
        self._file.close()
        self._lengths.close()
        self._close_index()
        (self.folder / "lengths").unlink()

    def discard(self) -> None:
        for file in (self._file, self._lengths):
            with contextlib.suppress(OSError):
                file.close()

    @abstractmethod
    def _close_index(self) -> None:
        """Write what tells where items begin."""

    def _pieces_of_lengths(self) -> Iterator[NDArray[np.int64]]:
        with open(self.folder / "lengths", "rb") as file:
            while content := file.read(4 * _TOGETHER):
                yield np.frombuffer(content, "<i4").astype(np.int64)

    def _ends(self) -> Iterator[NDArray[np.int64]]:
        """Tokens up to the end of each item, some at a time."""
        total = 0
        for lengths in self._pieces_of_lengths():
            ends = total + np.cumsum(lengths)
            total = int(ends[-1])
            yield ends


class Bin16(_Flat):
    """train.bin of nanoGPT (github.com/karpathy/nanoGPT): uint16, and nothing else."""

    file_name = "train.bin"

    @classmethod
    def dtype_for(cls, vocabulary: Vocabulary) -> np.dtype[Any]:
        if vocabulary.size > 1 << 16:
            raise VqkitError(
                f"bin16 holds ids below 65536, and this vocabulary has {vocabulary.size}: use --to "
                "megatron, datatrove or parquet"
            )
        return np.dtype(np.uint16)

    def _close_index(self) -> None:
        pass

    @staticmethod
    def read(
        folder: Path, place: Place, dtype: np.dtype[Any], parts: Sequence[Part]
    ) -> NDArray[Any]:
        return _tokens(folder / Bin16.file_name, place.start, place.length, dtype)


class Megatron(_Flat):
    """tokens.bin and tokens.idx, as IndexedDataset of megatron-core 0.16 reads them: a sequence an
    item, each a document.
    """

    file_name = "tokens.bin"

    @classmethod
    def dtype_for(cls, vocabulary: Vocabulary) -> np.dtype[Any]:
        return smallest(vocabulary, MOST_16, np.dtype(np.int32))

    def _close_index(self) -> None:
        codes = {dtype: code for code, dtype in _MEGATRON_TYPES.items()}
        with open(self.folder / "tokens.idx", "wb") as file:
            file.write(_MEGATRON + struct.pack("<B", codes[self.dtype]))
            file.write(struct.pack("<QQ", self.num_items, self.num_items + 1))
            for lengths in self._pieces_of_lengths():
                file.write(lengths.astype("<i4").tobytes())
            for ends, lengths in zip(self._ends(), self._pieces_of_lengths(), strict=True):
                starts = (ends - lengths) * self.dtype.itemsize
                file.write(starts.astype("<i8").tobytes())
            for first in range(0, self.num_items + 1, _TOGETHER):
                last = min(first + _TOGETHER, self.num_items + 1)
                file.write(np.arange(first, last, dtype="<i8").tobytes())

    @staticmethod
    def read(
        folder: Path, place: Place, dtype: np.dtype[Any], parts: Sequence[Part]
    ) -> NDArray[Any]:
        path = folder / "tokens.idx"
        with open_regular(path) as file:
            if file.read(len(_MEGATRON)) != _MEGATRON:
                raise damaged(path, "it does not begin as an index of Megatron")
            code, count, _ = struct.unpack("<BQQ", _exactly(file, 17, path))
            if _MEGATRON_TYPES.get(code) != dtype or place.item >= count:
                raise damaged(path, "its header says something else than the manifest")
            head = file.tell()
            file.seek(head + 4 * place.item)
            (length,) = struct.unpack("<i", _exactly(file, 4, path))
            file.seek(head + 4 * count + 8 * place.item)
            (start,) = struct.unpack("<q", _exactly(file, 8, path))
        if length != place.length:
            raise damaged(path, f"it says that item {place.item} has {length} tokens")
        return _tokens(folder / Megatron.file_name, start // dtype.itemsize, length, dtype)


class Datatrove(_Flat):
    """A file .ds with .index and .metadata, as datatrove 0.10 writes them and nanotron reads
    them.
    """

    file_name = "00000_tokens.ds"

    def _close_index(self) -> None:
        total = 0
        with open(self.folder / f"{self.file_name}.index", "wb") as file:
            for ends in self._ends():
                file.write(ends.astype("<u8").tobytes())
                total = int(ends[-1])
        # The name of a tokenizer and bytes of a token; tokens; the same for people.
        text = f"vqkit|{self.dtype.itemsize}\n{total}\n{total} tokens"
        (self.folder / f"{self.file_name}.metadata").write_text(text)

    @staticmethod
    def read(
        folder: Path, place: Place, dtype: np.dtype[Any], parts: Sequence[Part]
    ) -> NDArray[Any]:
        path = folder / f"{Datatrove.file_name}.index"
        with open_regular(path) as file:
            start = 0
            if place.item:
                file.seek(8 * (place.item - 1))
                (start,) = struct.unpack("<Q", _exactly(file, 8, path))
            (end,) = struct.unpack("<Q", _exactly(file, 8, path))
        if end - start != place.length:
            raise damaged(path, f"it says that item {place.item} has {end - start} tokens")
        return _tokens(folder / Datatrove.file_name, start, place.length, dtype)


def _tokens(path: Path, start: int, length: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    if start < 0:
        raise damaged(path, "an item begins before its first byte")
    with open_regular(path) as file:
        if (start + length) * dtype.itemsize > os.fstat(file.fileno()).st_size:
            raise damaged(path, "it ends too early")
        file.seek(start * dtype.itemsize)
        content = _exactly(file, length * dtype.itemsize, path)
    return np.frombuffer(content, dtype.newbyteorder("<"))


def _exactly(file: BinaryIO, count: int, path: Path) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise damaged(path, "it ends too early")
    return content
