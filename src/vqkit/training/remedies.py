"""What brings a collapsed codebook back, mildest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..model.quantizers.base import Quantizer
from ..model.quantizers.vq import VectorQuantizer

# Remedies of each problem in the order in which they are tried.
FITTING = {
    "collapsed": ("revival", "restart", "entropy", "learning rate", "commitment"),
    "falling": ("revival",),
    "runaway": ("commitment", "learning rate"),
}
# Times that one remedy is used in a run.
MAX_USES = 3
# Share of the run after which only revival is left: after a restart the rest of the model needs
# time to follow.
LATE = 0.9


class Remedies:
    """Applies one remedy at a time, never the same one twice in a row while another is left.

    Run-time changes: `factors` on loss weights by term, `lr_factor` on the learning rate, and
    revive_threshold and kmeans_iterations of the parts. `restarted_at` is the step from which
    averaged weights must forget what was before.
    """

    def __init__(self, parts: Sequence[Quantizer]) -> None:
        self.parts = parts
        self.factors = {"commitment": 1.0, "entropy": 1.0}
        self.lr_factor = 1.0
        self.restarted_at = 0
        self.exhausted = False
        self.uses: dict[str, int] = {}
        self.tried: list[str] = []

    def apply(self, problem: str, parts: Sequence[int], step: int, progress: float) -> str:
        """Apply the next remedy for a problem of these parts.

        Returns what was done, in words; empty when nothing is left.
        """
        fitting = [name for name in FITTING[problem] if self._fits(name, parts, progress)]
        fresh = [name for name in fitting if name not in self.tried]
        if not fresh:
            # All were tried: begin again with the mildest.
            self.tried = []
            fresh = fitting
        if not fresh:
            return ""
        remedy = fresh[0]
        self.tried.append(remedy)
        self.uses[remedy] = self.uses.get(remedy, 0) + 1
        match remedy:
            case "revival":
                return self._revive(self._learned(parts))
            case "restart":
                return self._restart(self._learned(parts), step)
            case "learning rate":
                self.lr_factor *= 0.2
                self._restart(self._learned(parts), step)
                return (
                    f"the learning rate is now {self.lr_factor:g} of its schedule, and the codes "
                    "are set anew"
                )
            case "commitment":
                self.factors["commitment"] *= 0.3
                return (
                    f"the weight of commitment is now {self.factors['commitment']:g} of "
                    "losses.commitment"
                )
            case _:
                self.factors["entropy"] *= 3.0
                return f"the weight of entropy is now {self.factors['entropy']:g} of losses.entropy"

    def rest(self) -> None:
        """The problem is over: the next one begins with the mildest remedy again.

        What was changed stays.
        """
        self.tried = []
        self.exhausted = False

    def state(self) -> dict[str, Any]:
        """Plain values that `restore` takes."""
        parts = {}
        for index, part in enumerate(self.parts):
            if isinstance(part, VectorQuantizer):
                parts[index] = [part.revive_threshold, part.kmeans_iterations]
        return {
            "factors": self.factors,
            "lr_factor": self.lr_factor,
            "restarted_at": self.restarted_at,
            "exhausted": self.exhausted,
            "uses": self.uses,
            "tried": self.tried,
            "parts": parts,
        }

    def restore(self, values: dict[str, Any]) -> None:
        values = dict(values)
        for index, (threshold, iterations) in values.pop("parts").items():
            # Keys of JSON are text.
            part = self.parts[int(index)]
            assert isinstance(part, VectorQuantizer)
            part.revive_threshold = threshold
            part.kmeans_iterations = iterations
        for name, value in values.items():
            setattr(self, name, value)

    def _fits(self, name: str, parts: Sequence[int], progress: float) -> bool:
        learned = self._learned(parts)
        if self.uses.get(name, 0) >= MAX_USES or progress > LATE and name != "revival":
            return False
        match name:
            case "revival":
                return any(part.revive_threshold < 0.5 for part in learned)
            case "restart":
                return bool(learned)
            case "learning rate":
                # Only when new codes did not hold, which tells that the encoder runs from them.
                return self.uses.get("restart", 0) > 0 or not parts
            case "entropy":
                return any("entropy" in part.default_weights for part in self.parts)
            case _:
                return any("commitment" in part.default_weights for part in self.parts)

    def _learned(self, parts: Sequence[int]) -> list[VectorQuantizer]:
        """Those that can be revived and restarted.

        A map of codes (neighbourhood) cannot: its order would be lost.
        """
        learned = []
        for index in parts:
            part = self.parts[index]
            if isinstance(part, VectorQuantizer) and not part.config.neighbourhood:
                learned.append(part)
        return learned

    def _revive(self, parts: Sequence[VectorQuantizer]) -> str:
        for part in parts:
            part.revive_threshold = min(max(0.1, 2 * part.revive_threshold), 0.5)
        highest = max(part.revive_threshold for part in parts)
        return f"codes that win less than {highest:.0%} of an equal share jump towards latents"

    def _restart(self, parts: Sequence[VectorQuantizer], step: int) -> str:
        for part in parts:
            part.restart()
        self.restarted_at = step
        return "the codes are set anew by k-means on the next batch"
