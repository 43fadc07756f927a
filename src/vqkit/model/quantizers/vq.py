"""Vector quantisation with a learned codebook."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import VQConfig
from .base import Quantizer, TokensQuantized, all_reduce_sum
from .estimators import gumbel, rotation, straight_through
from .search import code_sums, kmeans, nearest, sample_tokens

FINAL_RADIUS = 0.4
"""of a neighbourhood, in cells: the next cell still gets 4 % of the pull, which keeps the order and every code alive"""
RESTART_ITERATIONS = 10
"""Lloyd steps of a restart, at least"""


class VectorQuantizer(Quantizer):
    """The nearest code of a learned codebook (van den Oord et al. 2017, arXiv 1711.00937, equations 1 to 3).

    Codes learn by moving averages of the tokens they win (appendix A.1 there) or by the term `codebook`,
    |sg(token) - code|^2; the term `commitment` is |token - sg(code)|^2. Both are means over tokens and channels.
    The first training batch sets the codes (k-means), never one in eval mode. With a neighbourhood the moving averages
    spread over a 2-D map of the codes (Kohonen 1982): code k lies in row k // columns, column k % columns. With a rate
    a token takes the code with the least distance + rate * mean distance * bits, by how often codes are taken:
    entropy-constrained vector quantisation (Chou, Lookabaugh and Gray 1989), whose codes lie where tokens are few too.

    Attributes:
        revive_threshold, kmeans_iterations: begin as set, and may be changed while training.

    Buffers:
        codebook (K, d): the codes (a Parameter with update='gradient').
        ema_count (K,): moving average of the tokens that each code wins per step, over all ranks.
        ema_sum (K, d): moving average of the sum of those tokens; only with update='ema'.
        ema_distance (): moving average of the squared distance of a token to its code; only with a rate.
        updates (): int64, training batches seen since the codes were set; zero = the next one sets them.
    """

    default_weights = {"commitment": 0.25, "codebook": 1.0}

    codebook: Tensor
    ema_count: Tensor
    ema_sum: Tensor
    ema_distance: Tensor
    updates: Tensor

    def __init__(self, config: VQConfig) -> None:
        if config.neighbourhood and config.update != "ema":
            raise ValueError("a neighbourhood works on moving averages: set update=ema")
        if config.rate and config.estimator == "gumbel":
            raise ValueError("gumbel draws codes by their distance alone: set rate=0, or another estimator")
        super().__init__(config.code_dim, [config.codebook_size], config.latent_dim)
        self.fits_any_scale = config.distance == "euclidean"
        self.config = config
        self.revive_threshold, self.kmeans_iterations = config.revive_threshold, config.kmeans_iterations
        codebook = torch.randn(config.codebook_size, config.code_dim)
        if config.update == "gradient":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("ema_sum", codebook.clone())
        self.register_buffer("ema_count", torch.ones(config.codebook_size))
        if config.rate:
            self.register_buffer("ema_distance", torch.tensor(0.0))
        self.register_buffer("updates", torch.tensor(0))
        self._may_be_new = True  # the counter is asked only until it has once been found above zero

    def bound(self, tokens: Tensor) -> Tensor:
        return F.normalize(tokens, dim=1) if self.config.distance == "cosine" else tokens

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        if self.training:
            self._set_once(tokens.detach(), generator)
        codebook = self.codes()
        if self.training and self.config.estimator == "gumbel":
            values, codes = gumbel(tokens, codebook, self.temperature, generator)
            picked = codebook.index_select(0, codes)
        else:
            codes = nearest(tokens.detach(), codebook.detach(), self._costs())
            picked = codebook.index_select(0, codes)
            values = (
                rotation(tokens, picked) if self.config.estimator == "rotation" else straight_through(tokens, picked)
            )
        terms = {"commitment": F.mse_loss(tokens, picked.detach())}
        if self.config.update == "gradient":
            terms["codebook"] = F.mse_loss(picked, tokens.detach())
        if self.training:
            self._update(tokens.detach(), codes, generator)
        return TokensQuantized(values, codes[:, None], terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return nearest(tokens, self.codes(), self._costs())[:, None]

    def lookup(self, codes: Tensor) -> Tensor:
        return self.codes().index_select(0, codes[:, 0])

    def codes(self) -> Tensor:
        """The codebook as it is compared and looked up (K, d)."""
        return F.normalize(self.codebook, dim=1) if self.config.distance == "cosine" else self.codebook

    def _costs(self) -> Tensor | float:
        """What the bits of each code add to its distance (K,)."""
        if not self.config.rate:
            return 0.0
        share = self.ema_count.clamp(min=1e-6) / self.ema_count.sum()
        return -self.config.rate * self.ema_distance * share.log2()

    def restart(self) -> None:
        """Set the codes anew from the next training batch, by k-means even where they began at random."""
        self.kmeans_iterations = max(self.kmeans_iterations, RESTART_ITERATIONS)
        self.updates.zero_()
        self._may_be_new = True

    @property
    def temperature(self) -> float:
        """Of gumbel now: an exponential fall from `temperature` to `final_temperature`."""
        done = min(1.0, int(self.updates) / self.config.temperature_steps)
        return self.config.temperature ** (1 - done) * self.config.final_temperature**done

    # ------------------------------------------------------------------------------------------------- how codes learn

    @torch.no_grad()
    def _set_once(self, tokens: Tensor, generator: torch.Generator | None) -> None:
        if not self._may_be_new:
            return
        self._may_be_new = False
        if self.updates:
            return
        if self.kmeans_iterations and not self.config.neighbourhood:
            self.codebook.copy_(kmeans(tokens, self.codebook_size, self.kmeans_iterations, generator))
        elif self.config.neighbourhood:  # a map unfolds from one place
            sums = torch.stack([torch.ones_like(tokens), tokens, tokens.square()]).sum(1)
            count, total, squares = all_reduce_sum(sums)
            mean = total / count
            self.codebook.copy_(mean + 0.1 * (squares / count - mean.square()).clamp(min=0).sqrt() * self.codebook)
        counts, _ = code_sums(tokens, nearest(tokens, self.codes()), self.codebook_size)
        self.ema_count.fill_(1.0).mul_(counts.sum() / self.codebook_size)  # every code starts as alive as any other
        if self.config.update == "ema":
            self.ema_sum.copy_(self.codebook * self.ema_count[:, None])

    @torch.no_grad()
    def _update(self, tokens: Tensor, codes: Tensor, generator: torch.Generator | None) -> None:
        """One step of the moving averages, the same on every rank, then the revival of dead codes."""
        counts, sums = code_sums(tokens, codes, self.codebook_size)
        uniform = counts.sum() / self.codebook_size
        if self.config.neighbourhood:
            counts, sums = self._spread(counts[:, None])[:, 0], self._spread(sums)
        # A short memory at first: the encoder changes fast then, and codes that it leaves behind must show as dead.
        decay = ((1 + self.updates) / (10 + self.updates)).clamp(max=self.config.decay)
        self.updates += 1
        if self.config.rate:
            apart = (tokens - self.codes().index_select(0, codes)).square().sum()
            self.ema_distance.lerp_(all_reduce_sum(apart) / (uniform * self.codebook_size), 1.0 - decay)
        self.ema_count.lerp_(counts, 1.0 - decay)
        if self.config.update == "ema":
            self.ema_sum.lerp_(sums, 1.0 - decay)
            self.codebook.copy_(self.ema_sum / self.ema_count.clamp(min=1e-6)[:, None])
        if self.revive_threshold and not self.config.neighbourhood:
            self._revive(self.ema_count < self.revive_threshold * uniform, uniform, tokens, generator)

    def _revive(self, dead: Tensor, uniform: Tensor, tokens: Tensor, generator: torch.Generator | None) -> None:
        """Dead codes jump to random tokens of the batch, and their averages with them: else they die again at once.

        No two jump to the same token: where there are more of them than tokens, the rest waits for the next batch.
        """
        if not torch.compiler.is_compiling() and not dead.any():
            return
        fresh = sample_tokens(tokens, self.codebook_size, generator, distinct=True)
        place = dead.cumsum(0) - 1
        revived = dead & (place < len(fresh))
        fresh = fresh[place.clamp(0, len(fresh) - 1)]
        self.codebook.copy_(torch.where(revived[:, None], fresh, self.codebook))
        self.ema_count.copy_(torch.where(revived, uniform, self.ema_count))
        if self.config.update == "ema":
            self.ema_sum.copy_(torch.where(revived[:, None], fresh * uniform, self.ema_sum))

    def _spread(self, values: Tensor) -> Tensor:
        """Values of codes (K, n), each given to its neighbours on the map too, with weight exp(-distance^2 / 2 r^2)."""
        radius = self.neighbourhood_radius
        rows = map_rows(self.codebook_size)
        for axis, size in ((0, rows), (1, self.codebook_size // rows)):
            place = torch.arange(size, device=values.device)
            pull = torch.exp(-((place[:, None] - place).square()) / (2 * radius**2))
            values = torch.tensordot(pull, values.view(rows, -1, values.shape[-1]), dims=([1], [axis]))
            values = (values if axis == 0 else values.transpose(0, 1)).reshape(self.codebook_size, -1)
        return values

    @property
    def neighbourhood_radius(self) -> float:
        """In cells of the map now: an exponential fall to less than one."""
        done = min(1.0, int(self.updates) / self.config.neighbourhood_steps)
        return max(self.config.neighbourhood, FINAL_RADIUS) ** (1 - done) * FINAL_RADIUS**done


def map_rows(codebook_size: int) -> int:
    """Rows of the most nearly square map of K cells."""
    return next(rows for rows in range(math.isqrt(codebook_size), 0, -1) if codebook_size % rows == 0)
