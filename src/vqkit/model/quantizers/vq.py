"""Vector quantisation with a learned codebook."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config.quantizers import FINAL_RADIUS, VQConfig
from .base import Quantizer, TokensQuantized, all_reduce_sum, may_ask
from .estimators import gumbel, rotation, straight_through
from .search import code_sums, kmeans, nearest, sample_tokens

# A restart runs at least so many Lloyd steps.
RESTART_ITERATIONS = 10
# A moving average of wins below this is no longer divided by: the code keeps its place.
MIN_COUNT = 1e-6


class VectorQuantizer(Quantizer):
    """The nearest code of a learned codebook (van den Oord et al. 2017, arXiv 1711.00937, equations
    1 to 3).

    Codes learn from moving averages of the tokens that they win (appendix A.1 of the paper), or
    from the term `codebook`, |sg(token) - code|^2. The term `commitment` is |token - sg(code)|^2.
    Both terms are means over tokens and channels. A training-mode forward pass is one step of the
    moving averages and of all schedules. The first one sets the codes (k-means); eval mode never
    does. A code that wins no tokens stays where it is until it is revived.

    With `neighbourhood` the averages spread over a 2-D map of the codes (Kohonen 1982); code k lies
    in row k // columns, column k % columns.

    With `rate` a token takes the code of least distance + rate * mean distance * bits, where the
    bits follow from how often codes are taken: entropy-constrained vector quantisation (Chou,
    Lookabaugh and Gray 1989), whose codes also lie where tokens are few.

    Attributes:
        revive_threshold, kmeans_iterations: begin as configured, may be changed while training.

    Buffers:
        codebook (K, d): the codes (a Parameter with update='gradient').
        ema_count (K,): moving average of the tokens that each code wins per step, over all ranks.
        ema_sum (K, d): moving average of the sum of those tokens; only with update='ema'.
        ema_distance (): moving average of the squared distance of a token to its code; only with a
            rate.
        updates (): int64, training steps since the codes were set; zero = the next one sets them.
    """

    default_weights = {"commitment": 0.25, "codebook": 1.0}

    codebook: Tensor
    ema_count: Tensor
    ema_sum: Tensor
    ema_distance: Tensor
    updates: Tensor

    def __init__(self, config: VQConfig) -> None:
        super().__init__(config.code_dim, [config.codebook_size], config.latent_dim)
        self.fits_any_scale = config.distance == "euclidean"
        self.is_straight_through = config.estimator == "straight_through"
        self.config = config
        self.revive_threshold = config.revive_threshold
        self.kmeans_iterations = config.kmeans_iterations
        codebook = torch.randn(config.codebook_size, config.code_dim)
        self.sets_parameters = config.update == "gradient"
        if self.sets_parameters:
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("ema_sum", codebook.clone())
        self.register_buffer("ema_count", torch.ones(config.codebook_size))
        if config.rate:
            self.register_buffer("ema_distance", torch.tensor(0.0))
        self.register_buffer("updates", torch.tensor(0))
        # The counter is asked only until it has once been above zero: on a GPU asking means
        # waiting.
        self._may_be_new = True

    def bound(self, tokens: Tensor) -> Tensor:
        return F.normalize(tokens, dim=1) if self.config.distance == "cosine" else tokens

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        if self.training and self._may_be_new:
            self._set_once(tokens.detach(), generator)
        codebook = self.codebook
        if self.training and self.config.update == "gradient":
            # Dead codes are replaced in place, before the gradients of this step are computed.
            codebook = codebook.clone()
        codebook = self.bound(codebook)
        if self.training and self.config.estimator == "gumbel":
            values, codes = gumbel(tokens, codebook, self.temperature, generator)
            picked = codebook.index_select(0, codes)
        else:
            estimate = rotation if self.config.estimator == "rotation" else straight_through
            codes = nearest(tokens.detach(), codebook.detach(), self._costs())
            picked = codebook.index_select(0, codes)
            values = estimate(tokens, picked)
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
        return self.bound(self.codebook)

    def _costs(self) -> Tensor | float:
        """What the bits of each code add to its distance (K,)."""
        if not self.config.rate:
            return 0.0
        share = self.ema_count.clamp(min=MIN_COUNT) / self.ema_count.sum()
        return -self.config.rate * self.ema_distance * share.log2()

    def restart(self) -> None:
        """Set the codes again from the next training batch, by k-means even where they began at
        random.
        """
        self.kmeans_iterations = max(self.kmeans_iterations, RESTART_ITERATIONS)
        self.updates.zero_()
        self._may_be_new = True

    @property
    def temperature(self) -> float:
        """Gumbel's temperature now: it falls exponentially from `temperature` to
        `final_temperature`.
        """
        done = min(1.0, int(self.updates) / self.config.temperature_steps)
        return self.config.temperature ** (1 - done) * self.config.final_temperature**done

    # ------------------------------------------------------------------------------ how codes learn

    @torch.no_grad()
    def _set_once(self, tokens: Tensor, generator: torch.Generator | None) -> None:
        """Set the codes from the first training batch."""
        self._may_be_new = False
        if self.updates:
            return
        if self.config.neighbourhood:
            # All codes begin close together, at the centre of the tokens: a map unfolds from one
            # place.
            mean, deviation = _mean_and_deviation(tokens)
            self.codebook.copy_(mean + 0.1 * deviation * self.codebook)
        elif self.kmeans_iterations:
            codes = kmeans(tokens, self.codebook_size, self.kmeans_iterations, generator)
            self.codebook.copy_(codes)
        counts, _ = code_sums(tokens, nearest(tokens, self.codes()), self.codebook_size)
        # Every code starts as much alive as any other.
        self.ema_count.fill_(1.0).mul_(counts.sum() / self.codebook_size)
        if self.config.update == "ema":
            self.ema_sum.copy_(self.codebook * self.ema_count[:, None])

    @torch.no_grad()
    def _update(self, tokens: Tensor, codes: Tensor, generator: torch.Generator | None) -> None:
        """One step of the moving averages, the same on every rank, then the revival of dead
        codes.
        """
        counts, sums = code_sums(tokens, codes, self.codebook_size)
        uniform = counts.sum() / self.codebook_size
        if self.config.neighbourhood:
            counts = self._spread(counts[:, None])[:, 0]
            sums = self._spread(sums)
        # The memory is short at first: the encoder changes fast then, and codes that it leaves
        # behind must show as dead.
        decay = ((1 + self.updates) / (10 + self.updates)).clamp(max=self.config.decay)
        weight = 1.0 - decay
        self.updates.add_(1)
        if self.config.rate:
            apart = (tokens - self.codes().index_select(0, codes)).square().sum()
            num_tokens = uniform * self.codebook_size
            self.ema_distance.lerp_(all_reduce_sum(apart) / num_tokens, weight)
        self.ema_count.lerp_(counts, weight)
        if self.config.update == "ema":
            self.ema_sum.lerp_(sums, weight)
            # Without tokens count and sum shrink together and their quotient stays, until both are
            # too small to be divided.
            means = self.ema_sum / self.ema_count.clamp(min=MIN_COUNT)[:, None]
            if not (may_ask(means) and self.ema_count.min() >= MIN_COUNT):
                is_counted = self.ema_count >= MIN_COUNT
                means = torch.where(is_counted[:, None], means, self.codebook)
            self.codebook.copy_(means)
        if self.revive_threshold and not self.config.neighbourhood:
            dead = self.ema_count < self.revive_threshold * uniform
            self._revive(dead, uniform, tokens, codes, generator)

    def _revive(
        self,
        dead: Tensor,
        uniform: Tensor,
        tokens: Tensor,
        codes: Tensor,
        generator: torch.Generator | None,
    ) -> None:
        """Dead codes (K,) bool jump to random places between random tokens of the batch and the
        codes of these: where there are many channels, a code that lies upon a token is further from
        all others than the code that they have, and wins nothing but that token.

        Their averages are set too, or they would die again at once. No two codes jump towards the
        same token: where there are more dead codes than tokens, the rest waits for the next batch.
        """
        if not torch.compiler.is_compiling() and not dead.any():
            return
        ways = torch.cat([self.codes().index_select(0, codes), tokens], 1)
        sampled = sample_tokens(ways, self.codebook_size, generator, distinct=True)
        start, end = sampled.chunk(2, 1)
        share = torch.rand(len(sampled), 1, generator=generator, device=tokens.device)
        fresh = torch.lerp(start, end, share)
        averages = [(self.ema_count[:, None], uniform.expand(len(fresh), 1))]
        if self.config.update == "ema":
            averages.append((self.ema_sum, fresh * uniform))
        _replace_rows(dead, [(self.codebook, fresh), *averages])

    def _spread(self, values: Tensor) -> Tensor:
        """Values (K, n) of codes, given to their neighbours on the map too with weight
        exp(-distance^2 / 2 r^2).
        """
        radius = self.neighbourhood_radius
        rows = map_rows(self.codebook_size)
        for axis, size in ((0, rows), (1, self.codebook_size // rows)):
            place = torch.arange(size, device=values.device)
            pull = torch.exp(-((place[:, None] - place).square()) / (2 * radius**2))
            on_map = values.view(rows, -1, values.shape[-1])
            values = torch.tensordot(pull, on_map, dims=([1], [axis]))
            if axis == 1:
                values = values.transpose(0, 1)
            values = values.reshape(self.codebook_size, -1)
        return values

    @property
    def neighbourhood_radius(self) -> float:
        """Radius now, in cells of the map: it falls exponentially to less than one."""
        done = min(1.0, int(self.updates) / self.config.neighbourhood_steps)
        return self.config.neighbourhood ** (1 - done) * FINAL_RADIUS**done


def _replace_rows(which: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> None:
    """In pairs of values (K, d) and rows (n, d) values get the rows, one after the other, where
    `which` (K,) is true; where that is in more than n places, in the first n.
    """
    if torch.compiler.is_compiling():
        # In a graph no shape depends on how many they are.
        for values, rows in pairs:
            first = which & (which.cumsum(0) <= len(rows))
            values.masked_scatter_(first[:, None], rows)
        return
    places = which.nonzero()[: len(pairs[0][1]), 0]
    for values, rows in pairs:
        values.index_copy_(0, places, rows[: len(places)])


def _mean_and_deviation(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and standard deviation (d,) of the tokens (N, d) of all ranks."""
    mean, variance = _moments(tokens)
    # Far from the origin the difference of two squares is all rounding: it is taken again there,
    # about the mean.
    shift = torch.where(mean.square() > variance, mean, 0.0)
    rest, variance = _moments(tokens - shift)
    return shift + rest, variance.sqrt()


def _moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and variance (d,), over all ranks, from sums of first and second powers."""
    sums = torch.stack([torch.ones_like(tokens), tokens, tokens.square()]).sum(1)
    count, total, squares = all_reduce_sum(sums)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0)


def map_rows(codebook_size: int) -> int:
    """Rows of the most nearly square map of K cells."""
    sides = range(math.isqrt(codebook_size), 0, -1)
    return next(rows for rows in sides if codebook_size % rows == 0)
