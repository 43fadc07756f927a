"""What quantizers in a row share, each of which has what those before it left over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Quantizer

# How slowly the measured scales of the stages follow the batches.
SCALE_DECAY = 0.99


class StagesMixin(nn.Module):
    """Stages that all batches use, or with dropout sometimes the first of them alone, and the
    scales of what each of them gets.

    Attributes:
        dropout: share of the training batches that use only a random number of the first stages.
        fits_any_scale: whether codes grow with what they quantise, so that no scale is needed.

    Buffers:
        scales (S,): root mean square of each stage's residual over that of the token; as they
            began where codes fit any scale.
        measured (): bool, whether `scales` come from data yet.
    """

    scales: Tensor
    measured: Tensor
    fits_any_scale: bool

    def _set_stages(
        self, stages: list[Quantizer], num_stages: int, dropout: float, scales: Tensor
    ) -> None:
        """stages: one for each of num_stages, or a single one that all share. scales (S,): the
        first ones.
        """
        self.stages = nn.ModuleList(stages)
        self.num_stages = num_stages
        self.dropout = dropout
        self.default_weights = stages[0].default_weights
        self.fits_any_scale = stages[0].fits_any_scale
        self.register_buffer("scales", scales)
        self.register_buffer("measured", torch.tensor(self.fits_any_scale, device=scales.device))
        # The buffer is asked only until it has once been set: on a GPU asking means waiting, and a
        # break in the graph.
        self._may_be_unmeasured = not self.fits_any_scale

    def _stage(self, index: int) -> Quantizer:
        return self.stages[index % len(self.stages)]  # type: ignore[return-value]

    def _depth(self, generator: torch.Generator | None, device: torch.device) -> int:
        """Stages of this batch: all of them, or with dropout sometimes a random number, equal on
        all ranks.

        Also in eval mode where there is a generator: a decoder that learns beside frozen codes is
        to know coarse ones too.
        """
        is_measured = not self.training and generator is None
        if is_measured or self.dropout == 0.0:
            return self.num_stages
        is_dropped, share = torch.rand(2, generator=generator, device=device).tolist()
        if is_dropped >= self.dropout:
            return self.num_stages
        return 1 + int(share * self.num_stages)

    @torch.no_grad()
    def _follow(self, ratios: Tensor, decay: float) -> None:
        """Let the scales of the stages that ran follow what this batch has (S',): mean squares of
        their residuals over that of the tokens. With decay 0 take them from it alone.
        """
        self.scales[: len(ratios)].lerp_(ratios.sqrt().clamp(min=1e-4), 1.0 - decay)

    def _is_unmeasured(self) -> bool:
        """Whether no batch went through all stages yet."""
        self._may_be_unmeasured = self._may_be_unmeasured and not bool(self.measured)
        return self._may_be_unmeasured

    def _mark_measured(self, num_stages: int) -> None:
        """The first so many stages ran: from all of them on, scales come from data."""
        if num_stages == self.num_stages:
            self.measured.fill_(True)
            self._may_be_unmeasured = False
