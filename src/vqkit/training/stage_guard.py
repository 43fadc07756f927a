"""What watches the adversarial stage: it says what is wrong, lowers the weight, and gives the word
to go back to the weights from before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .adversary import ALONE, JOINT, MAX_RATIO, Adversary
from .guard import Event

# Steps between two looks at the discriminator.
EVERY = 50
# Share of pairs of patches, of an item and its reconstruction, that it tells right: below the
# first, after the steps that it had alone, it has learned nothing; above the second, with its full
# weight, the decoder cannot follow it. Healthy stages had 0.45 to 0.7.
LEARNED = 0.55
SURE = 0.8
# Weighed adversarial gradient beside that of all other terms, above which these decide nothing.
DOMINANT = 3.0
# Times that the weight is lowered, and by what.
MAX_LOWERED = 3
LOWERED = 0.5
# Validation has levelled off when so many passes together gained less than this, in dB of the
# signal's quality.
LEVEL_PASSES = 2
LEVEL_GAIN = 0.1
# What a single pass gains, in dB, while a model still learns to reconstruct.
LEARNING_GAIN = 0.3
# dB by which quality, and detail, may differ by chance.
CHANCE = 0.05


class Decision(NamedTuple):
    """What there is to say, and what happens to the stage.

    leaves: it is over, and training goes on with the weights of now. rolls_back: it is over, and
    the model goes back to the weights from before.
    """

    events: list[Event]
    leaves: bool = False
    rolls_back: bool = False


class StageGuard:
    """Decides for one adversary; all that it remembers is in the adversary's memory.

    Decisions rest on numbers summed over ranks, hence are the same on each.
    """

    def __init__(self, adversary: Adversary) -> None:
        self.adversary = adversary
        self.max_fall = adversary.settings.max_fall
        self.quality = adversary.signal.quality
        self.quality_in_words = adversary.signal.quality_in_words

    def saw(self, row: Mapping[str, float], is_held_out: bool) -> None:
        """Remember a validation pass, of any state of the stage.

        is_held_out: of a validation split, not of training items in place of one.
        """
        memory = self.adversary.memory
        memory.is_held_out = is_held_out
        memory.passes.append([row[self.quality], row["detail"]])
        recent = memory.passes[-LEVEL_PASSES:]
        earlier = memory.passes[:-LEVEL_PASSES]
        if earlier:
            best = max(quality for quality, _ in earlier)
            memory.is_level |= max(quality for quality, _ in recent) < best + LEVEL_GAIN

    def begin(self, is_trained: bool) -> list[Event]:
        """The stage begins, after a validation pass of the weights that are kept.

        is_trained: the model was trained before this run.
        """
        memory = self.adversary.memory
        memory.kept = memory.passes[-1]
        memory.best_quality = memory.kept[0]
        events = [
            Event(
                "info",
                f"the adversarial stage begins at {memory.kept[0]:.2f} dB; the weights of now are "
                "kept",
            )
        ]
        gains = [
            two[0] - one[0] for one, two in zip(memory.passes, memory.passes[1:], strict=False)
        ]
        remedy = "train for longer, so that it levels off before"
        if self.adversary.settings.start is not None:
            remedy = "leave adversary.start at null to wait until that has levelled off"
        if not is_trained and (not gains or gains[-1] > LEARNING_GAIN):
            events.append(
                Event(
                    "warning",
                    f"the stage begins while the model still learns to reconstruct; {remedy}",
                )
            )
        if not memory.is_held_out:
            events.append(
                Event(
                    "warning",
                    "there is no validation split, and training items in its place do not tell "
                    "whether the discriminator has learned them by heart; set data.validation "
                    "above 0 if there are enough of them",
                )
            )
        return events

    def follow(self, step: int) -> Decision:
        """After a finished step: whether the discriminator can be of use."""
        memory = self.adversary.memory
        if not self.adversary.is_on:
            return Decision([])
        since = step - memory.began_at
        accuracy = memory.accuracy or 0.0
        if memory.state == ALONE and since >= self.adversary.settings.alone and accuracy < LEARNED:
            text = (
                f"the discriminator tells {accuracy:.1%} of pairs of patches right after {since} "
                "steps alone, no more than chance: the stage is over, and the decoder never saw "
                "it; a higher adversary.lr may help"
            )
            return Decision([Event("warning", text)], leaves=True)
        if memory.state != JOINT or since % EVERY:
            return Decision([])
        events = []
        has_full_weight = self.adversary.share(step) == 1
        if accuracy > SURE and has_full_weight:
            text = f"the discriminator tells {accuracy:.1%} of pairs of patches right"
            events += self._lowered("accuracy", text)
        if memory.ratio is not None and memory.ratio >= MAX_RATIO:
            text = (
                f"the adversarial gradient is less than 1/{MAX_RATIO:g} of that of all other terms"
            )
            events += self._lowered("ratio", text)
        if memory.strength is not None and memory.strength > DOMINANT:
            text = (
                f"the adversarial gradient is {memory.strength:.2g} times that of all other terms"
            )
            # At once to where neither drowns the other.
            events += self._lowered("strength", text, 1 / memory.strength)
            memory.strength = None
        return Decision(events)

    def judge(self) -> Decision:
        """After a validation pass within the stage: what it costs."""
        memory = self.adversary.memory
        quality = memory.passes[-1][0]
        memory.best_quality = max(memory.best_quality, quality)
        fall = memory.best_quality - quality
        # Also of one that is no number.
        if fall <= self.max_fall:
            return Decision([])
        text = f"validation {self.quality_in_words} fell by {fall:.2f} dB, to {quality:.2f} dB"
        if fall <= 2 * self.max_fall and memory.lowered < MAX_LOWERED:
            return Decision(self._lower(text))
        return self._failed(text)

    def conclude(self) -> Decision:
        """Whether the stage is worth its cost, at the last validation pass of the run."""
        memory = self.adversary.memory
        quality, detail = memory.kept
        quality_now, detail_now = memory.passes[-1]
        fall = quality - quality_now
        before = f"{quality:.2f} dB with {detail:+.1f} dB of fine detail"
        after = f"{quality_now:.2f} dB with {detail_now:+.1f} dB"
        if not fall <= self.max_fall:
            text = f"the adversarial stage went from {before} to {after}, which is too far"
            return Decision([Event("warning", text)], rolls_back=True)
        is_sharper = abs(detail_now) < abs(detail) - CHANCE
        if fall > CHANCE and not is_sharper:
            text = f"the adversarial stage went from {before} to {after}: no sharper, and less true"
            return Decision([Event("warning", text)], rolls_back=True)
        text = f"the adversarial stage went from {before} to {after}: its weights are in use"
        return Decision([Event("info", text)])

    def broke(self, reason: str) -> Decision:
        """A step was not finite, and nothing was changed by it."""
        return self._failed(reason)

    def _failed(self, text: str) -> Decision:
        """The stage is over: back to the weights from before, unless those of now are better, which
        is so where the stage began too early.
        """
        memory = self.adversary.memory
        events = [Event("warning", f"{text}: the adversarial stage has failed")]
        is_better = memory.passes[-1][0] > memory.kept[0]
        return Decision(events, leaves=is_better, rolls_back=not is_better)

    def _lowered(self, kind: str, text: str, factor: float = LOWERED) -> list[Event]:
        """The weight lowered for a reason, which is said once more when nothing is left."""
        memory = self.adversary.memory
        if memory.lowered < MAX_LOWERED:
            return self._lower(text, factor)
        if kind in memory.said:
            return []
        memory.said.append(kind)
        return [Event("warning", f"{text}, and the weight was lowered {MAX_LOWERED} times")]

    def _lower(self, text: str, factor: float = LOWERED) -> list[Event]:
        memory = self.adversary.memory
        memory.factor *= factor
        memory.lowered += 1
        return [
            Event("warning", text),
            Event(
                "action",
                f"the weight of the adversary is now {memory.factor:.3g} of adversary.weight",
            ),
        ]
