"""Codes as a sequence: where each one lies, and the orders and steps in which they can be taken.

A slot is one code of an item. Slots are numbered as in codes.flatten(1): codebook by codebook, each
in row-major order.
Shapes: Q codebooks, a grid of any number of dimensions, L = Q * positions of the grid slots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..errors import VqkitError

# Slots of an item: attention is quadratic in them.
MAX_LENGTH = 1 << 14
# Rows of the tables of all codebooks together.
MAX_CODES = 1 << 18
# Bases of the Halton sequence along each dimension.
_PRIMES = (2, 3, 5, 7)


class Slots(Protocol):
    """What a network knows of its slots: how many there are, and where each lies.

    groups: for each place (a codebook of a position) its codebook. group_sizes: K of every
    codebook. places, slot_groups: (L,) the place and the codebook of every slot. plane: rows and
    columns that there are. rows, columns: (L,) those of every slot.
    """

    @property
    def length(self) -> int: ...
    @property
    def groups(self) -> tuple[int, ...]: ...
    @property
    def group_sizes(self) -> list[int]: ...
    @property
    def places(self) -> Tensor: ...
    @property
    def slot_groups(self) -> Tensor: ...
    @property
    def plane(self) -> tuple[int, int]: ...
    @property
    def rows(self) -> Tensor: ...
    @property
    def columns(self) -> Tensor: ...


@dataclass(frozen=True)
class Layout:
    """Places of all codes of an item.

    grid: sides of the grid of codes. codebook_sizes: K of each of the Q places. groups: for each
    place its codebook; places with one codebook (hierarchical grids, shared stages) share
    embeddings and predictions.
    Errors: VqkitError when a transformer cannot hold them.
    """

    grid: tuple[int, ...]
    codebook_sizes: tuple[int, ...]
    groups: tuple[int, ...]
    order: Literal["coarse_first", "delayed"] = "coarse_first"

    def __post_init__(self) -> None:
        check_size(self)

    @property
    def num_positions(self) -> int:
        return math.prod(self.grid)

    @property
    def length(self) -> int:
        """L"""
        return len(self.codebook_sizes) * self.num_positions

    @cached_property
    def group_sizes(self) -> list[int]:
        """K of every codebook."""
        sizes = dict(zip(self.groups, self.codebook_sizes, strict=True))
        return [sizes[group] for group in sorted(sizes)]

    @cached_property
    def places(self) -> Tensor:  # (L,) int64, in [0, Q)
        return torch.arange(len(self.codebook_sizes)).repeat_interleave(self.num_positions)

    @property
    def plane(self) -> tuple[int, int]:
        """The grid as rows and columns, which positions are embedded by: all sides but the last
        make the rows.
        """
        return math.prod(self.grid[:-1]), self.grid[-1]

    @cached_property
    def rows(self) -> Tensor:  # (L,) int64
        _, num_columns = self.plane
        rows = torch.arange(self.num_positions).div(num_columns, rounding_mode="floor")
        return rows.repeat(len(self.groups))

    @cached_property
    def columns(self) -> Tensor:  # (L,) int64
        _, num_columns = self.plane
        columns = torch.arange(self.num_positions).remainder(num_columns)
        return columns.repeat(len(self.groups))

    def inside(self, window: Sequence[int]) -> Tensor:
        """Slots (n,) of the corner of the grid of that size, in the order of codes.flatten(1)."""
        corner = torch.zeros(self.grid, dtype=torch.bool)
        corner[tuple(slice(side) for side in window)] = True
        return corner.flatten().repeat(len(self.groups)).nonzero()[:, 0]

    @cached_property
    def slot_groups(self) -> Tensor:  # (L,) int64: codebook of every slot
        return torch.tensor(self.groups)[self.places]

    @cached_property
    def canonical(self) -> tuple[Tensor, list[int]]:
        """The order that likelihoods are counted in, slots (L,), and how many of them are drawn at
        a time.

        coarse_first draws one by one. delayed (Copet et al. 2023, arXiv 2306.05284, section 2.1)
        takes codebook q of position p in step p + q: the likelihood is exact, drawing a step at
        once takes its codes as independent.
        """
        if self.order == "coarse_first":
            return torch.arange(self.length), [1] * self.length
        position = torch.arange(self.num_positions).repeat(len(self.groups))
        step = position + self.places
        order = torch.argsort(step * len(self.groups) + self.places)
        return order, torch.bincount(step).tolist()

    @cached_property
    def scattered(self) -> Tensor:  # (L,) slots
        """Coarse codebooks first, the positions of each in Halton order: far apart one after
        another.
        """
        positions = halton_order(self.grid)
        codebooks = [positions + place * self.num_positions for place in range(len(self.groups))]
        return torch.cat(codebooks)

    def steps(self, slots: Tensor, num_steps: int) -> list[int]:
        """Sizes of `num_steps` steps that take `slots` (n,), which are sorted by codebook, none
        across two codebooks.

        Within a codebook steps grow as 1 - cos (MaskGIT's schedule, Chang et al. 2022, arXiv
        2202.04200): few codes at first, while little is known. VqkitError when there are more steps
        than codes.
        """
        counts = [int(count) for count in torch.bincount(self.places[slots]) if count]
        if num_steps > len(slots):
            raise VqkitError(
                f"{num_steps} steps are more than the {len(slots)} codes to draw; lower --steps"
            )
        if num_steps < len(counts):
            raise VqkitError(
                f"{num_steps} steps are fewer than the {len(counts)} codebooks; raise --steps"
            )
        sizes = []
        for count, steps in zip(counts, share_out(num_steps, counts), strict=True):
            sizes += cosine(count, steps)
        return sizes


def check_size(slots: Slots) -> None:
    """VqkitError for more slots or codes than a transformer can hold."""
    if slots.length > MAX_LENGTH:
        raise VqkitError(
            f"{slots.length} codes an item are more than a prior takes ({MAX_LENGTH}); train a "
            "model of fewer codes for it: of photographs with --recipe images, else larger patches"
        )
    if sum(slots.group_sizes) > MAX_CODES:
        raise VqkitError(
            f"codebooks of {sum(slots.group_sizes)} codes are more than a prior takes "
            f"({MAX_CODES}); split them with quantizer.kind=residual or product"
        )


def share_out(total: int, counts: Sequence[int]) -> list[int]:
    """`total` as whole numbers in proportion to `counts`, at least one and at most the count for
    each.
    """
    shares = [1] * len(counts)
    for _ in range(total - len(counts)):
        # The one whose parts are largest; of equal ones the first.
        open_ones = [index for index, count in enumerate(counts) if shares[index] < count]
        largest = max(open_ones, key=lambda index: counts[index] / shares[index])
        shares[largest] += 1
    return shares


def cosine(count: int, steps: int) -> list[int]:
    """`count` codes in `steps` steps of at least one, the sums following 1 - cos."""
    sizes = []
    done = 0
    for step in range(1, steps + 1):
        end = round(count * (1 - math.cos(math.pi / 2 * step / steps)))
        # One code at least in this step, and in each of those to come.
        end = min(max(end, done + 1), count - (steps - step))
        sizes.append(end - done)
        done = end
    return sizes


def halton_order(grid: Sequence[int]) -> Tensor:  # (positions,)
    """Positions of a grid, numbered in row-major order, in the order in which a Halton sequence
    first falls on them.

    Bases 2, 3, ... along the dimensions, as in Besnier et al. 2025, arXiv 2503.17076.
    """
    found: dict[int, None] = {}
    index = 0
    while len(found) < math.prod(grid):
        index += 1
        position = 0
        for side, base in zip(grid, _PRIMES, strict=False):
            position = position * side + int(radical_inverse(index, base) * side)
        found[position] = None
    return torch.tensor(list(found))


def radical_inverse(index: int, base: int) -> float:
    """The digits of `index` in `base`, mirrored at the point: in [0, 1)."""
    value = 0.0
    scale = 1.0 / base
    while index:
        index, digit = divmod(index, base)
        value += digit * scale
        scale /= base
    return value
