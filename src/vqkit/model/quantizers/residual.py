"""Residual quantisation: several quantizers in a row, over any family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .base import PADDING, Lattice, Quantizer, TokensQuantized, all_reduce_sum
from .estimators import straight_through
from .results import terms_of
from .stages import SCALE_DECAY, StagesMixin


class ResidualQuantizer(StagesMixin, Quantizer):
    """Each stage quantises what the stages before it left over (Zeghidour et al. 2021, arXiv
    2107.03312, algorithm 1).

        r_1 = token      r_(s+1) = r_s - sg(q_s)      value = sum of q_s

    The gradient of the value passes as it passes the first stage: unchanged, rotated or relaxed, as
    that stage's estimator has it; later stages only correct the value. Residuals keep their
    gradient to the token, so that every stage's commitment has one; terms are means over stages.
    Stages whose codes have a fixed size get residuals divided by the residuals' scale relative to
    the first.

    Codes of -1 from some stage on are a shorter description: `lookup` leaves those stages out.
    """

    def __init__(
        self,
        stages: Sequence[Quantizer],
        num_stages: int,
        latent_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        """`stages`: one for each of num_stages, or a single one that all share.

        dropout: share of the training batches that use only a random number of the first stages.
        """
        sizes: list[int] = []
        for index in range(num_stages):
            sizes += stages[index % len(stages)].codebook_sizes
        super().__init__(stages[0].code_dim, sizes, latent_dim)
        self.is_straight_through = stages[0].is_straight_through
        scales = stages[0].refinement ** torch.arange(num_stages)
        self._set_stages(list(stages), num_stages, dropout, scales)

    @property
    def codebooks_per_section(self) -> int:
        return self._stage(0).codebooks_per_section

    @property
    def prefixes(self) -> tuple[int, ...]:
        per_stage = self.num_codebooks // self.num_stages
        return tuple(per_stage * (number + 1) for number in range(self.num_stages))

    def parts(self) -> list[Quantizer]:
        parts: list[Quantizer] = []
        for index in range(self.num_stages):
            parts += self._stage(index).parts()
        return parts

    def lattice(self, num_sections: int) -> Lattice | None:
        first = self._stage(0).lattice(1)
        if first is None:
            return None
        # Every stage divides the steps of the one before into as many.
        parts = round(1 / self._stage(0).refinement) ** (num_sections - 1)
        return Lattice(first.step / parts, first.limit * parts)

    def bound(self, tokens: Tensor) -> Tensor:
        return self._stage(0).bound(tokens)

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        total = torch.zeros_like(tokens)
        # What carries the gradient of the value: the tokens, or the first stage's value of them.
        carrier = tokens
        codes: list[Tensor] = []
        terms: list[Mapping[str, Tensor]] = []
        square_sums: list[Tensor] = []
        for index in range(self._depth(generator, tokens.device)):
            residual = tokens - total
            square_sums.append(residual.detach().square().sum())
            if self.training and self._is_unmeasured():
                self._measure(square_sums, 0.0)
            # A copy, because the buffer moves on before the backward pass needs it.
            scale = self.scales[index].clone()
            result = self._stage(index).quantize(residual / scale, generator)
            if index == 0 and not self.is_straight_through:
                carrier = result.values * scale
            total = total + result.values.detach() * scale
            codes.append(result.codes)
            terms.append(result.terms)
        if self.training and not self.fits_any_scale:
            self._measure(square_sums, SCALE_DECAY)
            self._mark_measured(len(square_sums))
        num_missing = self.num_codebooks - sum(part.shape[1] for part in codes)
        missing = codes[0].new_full((tokens.shape[0], num_missing), PADDING)
        joined = terms_of(lambda: _joined(terms), self.training, tokens.device)
        values = straight_through(carrier, total)
        return TokensQuantized(values, torch.cat([*codes, missing], 1), joined)

    def assign(self, tokens: Tensor) -> Tensor:
        total = torch.zeros_like(tokens)
        codes: list[Tensor] = []
        for index in range(self.num_stages):
            stage = self._stage(index)
            codes.append(stage.assign((tokens - total) / self.scales[index]))
            total = total + stage.lookup(codes[-1]) * self.scales[index]
        return torch.cat(codes, 1)

    def assign_at(self, tokens: Tensor, num_sections: int, rate: float) -> Tensor:
        total = torch.zeros_like(tokens)
        codes: list[Tensor] = []
        for index in range(num_sections):
            stage = self._stage(index)
            residual = (tokens - total) / self.scales[index]
            is_last = index == num_sections - 1
            codes.append(stage.assign_at(residual, 1, rate) if is_last else stage.assign(residual))
            total = total + stage.lookup(codes[-1]) * self.scales[index]
        return torch.cat(codes, 1)

    def bits(self, codes: Tensor) -> Tensor:
        parts = codes.chunk(self.num_stages, 1)
        return torch.stack([self._stage(n).bits(part) for n, part in enumerate(parts)]).sum(0)

    def lookup(self, codes: Tensor) -> Tensor:
        total = codes.new_zeros(codes.shape[0], self.code_dim, dtype=torch.float32)
        for index, part in enumerate(codes.chunk(self.num_stages, 1)):
            values = self._stage(index).lookup(part.clamp(min=0)) * self.scales[index]
            total = total + values.where(part[:, :1] != PADDING, 0.0)
        return total

    def left_out(self, codes: Tensor) -> Tensor:
        """All codes of a stage and of every later one are -1.

        The first stage cannot be left out.
        """
        missing = (codes == PADDING).unflatten(1, (self.num_stages, -1)).all(2)
        tail = missing.flip(1).cumprod(1).flip(1).bool()
        tail[:, 0] = False
        return tail.repeat_interleave(codes.shape[1] // self.num_stages, 1)

    def distances(self, tokens: Tensor, codes: Tensor) -> Tensor:
        done = codes.shape[1]
        later = codes.new_full((len(codes), self.num_stages - done), PADDING)
        residual = tokens - self.lookup(torch.cat([codes, later], 1))
        scale = self.scales[done]
        return self._stage(done).distances(residual / scale, codes[:, :0]) * scale.square()

    @torch.no_grad()
    def _measure(self, square_sums: list[Tensor], decay: float) -> None:
        """Let the scales of the stages that ran follow this batch.

        With decay 0 take them from it alone.
        """
        found = all_reduce_sum(torch.stack(square_sums))
        self._follow(found / found[0].clamp(min=1e-12), decay)


def _joined(terms: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The terms of all stages as one: bits add up, of the other terms stages share one weight."""
    joined = {}
    for name in terms[0]:
        each = torch.stack([term[name] for term in terms])
        joined[name] = each.sum() if name == "rate" else each.mean()
    return joined
