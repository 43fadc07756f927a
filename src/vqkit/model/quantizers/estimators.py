"""How gradients pass a quantizer: three answers to a step function without a slope."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .search import chunks


def straight_through(tokens: Tensor, values: Tensor) -> Tensor:
    """`values`, to the bit, whose gradient goes to `tokens` unchanged (Bengio et al. 2013, arXiv 1308.3432)."""
    return _StraightThrough.apply(tokens, values.detach())


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def rotation(tokens: Tensor, values: Tensor) -> Tensor:
    """`values`, to the bit, whose gradient is turned and scaled as the token is on its way to its code.

    The rotation trick (Fifty et al. 2024, arXiv 2410.06424, equation 4): values = scale * R tokens with R the rotation
    in the plane of both, scale = |values| / |tokens|; R and scale are constants for the gradient, which becomes
    scale * R^T times the one that arrives. tokens, values: (N, d).
    """
    token, value = F.normalize(tokens.detach(), dim=1), F.normalize(values.detach(), dim=1)
    middle = F.normalize(token + value, dim=1)
    scale = values.detach().norm(dim=1, keepdim=True) / tokens.detach().norm(dim=1, keepdim=True).clamp(min=1e-6)
    reflected = tokens - 2 * (tokens * middle).sum(1, keepdim=True) * middle
    turned = scale * (reflected + 2 * (tokens * token).sum(1, keepdim=True) * value)
    return values.detach() + (turned - turned.detach())


def gumbel(
    tokens: Tensor, codebook: Tensor, temperature: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Codes drawn from softmax(-|token - code|^2 / temperature), with the gradient of the relaxed draw.

    Straight-through Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144, section 2.2): forward takes the code of the
    largest logit + noise, backward the derivative of sum_k y_k code_k, y = softmax(logits + noise). Both go through
    the tokens in chunks, the noise is drawn again from its seed: no tokens-by-codes tensor is kept.
    tokens (N, d), codebook (K, d) -> values (N, d), codes (N,). The codebook gets no gradient.
    """
    seed = int(torch.randint(1 << 62, (), generator=generator, device=generator.device if generator else None))
    kept = codebook.detach().clone()  # the moving averages change the codebook before backward runs
    values, codes = _Gumbel.apply(tokens, kept, temperature, seed)
    return values, codes


class _Gumbel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, codebook: Tensor, temperature: float, seed: int) -> tuple[Tensor, Tensor]:
        codes = torch.cat([logits.argmax(1) for _, logits in _noisy_logits(tokens, codebook, temperature, seed)])
        ctx.save_for_backward(tokens, codebook)
        ctx.temperature, ctx.seed = temperature, seed
        ctx.mark_non_differentiable(codes)
        return codebook[codes], codes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        tokens, codebook = ctx.saved_tensors
        parts = []
        for rows, logits in _noisy_logits(tokens, codebook, ctx.temperature, ctx.seed):
            soft, arriving = logits.softmax(1), gradient[rows]
            # d logits / d token = 2 (code - token) / temperature, and the softmax takes the token's part out again
            along = arriving @ codebook.t()
            weights = soft * (along - (soft * along).sum(1, keepdim=True))
            parts.append(2.0 / ctx.temperature * (weights @ codebook))
        return torch.cat(parts), None, None, None


def _noisy_logits(tokens: Tensor, codebook: Tensor, temperature: float, seed: int) -> Any:
    """Chunks of rows with -|token - code|^2 / temperature + Gumbel noise, up to a constant of the row."""
    source = torch.Generator(device=tokens.device).manual_seed(seed)
    offset = codebook.square().sum(1)
    for rows in chunks(len(tokens), len(codebook)):
        logits = (2.0 * tokens[rows] @ codebook.t() - offset) / temperature
        noise = torch.empty_like(logits).exponential_(generator=source).log_()  # -log(Exponential) is Gumbel
        yield rows, logits - noise
