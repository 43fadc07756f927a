"""The adversarial stage of training: a discriminator as a second phase of the loop, and how
strongly the decoder listens to it.

    waiting --the validation PSNR has levelled off, or the share of the run that was set--> alone
    alone --the discriminator has learned for some steps--> joint, with a weight that rises
    joint --the run ends, or the guard of the stage says so--> over

What it changes while training is in its memory, in the discriminator and in that one's optimiser,
all of which are in the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from ..config.adversary import AdversarySection
from ..model.discriminator import (
    Discriminator,
    discriminator_loss,
    feature_matching,
    generator_loss,
    last_matrix,
    lecam,
)
from ..model.perturb import Perturbation, cutout, joined, translation
from ..signals.base import Signal
from .engine import Engine, unwrap
from .losses import total_loss
from .task import Batch, Phase

# Largest factor on the adversarial gradient: a discriminator that is sure has hardly any, and would
# be multiplied without bound.
MAX_RATIO = 10.0
# Decay of the averages of the ratio, of accuracies and of the scores that LeCam looks at.
DECAY = 0.95
SCORE_DECAY = 0.99
# Steps between two penalties of R1, each of which is that much heavier (Karras et al. 2020, arXiv
# 1912.04958), and its weight, gamma.
PENALTY_EVERY = 8
PENALTY = 1.0
BETAS = (0.5, 0.9)
# Share of training after which the stage starts although validation has not levelled off.
LATEST = 0.6

WAITING = "waiting"
ALONE = "alone"
JOINT = "joint"
OVER = "over"


class Pair(NamedTuple):
    """Reconstructions and items, standardised (B, C, *extent), with equal values where the mask
    (B, *extent) is False; None = all is real.
    """

    fakes: Tensor
    items: Tensor
    mask: Tensor | None


class Changes(NamedTuple):
    """What is changed at random of what the discriminator sees: of values, and of where they are,
    which is what a mask changes by.
    """

    values: Perturbation
    places: Perturbation


class Scores(NamedTuple):
    """What the second phase gives: terms, and no codes."""

    terms: dict[str, Tensor]
    codes: Tensor


@dataclass
class Memory:
    """All that the stage remembers besides tensors.

    Plain values, so that a checkpoint holds them exactly.
    """

    state: str = WAITING
    # Step at which the stage began.
    began_at: int = 0
    # Moving averages; None before there is one.
    ratio: float | None = None
    strength: float | None = None
    accuracy: float | None = None
    score_items: float | None = None
    score_fakes: float | None = None
    # What the guard has lowered the weight to, and how often.
    factor: float = 1.0
    lowered: int = 0
    # Figures of all validation passes, in order: [quality in dB, detail].
    passes: list[list[float]] = field(default_factory=list)
    # Whether they are of items that are not trained on.
    is_held_out: bool = True
    # Whether they have levelled off.
    is_level: bool = False
    # Those of the pass before the stage, of the weights that are kept.
    kept: list[float] = field(default_factory=list)
    # The highest quality since then.
    best_quality: float = -math.inf
    # Warnings that were said, each of which is said once.
    said: list[str] = field(default_factory=list)
    # Step at which the stage ended, and which weights are in use since: "" = it has not ended,
    # "after" or "before" the stage.
    ended_at: int = 0
    in_use: str = ""


class Adversary:
    """The discriminator, its phase, and the term that it adds to the first phase.

    built: the discriminator. decoder: whose last matrix gradients are compared at. pair: from the
    first phase's output and its batch to what is told apart.
    """

    def __init__(
        self,
        settings: AdversarySection,
        built: Discriminator,
        signal: Signal,
        decoder: nn.Module,
        pair: Callable[[Any, Batch], Pair],
        engine: Engine,
        parts: int,
    ) -> None:
        self.settings = settings
        self.signal = signal
        self.pair = pair
        self.engine = engine
        self.parts = parts
        self.matrix = last_matrix(decoder)
        self.model = engine.wrap_model(built, (), False)
        self.raw: Discriminator = unwrap(self.model)  # type: ignore[assignment]
        self.phase = Phase("adversary", self._forward, self._weights, self._optimizers)
        self.memory = Memory()
        self.figures: dict[str, float] = {}
        # Of the step, between the two phases.
        self._step = 0
        self._pair: Pair | None = None

    @property
    def is_on(self) -> bool:
        return self.memory.state in (ALONE, JOINT)

    @property
    def is_waiting(self) -> bool:
        return self.memory.state == WAITING

    @property
    def freezes_codes(self) -> bool:
        return self.settings.train == "decoder"

    def is_due(self, progress: float) -> bool:
        """Whether the stage starts with the next step."""
        if not self.is_waiting:
            return False
        if self.settings.start is not None:
            return progress >= self.settings.start
        return self.memory.is_level or progress >= LATEST

    def begin(self, step: int) -> None:
        self.memory.state = ALONE
        self.memory.began_at = step

    def end(self, step: int, in_use: str) -> None:
        """No more of it: the discriminator rests, and the weight is gone.

        in_use: the weights from "before" or "after" the stage.
        """
        self.memory.state = OVER
        self.memory.ended_at = step
        self.memory.in_use = in_use
        self.figures = {}
        self._pair = None

    def share(self, step: int) -> float:
        """How far the weight has risen at a step, in [0, 1]."""
        done = step - self.memory.began_at - self.settings.alone
        return min(max(done + 1, 0) / self.settings.ramp, 1.0)

    # ------------------------------------------------------------------------------ the first phase

    def join(
        self,
        output: Any,
        weights: Mapping[str, float],
        batch: Batch,
        step: int,
        generator: torch.Generator,
    ) -> tuple[Any, dict[str, float]]:
        """The first phase's output and weights with the adversarial term, once the decoder listens.

        The gradient at the reconstruction is computed here, part by part and without any for the
        discriminator. The term has the value of the loss and that gradient.
        """
        pair = self.pair(output, batch)
        self._pair = pair._replace(fakes=pair.fakes.detach())
        self._step = step
        share = self.share(step)
        if not share:
            return output, dict(weights)
        self.memory.state = JOINT
        value, gradient = self._gradient(self._pair, generator)
        self._measure_ratio(total_loss(output.terms, weights), pair.fakes, gradient)
        product = (pair.fakes * gradient).sum()
        terms = {**output.terms, "adversarial": value + (product - product.detach())}
        assert self.memory.ratio is not None
        weight = self.settings.weight * share * self.memory.ratio * self.memory.factor
        # What the weighed gradient is beside that of all other terms.
        strength = weight / max(self.figures["adversary/gradient_ratio"], 1e-12)
        self.memory.strength = _average(self.memory.strength, strength, DECAY)
        self.figures |= {"adversary/weight": weight}
        return output._replace(terms=terms), {**weights, "adversarial": weight}

    def _gradient(self, pair: Pair, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Value of what the decoder minimises, and its gradient at the reconstructions."""
        leaf = pair.fakes.clone().requires_grad_()
        changes = self._changes(pair.items, generator)
        seen = changes.values(leaf)
        real = self._real(pair.mask, changes)
        value = torch.zeros((), device=leaf.device)
        gradients: list[Tensor] = []
        self.raw.eval()
        parts = zip(
            seen.detach().chunk(self.parts),
            changes.values(pair.items).chunk(self.parts),
            _chunks(real, len(leaf), self.parts),
            strict=True,
        )
        for fake, item, places in parts:
            part = fake.requires_grad_()
            share = len(part) / len(leaf)
            counted: Tensor | float = 1.0
            if real is not None and places is not None:
                # Means are over scores that count, of which parts have unequal numbers.
                counted = places[-1].sum() / real[-1].sum().clamp(min=1) / share
            loss = self._generator_loss(part, item, places, counted) * share
            gradients += torch.autograd.grad(loss, part)
            value += loss.detach()
        self.raw.train()
        (gradient,) = torch.autograd.grad(seen, leaf, torch.cat(gradients))
        return value, gradient

    def _generator_loss(
        self, fakes: Tensor, items: Tensor, real: list[Tensor] | None, share: Tensor | float
    ) -> Tensor:
        """The loss of a part of a batch. real: of the part, as `Discriminator.real` has it. share:
        of the scores that count, beside that of the items.
        """
        with self.engine.autocast():
            with torch.no_grad():
                of_items = self.raw.features(items)
            of_fakes = self.raw.features(fakes)
        scores = _counted(of_items[-1].float(), of_fakes[-1].float(), real)
        loss = generator_loss(self.settings.loss, *scores) * share
        if self.settings.feature_matching:
            matched = feature_matching(
                [one.float() for one in of_items[:-1]],
                [one.float() for one in of_fakes[:-1]],
                None if real is None else real[:-1],
            )
            loss = loss + self.settings.feature_matching * matched
        return loss

    def _measure_ratio(self, others: Tensor, fakes: Tensor, gradient: Tensor) -> None:
        """|gradient of all other terms| / |gradient of the adversarial one| at the decoder's last
        matrix (Esser et al. 2021, arXiv 2012.09841, equation 7), within [0, MAX_RATIO], averaged.
        """
        of_others = self.engine.gradient(others, self.matrix)
        of_adversary = self.engine.gradient(fakes, self.matrix, gradient)
        norms = torch.stack([of_others.norm(), of_adversary.norm()])
        first, second = self.engine.sum(norms).tolist()
        ratio = first / max(second, 1e-12)
        self.memory.ratio = _average(self.memory.ratio, min(ratio, MAX_RATIO), DECAY)
        self.figures |= {"adversary/gradient_ratio": ratio}

    # ----------------------------------------------------------------------------- the second phase

    def _forward(self, model: nn.Module, batch: Batch, generator: torch.Generator | None) -> Scores:
        assert self._pair is not None and generator is not None
        fakes, items, mask = self._pair
        changes = self._changes(items, generator)
        real = self._real(mask, changes)
        is_penalised = self.settings.regularisation == "r1" and not self._step % PENALTY_EVERY
        penalised = -(-len(items) // self.parts) if is_penalised else 0
        of_items, of_fakes, penalty = model(
            changes.values(items),
            changes.values(fakes),
            penalised,
            None if real is None else real[-1],
        )
        of_items, of_fakes = _counted(of_items, of_fakes, real)
        kind = self.settings.loss
        terms = {"discriminator": discriminator_loss(kind, of_items, of_fakes)}
        memory = self.memory
        if self.settings.lecam and memory.score_items is not None:
            assert memory.score_fakes is not None
            terms["lecam"] = lecam(of_items, of_fakes, memory.score_items, memory.score_fakes)
        if penalised:
            terms["r1"] = penalty
        self._remember(of_items.detach(), of_fakes.detach())
        return Scores(terms, of_items.new_zeros(0))

    def _weights(self, progress: float) -> dict[str, float]:
        return {
            "discriminator": 1.0,
            "lecam": self.settings.lecam,
            "r1": PENALTY * PENALTY_EVERY,
        }

    def _optimizers(self, model: nn.Module) -> list[Optimizer]:
        lr = self.settings.lr
        groups = [{"params": list(self.raw.parameters()), "peak_lr": lr}]
        return [AdamW(groups, lr=lr, betas=BETAS, weight_decay=0.0, fused=True)]

    def _remember(self, items: Tensor, fakes: Tensor) -> None:
        """Averages over all ranks: of the scores, and of the shares of patches that were told
        right, those of items above 0, those of reconstructions below, and pairs in their order.

        Items differ far more than an item from its reconstruction, so that a discriminator that
        tells every pair may be little better than chance at telling which is which of single
        patches.
        """
        right = [items > 0, fakes < 0, items > fakes]
        means = torch.stack([*(one.float().mean() for one in right), items.mean(), fakes.mean()])
        means = self.engine.sum(means) / self.engine.world_size
        of_items, of_fakes, of_pairs, score_items, score_fakes = means.tolist()
        memory = self.memory
        memory.accuracy = _average(memory.accuracy, of_pairs, DECAY)
        memory.score_items = _average(memory.score_items, score_items, SCORE_DECAY)
        memory.score_fakes = _average(memory.score_fakes, score_fakes, SCORE_DECAY)
        self.figures |= {
            "adversary/accuracy_items": of_items,
            "adversary/accuracy_fakes": of_fakes,
            "adversary/accuracy_pairs": of_pairs,
        }

    def _changes(self, items: Tensor, generator: torch.Generator) -> Changes:
        """One random change an item, for the item and its reconstruction alike."""
        if not self.settings.augment:
            return Changes(joined([]), joined([]))
        count = len(items)
        extent = items.shape[2:]
        recolouring = self.signal.recolouring(count, generator)
        places = joined([translation(count, extent, generator), cutout(count, extent, generator)])
        values = places if recolouring is None else joined([recolouring, places])
        return Changes(values, places)

    def _real(self, mask: Tensor | None, changes: Changes) -> list[Tensor] | None:
        """Where the discriminator sees something real, as `Discriminator.real` has it; None =
        everywhere.
        """
        if mask is None:
            return None
        return self.raw.real(changes.places(mask[:, None].float())[:, 0] > 0)

    # ------------------------------------------------------------------------------- the checkpoint

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values that `restore` takes; the optimiser's are those of the phase."""
        return self.raw.state_dict(), asdict(self.memory)

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self.raw.load_state_dict(dict(tensors))
        self.memory = Memory(**values)


def _chunks(real: list[Tensor] | None, count: int, parts: int) -> list[list[Tensor]] | list[None]:
    """Parts of what `Discriminator.real` says of so many items."""
    if real is None:
        # As many as `Tensor.chunk` makes.
        size = -(-count // parts)
        return [None] * -(-count // size)
    return [list(part) for part in zip(*(one.chunk(parts) for one in real), strict=True)]


def _counted(items: Tensor, fakes: Tensor, real: list[Tensor] | None) -> tuple[Tensor, Tensor]:
    """Scores of both sides that count: all where nothing is padded, or nothing real is seen, as
    both sides are equal there.
    """
    if real is None or not real[-1].any():
        return items, fakes
    return items[real[-1]], fakes[real[-1]]


def _average(old: float | None, new: float, decay: float) -> float:
    """A moving average, whose first value is the first one."""
    return new if old is None else decay * old + (1.0 - decay) * new
