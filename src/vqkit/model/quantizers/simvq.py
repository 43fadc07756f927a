"""A codebook that moves as one: frozen random codes behind a learned linear map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import SimVQConfig
from .base import Quantizer, TokensQuantized
from .estimators import straight_through
from .search import nearest


class SimVQ(Quantizer):
    """The nearest row of C W, C frozen and W learned (Zhu et al. 2024, arXiv 2411.02038, section 4).

    A code of an ordinary codebook learns only when it wins; here every token moves W, hence all codes, and none dies.
    The terms are `commitment` |token - sg(code)|^2 and `codebook` |sg(token) - code|^2, means over tokens and channels;
    `codebook` is all that W learns from.

    Buffers: `frozen` (K, d), drawn from N(0, 1/d). Parameters: `map.weight` (d, d), no bias.
    """

    default_weights = {"commitment": 0.25, "codebook": 1.0}

    frozen: Tensor

    def __init__(self, config: SimVQConfig) -> None:
        super().__init__(config.code_dim, [config.codebook_size], config.latent_dim)
        self.register_buffer("frozen", torch.randn(config.codebook_size, config.code_dim) * config.code_dim**-0.5)
        self.map = nn.Linear(config.code_dim, config.code_dim, bias=False)

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        codebook = self.codes()
        codes = nearest(tokens.detach(), codebook.detach())
        picked = codebook[codes]
        terms = {
            "commitment": F.mse_loss(tokens, picked.detach()),
            "codebook": F.mse_loss(picked, tokens.detach()),
        }
        return TokensQuantized(straight_through(tokens, picked), codes[:, None], terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return nearest(tokens, self.codes())[:, None]

    def lookup(self, codes: Tensor) -> Tensor:
        # Not codes mapped one by one: another number of rows may be multiplied in another order, with other last bits.
        return self.codes()[codes[:, 0]]

    def codes(self) -> Tensor:
        """The codebook as it is compared and looked up (K, d)."""
        codebook: Tensor = self.map(self.frozen)
        return codebook
