"""Vector quantisation with a learned codebook."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import VQConfig
from .base import Quantized, Quantizer, check_latents, from_tokens, straight_through, to_tokens, weighted_sum
from .search import code_sums, kmeans, nearest, sample_tokens


class VectorQuantizer(Quantizer):
    """The nearest code of a learned codebook (van den Oord et al. 2017, arXiv 1711.00937, equations 1 to 3).

        latents (B, D) --project_in--> tokens (N, d) --nearest code--> (N, d) --project_out--> quantized (B, D)

    Codes learn by moving averages of the tokens they win (appendix A.1 there) or by the term `codebook`,
    |sg(token) - code|^2; the term `commitment` is |token - sg(code)|^2. Both are means over tokens and channels.

    Buffers:
        codebook (K, d): the codes (a Parameter with update='gradient').
        ema_count (K,): moving average of the tokens that each code wins per step, over all ranks.
        ema_sum (K, d): moving average of the sum of those tokens; only with update='ema'.
        updates (): int64, training batches seen; the first of them sets the codebook.
    """

    default_weights = {"commitment": 0.25, "codebook": 1.0}

    codebook: Tensor
    ema_count: Tensor
    ema_sum: Tensor
    updates: Tensor

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.num_codebooks = 1
        self.codebook_size = config.codebook_size
        self.latent_dim = self.encoder_dim = config.latent_dim or config.code_dim
        projects = self.latent_dim != config.code_dim
        self.project_in = nn.Linear(self.latent_dim, config.code_dim) if projects else nn.Identity()
        self.project_out = nn.Linear(config.code_dim, self.latent_dim) if projects else nn.Identity()
        codebook = torch.randn(config.codebook_size, config.code_dim)
        if config.update == "gradient":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("ema_sum", codebook.clone())
        self.register_buffer("ema_count", torch.ones(config.codebook_size))
        self.register_buffer("updates", torch.tensor(0))

    def forward(self, latents: Tensor, generator: torch.Generator | None = None) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            tokens = self._tokens(latents)
            if self.training and not self.updates:
                self._initialise(tokens.detach(), generator)
            codebook = self._codes()
            codes = nearest(tokens.detach(), codebook.detach())
            picked = codebook[codes]
            terms = {"commitment": F.mse_loss(tokens, picked.detach())}
            if self.config.update == "gradient":
                terms["codebook"] = F.mse_loss(picked, tokens.detach())
            quantized = from_tokens(self.project_out(straight_through(tokens, picked)), latents)
            if self.training:
                self._update(tokens.detach(), codes, generator)
            loss = weighted_sum(terms, self.default_weights, tokens)
        return Quantized(quantized, from_tokens(codes[:, None], latents), loss, terms)

    def encode(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            return from_tokens(nearest(self._tokens(latents), self._codes())[:, None], latents)

    def decode(self, codes: Tensor) -> Tensor:
        with torch.autocast(codes.device.type, enabled=False):
            return from_tokens(self.project_out(self._codes()[to_tokens(codes)[:, 0]]), codes)

    def _tokens(self, latents: Tensor) -> Tensor:
        tokens = self.project_in(to_tokens(check_latents(latents, self.encoder_dim)))
        return F.normalize(tokens, dim=1) if self.config.distance == "cosine" else tokens

    def _codes(self) -> Tensor:
        """The codebook as it is compared and looked up (K, d)."""
        return F.normalize(self.codebook, dim=1) if self.config.distance == "cosine" else self.codebook

    @torch.no_grad()
    def _initialise(self, tokens: Tensor, generator: torch.Generator | None) -> None:
        if self.config.kmeans_iterations:
            self.codebook.copy_(kmeans(tokens, self.codebook_size, self.config.kmeans_iterations, generator))
        counts, _ = code_sums(tokens, nearest(tokens, self._codes()), self.codebook_size)
        self.ema_count.fill_(counts.sum() / self.codebook_size)  # every code starts as alive as any other
        if self.config.update == "ema":
            self.ema_sum.copy_(self.codebook * self.ema_count[:, None])

    @torch.no_grad()
    def _update(self, tokens: Tensor, codes: Tensor, generator: torch.Generator | None) -> None:
        """One step of the moving averages, the same on every rank, then the revival of dead codes."""
        counts, sums = code_sums(tokens, codes, self.codebook_size)
        # A short memory at first: the encoder changes fast then, and codes that it leaves behind must show as dead.
        decay = min(self.config.decay, (1 + int(self.updates)) / (10 + int(self.updates)))
        self.updates += 1
        self.ema_count.lerp_(counts, 1.0 - decay)
        if self.config.update == "ema":
            self.ema_sum.lerp_(sums, 1.0 - decay)
            self.codebook.copy_(self.ema_sum / self.ema_count.clamp(min=1e-6)[:, None])
        uniform = counts.sum() / self.codebook_size
        dead = self.ema_count < self.config.revive_threshold * uniform
        if dead.any():
            self._revive(dead, uniform, tokens, generator)

    def _revive(self, dead: Tensor, uniform: Tensor, tokens: Tensor, generator: torch.Generator | None) -> None:
        """Dead codes jump to random tokens of the batch, and their averages with them: else they die again at once."""
        fresh = sample_tokens(tokens, int(dead.sum()), generator)
        self.codebook[dead] = fresh
        self.ema_count[dead] = uniform
        if self.config.update == "ema":
            self.ema_sum[dead] = fresh * uniform
