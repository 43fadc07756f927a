"""Entropy-constrained scalar quantisation: every channel rounded to a multiple of one step."""

from __future__ import annotations

import torch
from torch import Tensor

from ...config.quantizers import ScalarConfig
from .base import PADDING, Lattice, Quantizer, TokensQuantized, all_reduce_sum, to_tokens
from .estimators import straight_through
from .results import terms_of

# Share of all tokens that every code is believed to have had, so that each has a finite cost.
FLOOR = 1e-5
# How slowly the counts of codes follow the batches, once the first ones are over.
DECAY = 0.98


class ScalarQuantizer(Quantizer):
    """Rounds every channel to a multiple of `step`; a position has one code a channel.

        code = round(token / step) + (levels - 1) / 2

    The term `rate` is what the codes of a position cost, in bits: -log2 of how often each channel
    takes its codes, by a moving average. Between two codes the cost is a line, whose slope pulls a
    token towards the cheaper one (with uniform noise in place of the line: Balle et al. 2017, arXiv
    1611.01704, section 3). With `rate` a token takes, of the two codes around it, that of least
    squared distance + rate * step^2 * bits: entropy-constrained scalar quantisation (Sullivan
    1996). Tokens beyond the outermost codes belong to these.

    In a residual row every stage has a third of the step of the one before, so that its codes
    divide the cells of that one in three.

    Buffers:
        ema_count (C, levels): moving average of the share of tokens that each code wins.
        updates (): int64, training steps.
    """

    default_weights = {"rate": 0.01}
    fits_any_scale = True
    has_usage = False
    refinement = 1 / 3

    ema_count: Tensor
    updates: Tensor

    def __init__(self, config: ScalarConfig) -> None:
        sizes = [config.levels] * config.channels
        super().__init__(config.channels, sizes, config.latent_dim)
        self.config = config
        self.middle = (config.levels - 1) // 2
        codes = torch.arange(config.levels) - self.middle
        # Peaked at zero and heavy at both ends, as coefficients of images are.
        start = 1 / (1 + codes.abs().float()) ** 2
        self.register_buffer("ema_count", (start / start.sum()).repeat(config.channels, 1))
        self.register_buffer("updates", torch.tensor(0))
        # In a plain list, as they have nothing of their own that a state would hold.
        self._channels = [ScalarChannel(config) for _ in range(config.channels)]

    def parts(self) -> list[Quantizer]:
        return list(self._channels)

    @property
    def codebooks_per_section(self) -> int:
        return self.config.channels

    def lattice(self, num_sections: int) -> Lattice | None:
        return Lattice(self.config.step, self.middle)

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        costs = self._costs()
        places, below = self._places(tokens)
        codes = self._nearest(places.detach(), below, costs, self.config.rate)
        values = straight_through(tokens, self._values(codes))
        terms = terms_of(
            lambda: {"rate": self._bits(places, below, costs).sum(1).mean()},
            at_once=self.training,
            device=tokens.device,
        )
        if self.training:
            self._update(codes)
        return TokensQuantized(values, codes, terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return self._nearest(*self._places(tokens), self._costs(), self.config.rate)

    def assign_at(self, tokens: Tensor, num_sections: int, rate: float) -> Tensor:
        return self._nearest(*self._places(tokens), self._costs(), rate)

    def bits(self, codes: Tensor) -> Tensor:
        """By how often training had each code; codes of -1 cost nothing."""
        tokens = to_tokens(codes)
        costs = _look_up(self._costs(), tokens.clamp(min=0)).where(tokens != PADDING, 0.0)
        return costs.reshape(len(codes), -1).double().sum(1).cpu()

    def lookup(self, codes: Tensor) -> Tensor:
        return self._values(codes)

    def _values(self, codes: Tensor) -> Tensor:
        return values_of(self.config, codes)

    def _costs(self) -> Tensor:
        """Bits of every code of every channel (C, levels)."""
        return -torch.log2(self.ema_count + FLOOR)

    def _places(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, C) in steps from the first code on, within the codes, and the code below
        each.
        """
        last = self.config.levels - 1
        places = (tokens / self.config.step + self.middle).clamp(0, last)
        return places, places.detach().floor().clamp(max=last - 1).long()

    def _nearest(self, places: Tensor, below: Tensor, costs: Tensor, rate: float) -> Tensor:
        """The code below a token or the one above (N, C)."""
        far = places - below
        if not rate:
            return below + (far > 0.5).long()
        lower = far.square() + rate * _look_up(costs, below)
        upper = (1 - far).square() + rate * _look_up(costs, below + 1)
        return below + (upper < lower).long()

    def _bits(self, places: Tensor, below: Tensor, costs: Tensor) -> Tensor:
        """What tokens cost (N, C), on the line between the costs of the codes around them."""
        lower = _look_up(costs, below)
        return torch.lerp(lower, _look_up(costs, below + 1), places - below)

    @torch.no_grad()
    def _update(self, codes: Tensor) -> None:
        """One step of the moving average, the same on every rank."""
        levels = self.config.levels
        rows = torch.arange(codes.shape[1], device=codes.device) * levels
        counts = torch.bincount((codes + rows).flatten(), minlength=self.ema_count.numel())
        counts = all_reduce_sum(counts.view_as(self.ema_count).float())
        decay = ((1 + self.updates) / (10 + self.updates)).clamp(max=DECAY)
        self.updates += 1
        self.ema_count.lerp_(counts / counts[0].sum(), 1.0 - decay)


class ScalarChannel(Quantizer):
    """One channel of a `ScalarQuantizer` by itself, for whoever looks at codebooks one by one."""

    has_usage = False
    fits_any_scale = True

    def __init__(self, config: ScalarConfig) -> None:
        super().__init__(1, [config.levels])
        self.config = config

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        codes = self.assign(tokens)
        return TokensQuantized(straight_through(tokens, self.lookup(codes)), codes, {})

    def assign(self, tokens: Tensor) -> Tensor:
        half = (self.config.levels - 1) // 2
        return ((tokens / self.config.step).round().clamp(-half, half) + half).long()

    def lookup(self, codes: Tensor) -> Tensor:
        return values_of(self.config, codes)


def values_of(config: ScalarConfig, codes: Tensor) -> Tensor:
    """What codes stand for: multiples of the step, zero for the one in the middle."""
    return (codes - (config.levels - 1) // 2).float() * config.step


def _look_up(costs: Tensor, codes: Tensor) -> Tensor:
    """Costs (C, K) of codes (N, C) -> (N, C)."""
    rows = torch.arange(codes.shape[1], device=codes.device) * costs.shape[1]
    return costs.flatten()[codes + rows]
