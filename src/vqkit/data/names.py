"""Names of many items, and of those that are left out, flat in memory.

Sets travel to worker processes. Lists of Python strings would be copied page by page as workers
touch their reference counts, and memory would grow through the first epoch.
"""

from __future__ import annotations

import shlex
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from ..errors import VqkitError

# Share of the files of a set that may be bad.
MAX_BAD = 0.05


@dataclass(frozen=True)
class BadFile:
    """A file that is left out, and why."""

    name: str
    reason: str


def check_bad(name: str, bad: Sequence[BadFile], num_good: int, max_bad: float) -> None:
    """VqkitError where more than a share of the files of a set cannot be used."""
    total = len(bad) + num_good
    if len(bad) <= max_bad * total:
        return
    first = "; ".join(f"{item.name}: {item.reason}" for item in bad[:3])
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    raise VqkitError(
        f"{len(bad)} of {total} files of {name} cannot be used, more than {100 * max_bad:g} % "
        f"({first}{more}); 'vqkit data {shlex.quote(name)}' lists all of them"
    )


class Names(Sequence[str]):
    """Strings that are made as they are asked for."""

    @abstractmethod
    def at(self, position: int) -> str:
        """The string at a position from 0 on."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        found = range(len(self))[index]
        return self.at(found) if isinstance(found, int) else [self.at(one) for one in found]


class PackedStrings(Names):
    """A list of strings in two arrays."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [text.encode("utf-8", "surrogatepass") for text in strings]
        self._ends = np.cumsum([0] + [len(text) for text in encoded], dtype=np.int64)
        self._text = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def at(self, position: int) -> str:
        text = bytes(self._text[self._ends[position] : self._ends[position + 1]])
        return text.decode("utf-8", "surrogatepass")


class NumberedNames(Names):
    """'name:0', 'name:1', ...: the items of an array."""

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count

    def __len__(self) -> int:
        return self._count

    def at(self, position: int) -> str:
        return f"{self._name}:{position}"
