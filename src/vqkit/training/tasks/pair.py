"""Training a prior over the codes of pairs: each half alone, and each given the other."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...artifact.pair import Pairs, build_pair_network
from ...data.splits import digest
from ...errors import VqkitError
from ...prior.network import PriorNetwork
from ...prior.pairs import PairLayout, nats_of
from ...settings import PairConfig
from ..task import Phase
from .codes import CodesTask, Rows, mean_nats

# Terms by half: what it costs alone, and once the other half is known.
ALONE = ("first", "second")
TOLD = ("first_given_second", "second_given_first")


class PairOutput(NamedTuple):
    """What the prior says of a batch.

    terms: nats a code, of either half `ALONE` and `TOLD` the other. codes: (B, L).
    """

    terms: dict[str, Tensor]
    codes: Tensor


class PairTask(CodesTask):
    """Predict the codes of pairs: half of a batch begins with the first half, half with the second.

    So each half is learnt without the other as often as with it, which is what guidance needs.
    """

    all_settings: PairConfig

    def __init__(self, pairs: Pairs, config: PairConfig) -> None:
        super().__init__(pairs.model.artifact, pairs.data, pairs.partners, config)
        self.pairs = pairs
        layout = self.build().layout
        assert isinstance(layout, PairLayout)
        self.layout = layout
        if config.network.order != "coarse_first" and len(layout.groups) == 2:
            raise VqkitError(
                f"network.order={config.network.order} has no effect on codes of a single "
                "codebook: leave it at coarse_first"
            )
        self.fingerprint = {
            **pairs.data.fingerprint,
            "halves": [half.name for half in pairs.halves],
            "partners": digest(pairs.partners.numpy().tobytes()).hex(),
        }
        self.phases = (Phase("pairs", self._forward, lambda progress: self.peak_weights()),)

    def build(self) -> PriorNetwork:
        network = build_pair_network(self.all_settings, self.pairs.halves)
        vectors = [vectors for half in self.pairs.halves for vectors in half.vectors()]
        network.start_from(vectors, torch.Generator().manual_seed(self.seed))
        return network

    def title(self, model: nn.Module) -> str:
        first, second = self.layout.halves
        return (
            f"{self.data.name}: {len(self.data.splits['train'])} pairs to train on, of "
            f"{first.length} and {second.length} codes"
        )

    def peak_weights(self) -> dict[str, float]:
        return dict.fromkeys((*ALONE, *TOLD), 0.25)

    def figures(self, output: PairOutput, batch: Rows) -> dict[str, Tensor]:
        return {f"bits/{name}": term.detach() / math.log(2) for name, term in output.terms.items()}

    def _forward(
        self, model: nn.Module, batch: Rows, generator: torch.Generator | None
    ) -> PairOutput:
        device = next(model.parameters()).device
        # Items end in silence, which is coded, so that what is drawn ends as well.
        found = self._codes(batch.items._replace(mask=None), device).flatten(1)
        codes = self.pairs.joined(found, batch.rows.to(device))
        if generator is None:
            codes = torch.cat([codes, codes])
        count = len(codes) // 2
        rows = (slice(0, count), slice(count, len(codes)))
        order = torch.cat([self.layout.orders(codes[rows[first]], first) for first in (0, 1)])
        parts = 1 if generator is None else self.settings.accumulate
        nats = nats_of(model, codes, order, parts)
        terms: dict[str, Tensor] = {}
        for first in (0, 1):
            costs = self.layout.split(nats[rows[first]])
            real = self.layout.split(codes[rows[first]] >= 0)
            for half in (0, 1):
                name = ALONE[half] if half == first else TOLD[half]
                terms[name] = mean_nats(costs[half], real[half])
        return PairOutput(terms, codes)
