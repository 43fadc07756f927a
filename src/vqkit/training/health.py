"""Guards that watch a run: divergence stops it, falling use of the codebook is said at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import TrainingDiverged
from ..metrics import code_counts, perplexity, usage

TOKENS_PER_CODE = 20
"""a window must hold this many tokens for each code before its usage means anything"""


def check_finite(step: int, values: Mapping[str, float]) -> None:
    """TrainingDiverged naming the step and the first value that is not finite, if there is one."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"training diverged at step {step}: {name} is {value}; the last checkpoint is from before. "
                "Try a lower train.lr, or train.clip_norm=1"
            )


class CodeMonitor:
    """Usage and perplexity of the codes over windows of training, and a warning when usage falls.

    `update` takes codes (B, Q, *grid) of every step; `read` closes the window once it holds enough tokens.
    """

    def __init__(self, num_codebooks: int, codebook_size: int, device: torch.device) -> None:
        self.counts = torch.zeros(num_codebooks, codebook_size, dtype=torch.long, device=device)
        self.needed = TOKENS_PER_CODE * codebook_size
        self.seen = 0
        self.best = 0.0
        self.latest: dict[str, float] = {}

    def update(self, codes: Tensor) -> None:
        self.counts += code_counts(codes, self.counts.shape[1])
        self.seen += codes.numel() // codes.shape[1]

    def read(self) -> tuple[dict[str, float], str | None]:
        """Figures of the last full window, and a warning if one is due."""
        if self.seen < self.needed:
            return self.latest, None
        self.latest = {"usage": usage(self.counts), "perplexity": perplexity(self.counts)}
        self.counts.zero_()
        self.seen = 0
        return self.latest, self._warning(self.latest["usage"])

    def _warning(self, now: float) -> str | None:
        fell_from, self.best = self.best, max(self.best, now)
        if now < 0.8 * fell_from:
            self.best = now  # warn again only when it falls further
            return (
                f"usage of the codebook fell from {fell_from:.0%} to {now:.0%}: codes are dying. "
                "Raise model.quantizer.revive_threshold or lower train.lr"
            )
        return None
