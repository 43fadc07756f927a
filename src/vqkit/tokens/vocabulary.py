"""Which number a code has in the vocabulary of a language model, and those of what frames it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Begins and ends an item; stands where a stage has no code yet, or none any more.
SPECIAL = ("bos", "eos", "pad")
# Stands behind each row of positions, in vocabularies that have it.
ROW_END = "row_end"
# Largest vocabulary that megatron-core itself writes as uint16.
MOST_16 = 65500


@dataclass(frozen=True)
class Vocabulary:
    """Ids from `base` on: the codes of one codebook after the other, then those of SPECIAL, and of
    ROW_END.

    codebook_sizes: K of each of the Q places of a position. groups: the codebook of each place,
    numbered from 0; places that share one share its ids. base: ids below it are another
    vocabulary's, such as that of the words of a language model. has_row_ends: whether items of
    several grids show where their rows end.
    """

    codebook_sizes: tuple[int, ...]
    groups: tuple[int, ...]
    base: int = 0
    has_row_ends: bool = False

    @cached_property
    def group_sizes(self) -> list[int]:
        """K of every codebook."""
        sizes = dict(zip(self.groups, self.codebook_sizes, strict=True))
        return [sizes[group] for group in sorted(sizes)]

    @cached_property
    def group_offsets(self) -> list[int]:
        """The id of code 0 of every codebook."""
        ends = np.cumsum([self.base, *self.group_sizes])
        return ends[:-1].tolist()

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """The id of code 0 of every place, (Q,)."""
        return np.array([self.group_offsets[group] for group in self.groups], dtype=np.int64)

    @cached_property
    def special(self) -> dict[str, int]:
        """The id of each of SPECIAL, and of ROW_END."""
        first = self.base + sum(self.group_sizes)
        names = [*SPECIAL, ROW_END] if self.has_row_ends else SPECIAL
        return {name: first + number for number, name in enumerate(names)}

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return self.base + sum(self.group_sizes) + len(self.special)

    def describe(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` makes it again."""
        codebooks = []
        for group, (offset, size) in enumerate(
            zip(self.group_offsets, self.group_sizes, strict=True)
        ):
            places = [place for place, of in enumerate(self.groups) if of == group]
            codebooks.append({"offset": offset, "size": size, "places": places})
        return {
            "size": self.size,
            "base": self.base,
            "codebooks": codebooks,
            "special": self.special,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary that `describe` says. ValueError, KeyError or TypeError for what is
        none.
        """
        places: dict[int, tuple[int, int]] = {}
        for group, codebook in enumerate(found["codebooks"]):
            for place in codebook["places"]:
                places[int(place)] = (group, int(codebook["size"]))
        if sorted(places) != list(range(len(places))) or not places:
            raise ValueError("its codebooks do not say whose place is whose")
        ordered = [places[place] for place in range(len(places))]
        sizes = tuple(size for _, size in ordered)
        groups = tuple(group for group, _ in ordered)
        made = cls(sizes, groups, int(found["base"]), ROW_END in found["special"])
        if made.describe() != dict(found):
            raise ValueError("its offsets do not follow from its codebooks")
        return made

    def omnimodal_config(self, name: str) -> dict[str, Any]:
        """The form in which apertus-omni-tokenizer has several kinds of tokens behind a vocabulary
        of words (github.com/swiss-ai/apertus-omni-tokenizer): the id of a token is its offset plus
        its number.
        """
        structure = [self.special[name] for name in ("pad", ROW_END) if name in self.special]
        return {
            "base_vocab_size": self.base,
            "modalities": [
                {
                    "name": name,
                    "offset": self.base,
                    "vocab_size": self.size - self.base,
                    "start_token": self.special["bos"],
                    "end_token": self.special["eos"],
                    "structure_token_ids": structure,
                }
            ],
        }


def whole_number_type(sizes: Sequence[int]) -> np.dtype[Any]:
    """uint16 where all numbers below these fit, else uint32. ValueError beyond."""
    largest = max(sizes)
    if largest <= 1 << 16:
        return np.dtype(np.uint16)
    if largest <= 1 << 32:
        return np.dtype(np.uint32)
    raise ValueError(f"{largest} different codes are more than 32 bits hold")
