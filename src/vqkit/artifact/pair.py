"""What users hold of a pair: two halves, and one prior over the codes of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.dataset import Dataset
from ..errors import VqkitError
from ..prior.network import PriorNetwork
from ..prior.pairs import PairLayout, PairPrior, saved_bits
from ..prior.prior import build_network
from ..prior.sampling import Sampling
from ..settings import PairConfig
from .halves import CodedHalf, Half
from .model import Model


class PairScore(NamedTuple):
    """Bits of two items.

    first, second: of each alone. first_given_second, second_given_first: of each once the other is
    known. fit: what they save one another, the mean over both orders: above 0 for those that fit.
    It does not prefer items that are short or common, as their bits do.
    """

    first: float
    second: float
    first_given_second: float
    second_given_first: float
    fit: float


class Pair:
    """Two halves and their prior. Text comes as strings, other items in the forms of `Model`.

    licence: under which others may use the prior; None = not said. Halves have their own.
    """

    def __init__(
        self,
        halves: tuple[Half, Half],
        prior: PairPrior,
        problems: Sequence[str] = (),
        licence: str | None = None,
    ) -> None:
        self.halves = halves
        self.licence = licence
        self.problems = tuple(problems)
        self.prior = prior
        for half in halves:
            if isinstance(half, CodedHalf):
                self.prior = prior.to(half.model.device)

    def generate(
        self,
        from_: Any,
        num: int = 1,
        *,
        seed: int = 0,
        cfg: float = 1.0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> Any:
        """`num` items of one half, drawn for one of the other: text as a list of strings, other
        items in an array, of images uint8 (N, H, W, C).

        from_: text, a path, or whatever form the items of a half have; a string is a path where a
        file of that name is of the other half. cfg: guidance, 1 = none. ValueError or VqkitError
        for what is no item of either half.
        """
        half, values = self.drawn(from_, num, Sampling(temperature, top_k, top_p, cfg), seed)
        return self.halves[half].array(values)

    def drawn(
        self,
        from_: Any,
        num: int,
        sampling: Sampling = Sampling(),  # noqa: B008
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
    ) -> tuple[int, list[Tensor]]:
        """As `generate`: which half is made, and the values (C, *extent) of each item."""
        given = self.half_of(from_)
        codes = self._encoded(given, from_).expand(num, -1)
        made = 1 - given
        found = self.prior.draw(made, codes, sampling, seed, progress)
        return made, self.halves[made].decode(found)

    def score(self, a: Any, b: Any) -> PairScore:
        """Bits of an item of the first half and one of the second.

        ValueError or VqkitError for what is no item.
        """
        return self.scores([a], [b])[0]

    def scores(self, first: Sequence[Any], second: Sequence[Any]) -> list[PairScore]:
        """As `score`, of pairs: as many items of one half as of the other, or one of either that
        goes with all of the other.
        """
        codes = []
        for half, items in enumerate((first, second)):
            codes.append(torch.cat([self._encoded(half, item) for item in items]))
        count = max(map(len, codes))
        both = torch.cat([part.expand(count, -1) for part in codes], 1)
        costs = self.prior.costs(both)
        return [
            PairScore(*row) for row in torch.cat([costs, saved_bits(costs)[:, None]], 1).tolist()
        ]

    def half_of(self, given: Any) -> int:
        """Which half an item is of: 0 or 1. VqkitError for what is of neither."""
        is_path = isinstance(given, Path) or _names_file(given)
        if is_path:
            for index, half in enumerate(self.halves):
                if half.signal.can_be(Path(given)):
                    return index
        texts = [index for index, half in enumerate(self.halves) if half.is_text]
        others = [index for index, half in enumerate(self.halves) if not half.is_text]
        if isinstance(given, str) and texts:
            return texts[0]
        if not isinstance(given, str | Path) and len(others) == 1:
            return others[0]
        if not is_path and isinstance(given, str | Path):
            raise VqkitError(f"there is no file '{given}', and this pair has no text")
        kinds = " and ".join(half.signal.item for half in self.halves)
        raise VqkitError(f"this pair is of {kinds}, and '{given}' is neither")

    def _encoded(self, half: int, given: Any) -> Tensor:  # (1, L)
        side = self.halves[half]
        if side.is_text and _names_file(given):
            given = Path(given)
        coded = side.encode(given)
        if len(coded.codes) != 1:
            raise ValueError(f"this takes one {side.signal.item}, got {len(coded.codes)}")
        return coded.codes

    def __repr__(self) -> str:
        kinds = " and ".join(f"{half.signal.item} ({half.name[:16]})" for half in self.halves)
        return f"vqkit.Pair of {kinds}"


@dataclass(frozen=True)
class Pairs:
    """Items of a set beside codes of what belongs to each.

    halves: in the order that users named them. lead: which of them `data` has the items of.
    partners: (N, L) int32, codes of the other half, for all items of `data`; rows of items without
    a partner, which are in no split, hold padding.
    """

    data: Dataset
    halves: tuple[Half, Half]
    lead: int
    partners: Tensor

    @property
    def model(self) -> Model:
        """That of the leading half."""
        half = self.halves[self.lead]
        assert isinstance(half, CodedHalf)
        return half.model

    def joined(self, codes: Tensor, partners: Tensor) -> Tensor:
        """Codes (B, L of the lead) and those of the other half as sequences (B, L1 + L2)."""
        parts = (codes, partners.long())
        return torch.cat([parts[self.lead], parts[1 - self.lead]], 1)


def _names_file(given: Any) -> bool:
    """Whether a string is the path of a file; text is too long for one as a rule."""
    try:
        return isinstance(given, str) and Path(given).is_file()
    except (OSError, ValueError):
        return False


def build_pair_network(config: PairConfig, halves: tuple[Half, Half]) -> PriorNetwork:
    """The untrained network for the codes of two halves. VqkitError for codes no prior can learn,
    and for settings that do not go together.
    """
    first, second = (half.layout(config.network.order) for half in halves)
    return build_network(config.network, PairLayout(first, second))
