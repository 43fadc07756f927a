"""Drawing codes: one order, a cache, and as many codes at a time as one likes.

Shapes: B images, L slots, K codes, n what is drawn at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .network import Cache, Condition, PriorNetwork, Steps

# Sees codes (B, L) after each step, -1 where nothing is drawn yet.
Watch = Callable[[Tensor], None]


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn from their distribution.

    temperature: logits are divided by it; 0 = always the likeliest. top_k: only the likeliest k; 0
    = all. top_p: only the likeliest whose sum reaches it (nucleus, Holtzman et al. 2020, arXiv
    1904.09751). cfg: classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), logits =
    without + cfg * (with - without the condition); 1 = none.
    cfg_interval: share of the drawing in which it acts (Kynkaanniemi et al. 2024, arXiv
    2404.07724). cfg_ramp: linear lets it rise from 1 over that interval.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    cfg: float = 1.0
    cfg_interval: tuple[float, float] = (0.0, 1.0)
    cfg_ramp: Literal["constant", "linear"] = "constant"

    def guidance(self, progress: float) -> float:
        """Strength at a share of the drawing in [0, 1)."""
        first, last = self.cfg_interval
        if not first <= progress < last:
            return 1.0
        if self.cfg_ramp == "constant":
            return self.cfg
        return 1.0 + (self.cfg - 1.0) * (progress - first) / max(last - first, 1e-9)


@dataclass(frozen=True)
class Start:
    """Where drawing starts.

    codes: (B, L). order: (B, L) of slots, the known ones first. uniforms: (B, L) in [0, 1), one for
    every slot, of which what is drawn there is a pure function. condition: of the images.
    """

    codes: Tensor
    order: Tensor
    uniforms: Tensor
    condition: Condition
    num_given: int = 0


@torch.no_grad()
def draw(
    network: PriorNetwork,
    start: Start,
    sizes: Sequence[int],
    sampling: Sampling,
    watch: Watch | None = None,
) -> Tensor:
    """Codes (B, L) in which the last slots of the order are drawn, `sizes` of them at a time.

    The rest stays.

    Codes of one step do not see one another; a step of one is exact.
    """
    order = start.order
    codes = start.codes.clone()
    guided = Walk(network, order, start.condition)
    # Guidance compares with what comes without the condition.
    given = start.num_given
    unguided = Walk(network, order[:, given:], Condition()) if sampling.cfg != 1.0 else None
    first = order.shape[1] - sum(sizes)
    known = first
    for size in sizes:
        scale = sampling.guidance((known - first) / sum(sizes))
        asked = order[:, known : known + size]
        states = [guided.ask(codes, known, size)]
        if unguided is not None and scale != 1.0:
            states.append(unguided.ask(codes, known - given, size))
        uniforms = start.uniforms.gather(1, asked)
        codes.scatter_(1, asked, _draw_step(network, states, asked, scale, sampling, uniforms))
        known += size
        if watch:
            missing = torch.ones_like(codes, dtype=torch.bool).scatter_(1, order[:, :known], False)
            watch(codes.masked_fill(missing, -1))
    return codes


class Walk:
    """One pass over an order with a cache: every step is run once, when it is first needed."""

    def __init__(self, network: PriorNetwork, order: Tensor, condition: Condition) -> None:
        self.network = network
        self.order = order
        self.begin, self.prefix = network.beginning(condition, len(order))
        self.cache: Cache = network.cache(len(order))
        # Steps in the cache, without the prefix.
        self.done = 0

    def ask(self, codes: Tensor, known: int, count: int) -> Tensor:
        """Hidden states (B, count, d) for the slots order[:, known : known + count], given the
        `known` before them.

        The steps that are missing in the cache are run along, up to the first question, which stays
        in it; the other questions see what the first sees and themselves, and are forgotten.
        """
        network = self.network
        first = self.done
        asked = self.order[:, first : known + count]
        lying = self.order[:, max(first - 1, 0) : known]
        contents = network.contents(codes.gather(1, lying), lying)
        nowhere = asked.new_full((len(asked), 1), -1)
        if first == 0:
            contents = torch.cat([self.begin, contents], 1)
            lying = torch.cat([nowhere, lying], 1)
        contents = torch.cat([contents, contents[:, -1:].expand(-1, count - 1, -1)], 1)
        lying = torch.cat([lying, lying[:, -1:].expand(-1, count - 1)], 1)
        steps = self._with_prefix(contents + network.targets(asked), asked, lying)
        rows = steps.inputs.shape[1]
        kept = rows - (count - 1)
        mask = question_mask(self.cache.length, kept, count - 1, asked.device)
        hidden = network.hidden(steps, self.cache, mask, keep=kept)
        self.done = known + 1
        return hidden[:, -count:]

    def _with_prefix(self, inputs: Tensor, asked: Tensor, lying: Tensor) -> Steps:
        network = self.network
        if self.cache.length == 0 and self.prefix.shape[1]:
            nowhere = asked.new_full((len(asked), self.prefix.shape[1]), -1)
            inputs = torch.cat([self.prefix, inputs], 1)
            asked = torch.cat([nowhere, asked], 1)
            lying = torch.cat([nowhere, lying], 1)
        return Steps(inputs, network.angles(asked, lying))


def question_mask(cached: int, kept: int, more: int, device: torch.device) -> Tensor:
    """What each new step sees, (kept + more, cached + kept + more) bool: `kept` in a row, the last
    of which is a question, and `more` questions that see what is before that one, and themselves.
    """
    total = cached + kept + more
    mask = torch.ones(kept + more, total, dtype=torch.bool, device=device).tril(cached)
    mask[kept:, cached + kept - 1 :] = False
    index = torch.arange(more, device=device)
    mask[kept + index, cached + kept + index] = True
    return mask


def _draw_step(
    network: PriorNetwork,
    states: list[Tensor],
    asked: Tensor,
    scale: float,
    sampling: Sampling,
    uniforms: Tensor,
) -> Tensor:
    """Codes (B, n) for questions whose slots have one codebook a column."""
    drawn = torch.empty_like(asked)
    groups = network.groups[asked[0]]
    for group in groups.unique().tolist():
        columns = (groups == group).nonzero()[:, 0]
        logits = network.logits(states[0][:, columns], group)
        if len(states) == 2:
            without = network.logits(states[1][:, columns], group)
            logits = without + scale * (logits - without)
        drawn[:, columns] = pick(logits, sampling, uniforms[:, columns])
    return drawn


def pick(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
    """Codes (...) from logits (..., K) and numbers in [0, 1) (...): the inverse of the cumulative
    distribution.
    """
    if sampling.temperature == 0.0:
        return logits.argmax(-1)
    probabilities = distribution(logits, sampling)
    sums = probabilities.cumsum(-1)
    wanted = uniforms[..., None].to(sums.dtype) * sums[..., -1:]
    found = torch.searchsorted(sums, wanted, right=True)[..., 0]
    # Rounding may carry a number past the last code that can be drawn.
    last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).to(torch.uint8).argmax(-1)
    return torch.minimum(found, last)


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (..., K) after temperature, top_k and top_p, in this order.

    Not normalised again after top_p.
    """
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        smallest = logits.topk(sampling.top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    probabilities = logits.softmax(-1)
    if sampling.top_p < 1.0:
        ordered, index = probabilities.sort(-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        kept = torch.zeros_like(probabilities, dtype=torch.bool)
        kept = kept.scatter(-1, index, before < sampling.top_p)
        probabilities = probabilities * kept
    return probabilities
