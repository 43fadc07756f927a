"""What the two halves of held-out pairs say of one another, and examples of both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..artifact.pair import Pair, Pairs
from ..prior.pairs import saved_bits

BATCH_SIZE = 128
# Pairs that a report shows of each direction, and what is made for each.
NUM_SHOWN = 8
NUM_MADE = 4
# Of pairs with many codes, which are drawn one after another, as few; and codes of them all.
FEW_SHOWN = 2
CODES_DRAWN = 1 << 16
# As `PairPrior.costs` has them.
COSTS = ("first_bits", "second_bits", "first_bits_told", "second_bits_told")


class Example(NamedTuple):
    """Values (C, *extent): what was given, what really belongs to it, and what was made for it."""

    given: Tensor
    real: Tensor
    made: list[Tensor]


def evaluate_pair(
    pair: Pair, pairs: Pairs, split: str, progress: Callable[[float], None] | None = None
) -> dict[str, Any]:
    """Figures of a split that is not empty.

    first_bits, second_bits: what an item of either half costs alone. first_bits_told,
    second_bits_told: once the other half is known. saved_bits: what halves save one another, the
    mean over both orders. saved_shuffled: the same for halves that do not belong together.
    belonging: share of pairs whose halves save one another more than those of the next pair.
    """
    ids = pairs.data.splits[split]
    codes = _codes(pairs, ids)
    partners = pairs.partners[torch.from_numpy(ids)]
    costs = pair.prior.costs(pairs.joined(codes, partners))
    if progress:
        progress(0.5)
    saved = saved_bits(costs)
    shuffled = saved_bits(pair.prior.costs(pairs.joined(codes, partners.roll(1, 0))))
    figures = dict(zip(COSTS, costs.mean(0).tolist(), strict=True))
    return {
        "split": split,
        "items": len(ids),
        **figures,
        "saved_bits": float(saved.mean()),
        "saved_shuffled": float(shuffled.mean()),
        "belonging": float((saved > shuffled).double().mean()),
    }


def _codes(pairs: Pairs, ids: np.ndarray) -> Tensor:  # (n, L of the lead)
    found = []
    for start in range(0, len(ids), BATCH_SIZE):
        batch = pairs.data.read(ids[start : start + BATCH_SIZE])
        found.append(pairs.model.tokenizer.encode(batch.values).flatten(1))
    return torch.cat(found)


def examples(
    pair: Pair, pairs: Pairs, split: str, progress: Callable[[float], None] | None = None
) -> tuple[list[Example], list[Example]]:
    """What is made of the first and of the second half, for some held-out items of the other."""
    num = max(FEW_SHOWN, CODES_DRAWN // (NUM_MADE * pair.prior.layout.length))
    ids = pairs.data.splits[split][: min(NUM_SHOWN, num)]
    codes = _codes(pairs, ids)
    partners = pairs.partners[torch.from_numpy(ids)].long()
    both = (codes, partners) if pairs.lead == 0 else (partners, codes)
    found: list[list[Example]] = []
    for made in (0, 1):
        half, other = pair.halves[made], pair.halves[1 - made]
        drawn = pair.prior.draw(made, both[1 - made].repeat_interleave(NUM_MADE, 0))
        values = half.decode(drawn)
        given, real = other.decode(both[1 - made]), half.decode(both[made])
        rows = []
        for index in range(len(ids)):
            made_here = values[NUM_MADE * index : NUM_MADE * (index + 1)]
            rows.append(Example(given[index], real[index], made_here))
        found.append(rows)
        if progress:
            progress((made + 1) / 2)
    return found[0], found[1]
