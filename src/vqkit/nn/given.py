"""A layer of vectors that are given."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.quantizers import Quantizer, TokensQuantized
from ..model.quantizers.estimators import rotation, straight_through
from ..model.quantizers.search import nearest
from .layer import QuantizerLayer


class Codebook(QuantizerLayer):
    """The nearest of vectors that are given and stay: another model's codes, centres of k-means,
    embeddings. Its loss is the term `commitment`.

    >>> codebook = Codebook(torch.eye(4))
    >>> codebook.encode(torch.tensor([[0.1, 0.9, 0.0, 0.2]]))
    tensor([1])
    """

    def __init__(
        self,
        vectors: Tensor,
        *,
        estimator: Literal["straight_through", "rotation"] = "straight_through",
        channel_first: bool = False,
    ) -> None:
        """vectors: (K, D), at least two. estimator: how gradients pass."""
        if vectors.dim() != 2 or len(vectors) < 2 or not bool(vectors.isfinite().all()):
            raise ValueError(
                f"vectors must be finite (K, D) of two codes or more, got {tuple(vectors.shape)}"
            )
        super().__init__(_GivenVectors(vectors, estimator), channel_first)


class _GivenVectors(Quantizer):
    default_weights = {"commitment": 0.25}

    vectors: Tensor

    def __init__(self, vectors: Tensor, estimator: str) -> None:
        super().__init__(vectors.shape[1], [len(vectors)])
        self.estimate = rotation if estimator == "rotation" else straight_through
        self.is_straight_through = self.estimate is straight_through
        self.register_buffer("vectors", vectors.detach().float().clone())

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        codes = self.assign(tokens.detach())
        picked = self.lookup(codes)
        terms = {"commitment": F.mse_loss(tokens, picked)}
        return TokensQuantized(self.estimate(tokens, picked), codes, terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return nearest(tokens, self.vectors)[:, None]

    def lookup(self, codes: Tensor) -> Tensor:
        return self.vectors.index_select(0, codes[:, 0])
