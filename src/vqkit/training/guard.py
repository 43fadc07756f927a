"""Guards that watch a run: divergence stops it, a collapsing codebook is reported and cured if
possible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config.sections import TrainConfig
from ..errors import TrainingDiverged, VqkitError
from ..metrics import code_counts, code_entropy, code_figures, perplexity, usage
from ..model.quantizers.base import Bottleneck, Quantizer
from ..model.quantizers.simvq import SimVQ
from ..model.quantizers.vq import VectorQuantizer
from .checkpoint import find_checkpoint
from .engine import Engine, full
from .remedies import Remedies

# Steps in which codes are counted before anybody looks at the counts.
SLICE = 10
# Slices in the window that slides over training: what is judged are the codes of the last SLICE *
# SLICES steps.
SLICES = 4
# Steps in which a codebook must have moved, and after which ranks compare theirs.
MOVEMENT_EVERY = 50
# Usage, as a share of what uniform draws reach, below which a codebook has collapsed.
LOW_USAGE = 0.5
# Normalised entropy below which it has, even if every code occurs now and then.
LOW_ENTROPY = 0.1
# Of the best usage and of the best entropy so far; what is below both is falling. Fewer codes that
# are used more evenly are no loss.
FALLEN = 0.8
# An alarm ends this far above the level at which it began, so that it does not flicker.
HYSTERESIS = 1.1
# Commitment over the variance of the codes in use: latents are three times as far from the codes as
# these spread.
RUNAWAY = 10.0
# Dead codes that a message names.
NAMED = 8


class BrokenCodebook(VqkitError):
    """A codebook that cannot learn: nothing moves it, or ranks hold different ones.

    No remedy cures it.
    """


class Event(NamedTuple):
    """Something to say and to log.

    level: warning (a problem), action (a remedy) or recovered (warnings are over).
    """

    level: str
    message: str


class Problem(NamedTuple):
    """What is wrong.

    kind: a key of remedies.FITTING, or recovering. parts: of the quantizer that are concerned.
    share: usage of the worst part, as a share of what could be reached.
    """

    kind: str
    message: str
    parts: list[int]
    share: float


def check_finite(step: int, values: Mapping[str, float], folder: Path) -> None:
    """TrainingDiverged naming the step and the first value that is not finite, if there is one.

    folder: of the run, whose checkpoint is spoken of if there is one.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            kept = "; the last checkpoint is from before" if find_checkpoint(folder) else ""
            raise TrainingDiverged(
                f"training diverged at step {step}: {name} is {value}{kept}. Try a lower train.lr, "
                "or train.clip_norm=1"
            )


def reachable_usage(draws: float, size: int) -> float:
    """Usage that so many uniform draws reach on average: 1 - exp(-n / K)."""
    return 1.0 - math.exp(-draws / size)


@dataclass
class Memory:
    """All that the guard remembers besides tensors.

    Plain values, so that a checkpoint holds them exactly.
    """

    # Slices of the window that hold counts.
    filled: int = 0
    # Whether a problem has been said and is not over.
    alarm: bool = False
    # Best usage of each part, as a share of what could be reached, and best perplexity.
    best: list[float] = field(default_factory=list)
    best_perplexity: list[float] = field(default_factory=list)
    # The same of the worst part at the last remedy; 0 without one.
    share_then: float = 0.0
    # Sum of the commitment term over the open slice.
    commitment: float = 0.0
    # Commitment over the variance of the codes, when last looked at.
    ratio: float = math.inf
    # Sum of the learning rates since the codebooks were last compared.
    travelled: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)


class Guard:
    """Watches the codes of a training run over a sliding window, and acts when a codebook
    collapses.

    `add` takes the codes of every forward pass and `check` follows every step: it returns events.
    `figures` are those of the last full window. The trainer multiplies loss weights by
    `remedies.factors` and the learning rate by `remedies.lr_factor`. Decisions rest on numbers
    summed over ranks, hence are the same on each.

    mode: 'off' makes figures only, 'warn' says what is wrong, 'act' applies remedies (see Remedies)
    one at a time.
    """

    def __init__(self, quantizer: Bottleneck, settings: TrainConfig, engine: Engine) -> None:
        self.mode = settings.guard
        self.engine = engine
        self.per_codebook = quantizer.per_codebook
        # A codebook that several places share is alive if any of them uses it: stages of one size
        # each take their own.
        parts = quantizer.parts()
        self.places = quantizer.places()
        self.parts: list[Quantizer] = [parts[places[0]] for places in self.places]
        shape = (quantizer.num_codebooks, quantizer.codebook_size)
        # The open slice counts the codes of this rank, the closed ones those of all ranks.
        self.open = torch.zeros(shape, dtype=torch.int32, device=engine.device)
        self.window = torch.zeros(SLICES, *shape, dtype=torch.int32, device=engine.device)
        self.snapshots: dict[int, Tensor] = {}
        none = [0.0] * len(self.parts)
        self.memory = Memory(best=none, best_perplexity=list(none))
        self.remedies = Remedies(self.parts)

    @property
    def figures(self) -> dict[str, float]:
        """Usage, perplexity, entropy, dead codes and commitment ratio of the last full window.

        Empty before.
        """
        return self.memory.figures

    def add(self, codes: Tensor) -> None:
        """Count codes (B, Q, *grid); -1 is padding."""
        self.open += code_counts(codes, self.open.shape[1])

    def check(
        self, step: int, row: Mapping[str, float], weights: Mapping[str, float], progress: float
    ) -> list[Event]:
        """What there is to say after finished step `step`, whose terms (with their `weights`) and
        `lr` are in `row`.

        Errors: BrokenCodebook, unless the guard is off.
        """
        self.memory.travelled += row["lr"]
        self.memory.commitment += row.get("loss/commitment", 0.0)
        if step % SLICE:
            return []
        self._close_slice(row, weights)
        if self.mode == "off":
            return []
        # Not at step 0: k-means moves codes before anything learns.
        if step % MOVEMENT_EVERY == SLICE:
            self._check_movement(step)
        if self.memory.filled < SLICES:
            return []
        return self._react(step, progress)

    # -------------------------------------------------------------------------------------- figures

    def _close_slice(self, row: Mapping[str, float], weights: Mapping[str, float]) -> None:
        memory = self.memory
        self.window = self.window.roll(1, 0)
        self.window[0] = self.engine.sum(self.open.clone())
        self.open.zero_()
        memory.filled = min(memory.filled + 1, SLICES)
        commitment = memory.commitment / SLICE
        memory.commitment = 0.0
        if memory.filled < SLICES:
            return
        memory.figures = code_figures(self.per_codebook(self.window.sum(0)))
        # Not commitment over reconstruction: that is a logarithm or a likelihood with some
        # distortions, of any sign and size. The codes' variance has the unit of commitment
        # whatever the distortion and the scale of latents.
        spread = self._variance_of_codes()
        if commitment and spread:
            memory.figures["commitment_ratio"] = commitment / spread
        reconstruction = weights["reconstruction"] * row["loss/reconstruction"]
        if commitment and reconstruction > 0:
            ratio = weights["commitment"] * commitment / reconstruction
            memory.figures["commitment_to_reconstruction"] = ratio

    def _variance_of_codes(self) -> float:
        """Variance of the codes in use, mean over their channels and over the learned codebooks.

        0 if there are none.
        """
        variances = []
        for part, counts in zip(self.parts, self.per_codebook(self.window.sum(0)), strict=True):
            if isinstance(part, VectorQuantizer):
                variances.append(_variance(part, counts.cpu()))
        if not variances:
            return 0.0
        return sum(variances) / len(variances)

    # ------------------------------------------------------------------------------------ judgement

    def _react(self, step: int, progress: float) -> list[Event]:
        """Nothing, a warning, or one remedy.

        Then the window fills anew, which is the pause in which it can work.
        """
        memory = self.memory
        problem = self._problem()
        if problem is None:
            return self._recovered() if memory.alarm else []
        if problem.kind == "recovering":
            return []
        if self.mode == "act":
            if memory.share_then and problem.share > 1.1 * memory.share_then:
                # The last remedy still works.
                memory.share_then = problem.share
                return []
            done = self.remedies.apply(problem.kind, problem.parts, step, progress)
            if done:
                memory.alarm = True
                memory.share_then = max(problem.share, 1e-9)
                memory.filled = 0
                # Codes that are set anew are not to be compared with those of before.
                if self.remedies.restarted_at == step:
                    self.snapshots.clear()
                return [Event("action", f"{problem.message}; remedy: {done}")]
        if memory.alarm and (self.mode == "warn" or self.remedies.exhausted):
            return []
        memory.alarm = True
        self.remedies.exhausted = True
        advice = "no remedy is left" if self.mode == "act" else "train.guard=act would act"
        return [Event("warning", f"{problem.message}; {advice}")]

    def _recovered(self) -> list[Event]:
        self.memory.alarm = False
        self.memory.share_then = 0.0
        self.remedies.rest()
        usage = self.memory.figures["usage"]
        return [Event("recovered", f"usage of the codes is back at {usage:.0%}")]

    def _problem(self) -> Problem | None:
        """The worst that the window shows, None if there is nothing to say."""
        memory = self.memory
        total = self.per_codebook(self.window.sum(0))
        newest = self.per_codebook(self.window[0])
        oldest = self.per_codebook(self.window[-1])
        margin = HYSTERESIS if memory.alarm else 1.0
        collapsed = []
        recovering = []
        falling = []
        shares = [_share(counts) for counts in total]
        for index, share in enumerate(shares):
            effective = perplexity(total[index][None])
            memory.best[index] = max(memory.best[index], share)
            memory.best_perplexity[index] = max(memory.best_perplexity[index], effective)
            if _is_low(total[index], margin):
                if _share(newest[index]) > 1.1 * _share(oldest[index]):
                    recovering.append(index)
                else:
                    collapsed.append(index)
            elif (
                share < margin * FALLEN * memory.best[index]
                and effective < margin * FALLEN * memory.best_perplexity[index]
            ):
                falling.append(index)
        ratio = memory.figures.get("commitment_ratio", 0.0)
        ratio_before = memory.ratio
        memory.ratio = ratio
        if collapsed:
            message = self._usage_message("collapsed", collapsed, total)
            return Problem("collapsed", message, collapsed, min(shares))
        if ratio > RUNAWAY and ratio > ratio_before:
            message = (
                f"latents run away from the codes: commitment is {ratio:.0f} times the variance of "
                "the codes"
            )
            return Problem("runaway", message, [], min(shares))
        # On its own that is no reason to act, and none to call off an alarm.
        if recovering:
            return Problem("recovering", "", recovering, min(shares))
        if falling:
            message = self._usage_message("is losing codes", falling, total)
            return Problem("falling", message, falling, min(shares))
        return None

    def _usage_message(self, what: str, parts: list[int], totals: list[Tensor]) -> str:
        index = min(parts, key=lambda part: _share(totals[part]))
        counts = totals[index]
        dead = (counts == 0).nonzero()[:, 0].tolist()
        names = ""
        if dead:
            names = f"; dead: {', '.join(map(str, dead[:NAMED]))}"
        if len(dead) > NAMED:
            names += ", ..."
        name = f"codebook {self.places[index][0]}" if len(self.parts) > 1 else "the codebook"
        return (
            f"{name} {what}: {len(counts) - len(dead)} of {len(counts)} codes in use over "
            f"{SLICE * SLICES} steps, perplexity {perplexity(counts[None]):.1f}{names}"
        )

    # ------------------------------------------------------------------------------------- movement

    @torch.no_grad()
    def _check_movement(self, step: int) -> None:
        """Every learned codebook must have moved since the last check, and be the same on all
        ranks.
        """
        used = self.per_codebook(self.window.sum(0))
        for index, part in enumerate(self.parts):
            # The codes of the other families are fixed by design.
            if not isinstance(part, VectorQuantizer | SimVQ):
                continue
            now, size = fingerprint(part)
            self._check_ranks(index, now, step)
            before = self.snapshots.get(index)
            self.snapshots[index] = now
            # Below the resolution of float32 nothing moves: lr is zero at the end of some
            # schedules.
            if before is None or self.memory.travelled < 1e-5 * size:
                continue
            # Weighed by use: codes that nobody uses rest, and those that are revived jump in a
            # broken codebook too.
            weights = torch.ones(len(now))
            if isinstance(part, VectorQuantizer):
                weights = used[index].cpu()
            still = (before == now).all(1)
            if int(weights[still].sum()) > 0.5 * int(weights.sum()):
                raise BrokenCodebook(
                    f"codebook {self.places[index][0]} received neither a gradient nor a moving "
                    f"average in {MOVEMENT_EVERY} steps before step {step}: it is not in the "
                    "optimiser, or cut off from the loss (losses.codebook=0 with update=gradient "
                    "does that)"
                )
        self.memory.travelled = 0.0

    def _check_ranks(self, index: int, learned: Tensor, step: int) -> None:
        """BrokenCodebook unless all ranks have the same fingerprint."""
        ranks = self.engine.world_size
        if ranks == 1:
            return
        mine = torch.zeros(ranks, learned.shape[1], dtype=torch.float64)
        mine[self.engine.rank] = learned.sum(0)
        sums = self.engine.sum(mine.to(self.engine.device)).cpu()
        # Ranks on unlike processors may add up in another order, so not to the last bit.
        if bool(((sums - sums[0]).abs() > 1e-12 * learned.abs().sum()).any()):
            raise BrokenCodebook(
                f"codebook {self.places[index][0]} is not the same on all ranks at step {step}: "
                "their statistics or gradients are no longer exchanged"
            )

    # ----------------------------------------------------------------------------------- checkpoint

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values that `restore` takes; every rank must call it."""
        tensors = {"open": self.engine.sum(self.open.clone()), "window": self.window}
        tensors |= {f"snapshot.{index}": value for index, value in self.snapshots.items()}
        return tensors, {"memory": asdict(self.memory), "remedies": self.remedies.state()}

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go back to a state, to the bit."""
        self.window.copy_(tensors["window"])
        # The counts of all ranks were summed: one rank takes them up.
        if self.engine.is_main:
            self.open.copy_(tensors["open"])
        self.snapshots = {}
        for name, value in tensors.items():
            if name.startswith("snapshot."):
                self.snapshots[int(name.removeprefix("snapshot."))] = value
        self.memory = Memory(**values["memory"])
        self.remedies.restore(values["remedies"])


def _share(counts: Tensor) -> float:
    """Usage of one codebook, counts (K,), as a share of what uniform draws reach, or where codes
    are of very unlike frequencies, as those of silence and of speech are, the share of the codes
    that are alive at all, in use by now or not.

    1 without any draw.
    """
    draws = int(counts.sum())
    if not draws:
        return 1.0
    reached = usage(counts[None]) / reachable_usage(draws, len(counts))
    return max(reached, min(1.0, num_alive(counts) / len(counts)))


def num_alive(counts: Tensor) -> float:
    """Codes that would be seen in the long run, of counts (K,): those that were, and an estimate of
    the others from how many were seen once and twice (Chao 1984, in the bias-corrected form of
    Chao 2005).
    """
    seen = int((counts > 0).sum())
    once = int((counts == 1).sum())
    twice = int((counts == 2).sum())
    return seen + once * (once - 1) / (2 * (twice + 1))


def _variance(part: VectorQuantizer, counts: Tensor) -> float:
    """Mean over channels of the variance of codes that occur `counts` (K,) times."""
    used = counts > 0
    codebook = full(part.codebook)[used].double()
    if part.config.distance == "cosine":
        codebook = F.normalize(codebook, dim=1)
    counts = counts.double()
    shares = counts[used] / counts.sum().clamp(min=1)
    mean = shares @ codebook
    return float((shares @ (codebook - mean).square()).mean())


def _is_low(counts: Tensor, margin: float) -> bool:
    """Whether codes (K,) are so few, or one so frequent, that the codebook has collapsed."""
    if not counts.any():
        return False
    return _share(counts) < margin * LOW_USAGE or code_entropy(counts[None]) < margin * LOW_ENTROPY


def fingerprint(part: VectorQuantizer | SimVQ) -> tuple[Tensor, float]:
    """What a part has learned, (rows, d), on two fixed random axes: (rows, 2) float64; and its root
    mean square.

    A row that moves at all moves there; it takes less room than the codes, of which there may be a
    million.
    """
    learned = full(part.codebook if isinstance(part, VectorQuantizer) else part.map.weight)
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(learned.shape[1], 2, generator=generator, dtype=torch.float64)
    return learned.double() @ axes, float(learned.square().mean().sqrt())
