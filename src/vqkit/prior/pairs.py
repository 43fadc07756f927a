"""Codes of two items that belong together as one sequence, in either order.

Shapes: B pairs, L1 and L2 slots of the first and the second half, L = L1 + L2.

The network of `network` answers in every order, so that a pair takes two of them and no second
network: the first half and then the second, and the other way round. What comes first is told
nothing, so that either half has a prior of its own, which guidance compares with. Slots of the two
halves share no place, row, column or code: a position tells its half, and a question about one half
has logits over that half's codes alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .layout import Layout, check_size
from .network import Condition, PriorNetwork
from .prior import BATCH_CODES, CHUNK, exact_copy, padded, uniform_numbers
from .sampling import Sampling, Start, draw

if TYPE_CHECKING:
    from ..settings import PairConfig

# Bytes of text, of which 0 is its end.
NUM_BYTES = 256


@dataclass(frozen=True)
class PairLayout:
    """Slots of the first half, then those of the second; see `Slots`.

    Errors: VqkitError when a transformer cannot hold them.
    """

    first: Layout
    second: Layout

    def __post_init__(self) -> None:
        check_size(self)

    @property
    def halves(self) -> tuple[Layout, Layout]:
        return self.first, self.second

    @property
    def length(self) -> int:
        return self.first.length + self.second.length

    @property
    def groups(self) -> tuple[int, ...]:
        behind = len(self.first.group_sizes)
        return (*self.first.groups, *(behind + group for group in self.second.groups))

    @property
    def group_sizes(self) -> list[int]:
        return [*self.first.group_sizes, *self.second.group_sizes]

    @property
    def plane(self) -> tuple[int, int]:
        (rows, columns), (more_rows, more_columns) = self.first.plane, self.second.plane
        return rows + more_rows, columns + more_columns

    @cached_property
    def places(self) -> Tensor:
        return _joined(self.first.places, self.second.places, len(self.first.groups))

    @cached_property
    def slot_groups(self) -> Tensor:
        behind = len(self.first.group_sizes)
        return _joined(self.first.slot_groups, self.second.slot_groups, behind)

    @cached_property
    def rows(self) -> Tensor:
        return _joined(self.first.rows, self.second.rows, self.first.plane[0])

    @cached_property
    def columns(self) -> Tensor:
        return _joined(self.first.columns, self.second.columns, self.first.plane[1])

    def orders(self, codes: Tensor, first: int) -> Tensor:
        """Slots (B, L) in the order that begins with the half `first` (0 or 1), each half in its
        own canonical order; those that are padding in codes (B, L) come last, where none sees them.
        """
        each = (self.first.canonical[0], self.first.length + self.second.canonical[0])
        order = torch.cat([each[first], each[1 - first]]).to(codes.device)
        is_padding = codes[:, order] < 0
        return order[is_padding.long().argsort(dim=1, stable=True)]

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What is of either half, (B, L1) and (B, L2), of rows (B, L)."""
        return rows[:, : self.first.length], rows[:, self.first.length :]


def _joined(first: Tensor, second: Tensor, behind: int) -> Tensor:
    return torch.cat([first, behind + second])


def bytes_layout(length: int) -> Layout:
    """That of text of at most `length` bytes."""
    return Layout((length,), (NUM_BYTES,), (0,))


def ended(codes: Tensor) -> Tensor:
    """Codes (B, L) of text with all behind its end, the first 0, made padding: so that every text
    has one sequence, and all texts together the probability one.
    """
    ends = (codes == 0).long().cumsum(1)
    behind = (ends > 0) & ~((ends == 1) & (codes == 0))
    return codes.masked_fill(behind, -1)


def nats_of(network: Callable[..., Tensor], codes: Tensor, order: Tensor, parts: int = 1) -> Tensor:
    """Nats (B, L) of every slot of codes (B, L), each given those before it in `order` (B, L).

    Padding costs nothing. The steps behind the longest pair, which are padding, are not run.
    """
    order = order[:, : int((codes >= 0).sum(1).max())]
    nats = network(codes, order, None, None, parts)
    return torch.zeros(codes.shape, dtype=nats.dtype, device=nats.device).scatter(1, order, nats)


def saved_bits(costs: Tensor) -> Tensor:
    """Bits (B,) that two halves save one another, the mean over both orders, of `PairPrior.costs`.

    As p(a, b) is one, both orders save the same where the prior is right: it is the pointwise
    mutual information of the two.
    """
    return (costs[:, :2] - costs[:, 2:]).mean(1)


@dataclass(frozen=True)
class PairPrior:
    """A trained prior over the codes of two halves. metrics: figures of its training."""

    config: PairConfig
    network: PriorNetwork
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def layout(self) -> PairLayout:
        assert isinstance(self.network.layout, PairLayout)
        return self.network.layout

    def to(self, device: torch.device) -> PairPrior:
        """This prior on a device; a copy unless it is there already."""
        if self.network.head.weight.device == device:
            return self
        return replace(self, network=copy.deepcopy(self.network).to(device))

    @torch.no_grad()
    def bits(self, codes: Tensor, first: int) -> Tensor:
        """-log2 p of each half of codes (B, L), in the order that begins with the half `first`:
        (B, 2) float64. The half that comes first costs what it costs alone, the other what it costs
        once that is known. Padding, -1, costs nothing.
        """
        layout = self.layout
        device = self.network.head.weight.device
        size = max(1, BATCH_CODES // layout.length)
        found = []
        for part in codes.to(device).split(size):
            nats = nats_of(self.network, part, layout.orders(part, first)).double().cpu()
            halves = layout.split(nats / math.log(2))
            found.append(torch.stack([half.sum(1) for half in halves], 1))
        return torch.cat(found)

    def costs(self, codes: Tensor) -> Tensor:
        """-log2 p of codes (B, L): the first half alone, the second alone, the first once the
        second is known, and the second once the first is: (B, 4) float64.
        """
        begun = [self.bits(codes, first) for first in (0, 1)]
        return torch.stack([begun[0][:, 0], begun[1][:, 1], begun[1][:, 0], begun[0][:, 1]], 1)

    @cached_property
    def _exact(self) -> PriorNetwork:
        return exact_copy(self.network)

    def draw(
        self,
        half: int,
        given: Tensor,
        sampling: Sampling = Sampling(),  # noqa: B008
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Codes (B, L of the half) drawn for the other half's codes `given` (B, L of that).

        Row i is a pure function of seed, i, its given codes and the sampling.
        """
        length = self.layout.halves[half].length
        drawn = torch.zeros(len(given), length, dtype=torch.long)
        done = 0
        for rows in _alike((given >= 0).sum(1)):
            uniforms = torch.stack(
                [uniform_numbers(seed, index, length) for index in rows.tolist()]
            )
            chunk = self._draw_chunk(half, padded(given[rows]), padded(uniforms), sampling)
            drawn[rows] = chunk[: len(rows)]
            done += len(rows)
            if progress:
                progress(done / len(given))
        return drawn

    def _draw_chunk(self, half: int, given: Tensor, uniforms: Tensor, sampling: Sampling) -> Tensor:
        """Rows whose given halves are equally long."""
        layout = self.layout
        network = self._exact
        device = network.head.weight.device
        unknown = torch.zeros(uniforms.shape, dtype=torch.long)
        parts = (given, unknown) if half else (unknown, given)
        codes = torch.cat(parts, 1)
        numbers = torch.zeros(codes.shape, dtype=uniforms.dtype)
        layout.split(numbers)[half].copy_(uniforms)
        num_given = int((given[0] >= 0).sum())
        start = Start(
            codes.to(device),
            layout.orders(codes, 1 - half)[:, : num_given + uniforms.shape[1]].to(device),
            numbers.to(device),
            Condition(),
            num_given=num_given,
        )
        sizes = layout.halves[half].canonical[1]
        return layout.split(draw(network, start, sizes, sampling).cpu())[half]


def _alike(lengths: Tensor) -> Iterator[Tensor]:
    """Indices of items (B,) of equal length, at most CHUNK at a time."""
    for length in lengths.unique():
        yield from (lengths == length).nonzero()[:, 0].split(CHUNK)
