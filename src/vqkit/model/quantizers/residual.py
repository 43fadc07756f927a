"""Residual quantisation: several quantizers in a row, over any family."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import Quantizer, TokensQuantized, all_reduce_sum
from .estimators import straight_through

SCALE_DECAY = 0.99


class ResidualQuantizer(Quantizer):
    """Each stage quantises what the stages before left over (Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1).

        r_1 = token      r_(s+1) = r_s - sg(q_s)      value = sum of q_s, straight through to the token

    Residuals keep their gradient to the token, so that every stage's commitment has one; terms are means over stages. A
    family with codes of a fixed size sees residuals divided by their scale relative to the first stage's.
    A code of -1 from some stage on stands for a shorter description: `lookup` leaves those stages out.

    Buffers:
        scales (S,): root mean square of each stage's residual over that of the token; ones where codes fit any scale.
        measured (): bool, whether they come from data yet.
    """

    scales: Tensor
    measured: Tensor

    def __init__(
        self, stages: Sequence[Quantizer], num_stages: int, latent_dim: int | None = None, dropout: float = 0.0
    ) -> None:
        """`stages`: one for each of num_stages, or a single one that all share."""
        sizes = [size for index in range(num_stages) for size in stages[index % len(stages)].codebook_sizes]
        super().__init__(stages[0].code_dim, sizes, latent_dim)
        self.stages = nn.ModuleList(stages)
        self.num_stages, self.dropout = num_stages, dropout
        self.default_weights = stages[0].default_weights
        self.fits_any_scale = stages[0].fits_any_scale
        self.register_buffer("scales", torch.ones(num_stages))
        self.register_buffer("measured", torch.tensor(self.fits_any_scale))

    def parts(self) -> list[Quantizer]:
        return [part for index in range(self.num_stages) for part in self._stage(index).parts()]

    def bound(self, tokens: Tensor) -> Tensor:
        return self._stage(0).bound(tokens)

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        total, codes, terms = torch.zeros_like(tokens), [], []
        sizes = []  # mean squares of the residuals
        for index in range(self._depth(generator, tokens.device)):
            residual = tokens - total
            sizes.append(residual.detach().square().sum())
            if self.training and not self.measured:
                self._measure(sizes, 0.0)
            scale = self.scales[index].clone()  # the buffer moves on before gradients need it
            result = self._stage(index).quantize(residual / scale, generator)
            total = total + result.values.detach() * scale
            codes.append(result.codes)
            terms.append(result.terms)
        if self.training and not self.fits_any_scale:
            self._measure(sizes, SCALE_DECAY)
            self.measured.fill_(len(sizes) == self.num_stages or bool(self.measured))
        missing = tokens.new_full((len(tokens), self.num_codebooks - sum(c.shape[1] for c in codes)), -1)
        found = torch.cat([*codes, missing.long()], 1)
        means = {name: torch.stack([term[name] for term in terms]).mean() for name in terms[0]}
        return TokensQuantized(straight_through(tokens, total), found, means)

    def assign(self, tokens: Tensor) -> Tensor:
        total, codes = torch.zeros_like(tokens), []
        for index in range(self.num_stages):
            codes.append(self._stage(index).assign((tokens - total) / self.scales[index]))
            total = total + self._stage(index).lookup(codes[-1]) * self.scales[index]
        return torch.cat(codes, 1)

    def lookup(self, codes: Tensor) -> Tensor:
        total = codes.new_zeros(len(codes), self.code_dim, dtype=torch.float32)
        for index, part in enumerate(codes.chunk(self.num_stages, 1)):
            values = self._stage(index).lookup(part.clamp(min=0)) * self.scales[index]
            total = total + values.where(part[:, :1] >= 0, 0.0)
        return total

    def distances(self, tokens: Tensor, codes: Tensor) -> Tensor:
        done = codes.shape[1]
        left = tokens - self.lookup(torch.cat([codes, codes.new_full((len(codes), self.num_stages - done), -1)], 1))
        scale = self.scales[done]
        return self._stage(done).distances(left / scale, codes[:, :0]) * scale.square()

    def _stage(self, index: int) -> Quantizer:
        return self.stages[index % len(self.stages)]  # type: ignore[return-value]

    def _depth(self, generator: torch.Generator | None, device: torch.device) -> int:
        """Stages of this batch: all, or in a share of the training batches a random number, the same on every rank."""
        if not self.training or self.dropout == 0.0:
            return self.num_stages
        drawn = torch.rand(2, generator=generator, device=device).tolist()
        return 1 + int(drawn[1] * self.num_stages) if drawn[0] < self.dropout else self.num_stages

    @torch.no_grad()
    def _measure(self, sizes: list[Tensor], decay: float) -> None:
        """Follow the scales of the stages that ran; with decay 0 take them from this batch alone."""
        found = all_reduce_sum(torch.stack(sizes))
        ratios = (found / found[0].clamp(min=1e-12)).sqrt().clamp(min=1e-4)
        self.scales[: len(sizes)].lerp_(ratios, 1.0 - decay)
