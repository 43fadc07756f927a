"""What a form in which tokens are written offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import VqkitError
from ..cache import Rows
from ..vocabulary import Vocabulary


class Place(NamedTuple):
    """Where the tokens of an item are. item: its number. start: tokens before it. length: its
    tokens.
    """

    item: int
    start: int
    length: int


class Part(NamedTuple):
    """A file that has some of the items, one after another."""

    name: str
    num_items: int


class TokenFormat(ABC):
    """Writes tokens into files of a folder, which is empty at first.

    text: the name of the text that goes with the tokens, None for none. parts: files that have some
    of the items each, in their order; none where one file has them all.
    """

    holds_text: ClassVar[bool] = False

    def __init__(self, folder: Path, dtype: np.dtype[Any], text: str | None) -> None:
        self.folder = folder
        self.dtype = dtype
        self.text = text
        self.parts: list[Part] = []

    @classmethod
    def dtype_for(cls, vocabulary: Vocabulary) -> np.dtype[Any]:
        """The type of numbers that all ids fit. VqkitError where the form has none."""
        return smallest(vocabulary, 1 << 16, np.dtype(np.uint32))

    @abstractmethod
    def add(self, rows: Rows, tokens: NDArray[np.int64]) -> None:
        """Samples, and the tokens (B, L) of each."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""

    @abstractmethod
    def discard(self) -> None:
        """Let go of files that are not finished, whatever they say to that."""

    @staticmethod
    @abstractmethod
    def read(
        folder: Path, place: Place, dtype: np.dtype[Any], parts: Sequence[Part]
    ) -> NDArray[Any]:
        """The tokens (L,) of an item, by nothing but what the form itself says of where they are,
        as far as it says it. VqkitError for damaged files.
        """


def smallest(vocabulary: Vocabulary, most_16: int, large: np.dtype[Any]) -> np.dtype[Any]:
    """uint16 for a vocabulary of at most so many ids, else a larger type. VqkitError beyond."""
    if vocabulary.size <= most_16:
        return np.dtype(np.uint16)
    if vocabulary.size - 1 <= np.iinfo(large).max:
        return large
    raise VqkitError(
        f"a vocabulary of {vocabulary.size} ids is more than {large.name} holds; train a model "
        "with smaller codebooks"
    )


def part_of(parts: Sequence[Part], item: int) -> tuple[str, int]:
    """The file that has an item, and how many items of it come before. VqkitError."""
    first = 0
    for part in parts:
        if item < first + part.num_items:
            return part.name, item - first
        first += part.num_items
    raise VqkitError(f"there is no item {item}: there are {first}")


def damaged(path: Path, why: str) -> VqkitError:
    """The error for a file that is not what was written."""
    return VqkitError(f"{path} is damaged: {why}; write it again with vqkit tokens materialize")
