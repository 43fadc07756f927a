"""Tar archives in the layout of WebDataset: a sample of several members with one name."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...files import open_regular
from ..cache import Rows
from .base import Part, Place, TokenFormat, damaged, part_of

# Items of an archive.
ITEMS_A_PART = 10_000
# Bytes of the head of an array at most.
_MAX_HEAD = 1 << 10


class WebDataset(TokenFormat):
    """data-000000.tar and so on, with 000000017.tokens.npy, .json (id, label, extent, grid) and
    .txt, where there is a text.

    Members are called by the number of their item: ids may be anything.
    """

    holds_text = True

    def __init__(self, folder: Path, dtype: np.dtype[Any], text: str | None) -> None:
        super().__init__(folder, dtype, text)
        self._archive: tarfile.TarFile | None = None
        self._in_part = 0
        self._item = 0

    def add(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        grid = list(rows.codes.shape[2:])
        for row, of_item in enumerate(tokens.astype(self.dtype)):
            if self._archive is None:
                self._archive = tarfile.open(self._path(), "w", format=tarfile.USTAR_FORMAT)
            about = {
                "id": rows.ids[row],
                "label": rows.labels[row],
                "extent": rows.extents[row].tolist(),
                "grid": grid,
            }
            array = io.BytesIO()
            np.save(array, of_item, allow_pickle=False)
            self._member("tokens.npy", array.getvalue())
            self._member("json", json.dumps(about, ensure_ascii=False).encode())
            text = rows.texts[row].get(self.text) if self.text is not None else None
            if text is not None:
                self._member("txt", text.encode())
            self._item += 1
            self._in_part += 1
            if self._in_part == ITEMS_A_PART:
                self.close()

    def close(self) -> None:
        if self._archive is None:
            return
        self._archive.close()
        self.parts.append(Part(self._path().name, self._in_part))
        self._archive = None
        self._in_part = 0

    def discard(self) -> None:
        if self._archive is not None:
            with contextlib.suppress(OSError):
                self._archive.close()

    def _path(self) -> Path:
        return self.folder / f"data-{len(self.parts):06d}.tar"

    def _member(self, suffix: str, content: bytes) -> None:
        assert self._archive is not None
        member = tarfile.TarInfo(f"{self._item:09d}.{suffix}")
        member.size = len(content)
        self._archive.addfile(member, io.BytesIO(content))
        # Otherwise an archive remembers all of its members.
        self._archive.members = []  # type: ignore[attr-defined]

    @staticmethod
    def read(
        folder: Path, place: Place, dtype: np.dtype[Any], parts: Sequence[Part]
    ) -> NDArray[Any]:
        name, _ = part_of(parts, place.item)
        path = folder / name
        wanted = f"{place.item:09d}.tokens.npy"
        most = place.length * dtype.itemsize + _MAX_HEAD
        try:
            with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]
                    if member.name == wanted and member.isreg() and member.size <= most:
                        found = archive.extractfile(member)
                        content = b"" if found is None else found.read(member.size)
                        return _array(content, place.length, dtype)
        except (tarfile.TarError, ValueError) as error:
            raise damaged(path, str(error)) from error
        raise damaged(path, f"there is no {wanted} in it")


def _array(content: bytes, length: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The numbers of a .npy file. ValueError for another type or number of them than expected."""
    size = length * dtype.itemsize
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    )
    if len(content) < size or content[:-size] != head.getvalue():
        raise ValueError(f"an array is not one of {length} numbers of {dtype}")
    return np.frombuffer(content[-size:], dtype)
