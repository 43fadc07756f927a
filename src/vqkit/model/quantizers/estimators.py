"""Gradient estimators: how a gradient passes the choice of a code, which has no slope of its
own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import centred
from .search import chunks


def straight_through(tokens: Tensor, values: Tensor) -> Tensor:
    """`values`, to the bit, whose gradient goes to `tokens` unchanged (Bengio et al.

    2013, arXiv 1308.3432).
    """
    if not _has_gradient(tokens):
        return values.detach()
    return _StraightThrough.apply(tokens, values.detach())


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def rotation(tokens: Tensor, values: Tensor) -> Tensor:
    """`values`, to the bit, whose gradient is rotated and scaled as a token is on the way to its
    code.

    The rotation trick (Fifty et al. 2024, arXiv 2410.06424, equation 4) writes

        value = scale * R token        scale = |value| / |token|

    with R the rotation in the plane of both. R and scale count as constants, so the gradient that
    arrives is multiplied by scale * R^T. tokens and values are (N, d).
    """
    if not _has_gradient(tokens):
        return values.detach()
    token = F.normalize(tokens.detach(), dim=1)
    value = F.normalize(values.detach(), dim=1)
    middle = F.normalize(token + value, dim=1)
    lengths = tokens.detach().norm(dim=1, keepdim=True).clamp(min=1e-6)
    scale = values.detach().norm(dim=1, keepdim=True) / lengths
    reflected = tokens - 2 * (tokens * middle).sum(1, keepdim=True) * middle
    rotated = scale * (reflected + 2 * (tokens * token).sum(1, keepdim=True) * value)
    return values.detach() + (rotated - rotated.detach())


def _has_gradient(tokens: Tensor) -> bool:
    return tokens.requires_grad and torch.is_grad_enabled()


def gumbel(
    tokens: Tensor, codebook: Tensor, temperature: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Codes drawn from softmax(-|token - code|^2 / temperature), with the gradient of the relaxed
    draw.

    Straight-through Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144, section 2.2): the forward
    pass takes the code with the largest logit + noise, the backward pass differentiates
    sum_k y_k code_k with y = softmax(logits + noise). Both go through the tokens in chunks, and the
    noise is drawn a second time from its seed, so no tensor of tokens by codes is kept.

    Args:
        tokens: (N, d).
        codebook: (K, d); gets no gradient.
        temperature: above 0.
        generator: source of the one number that seeds the noise.

    Returns:
        values (N, d), rows of the codebook to the bit, and codes (N,) int64.
    """
    device = generator.device if generator else None
    seed = int(torch.randint(1 << 62, (), generator=generator, device=device))
    # A copy, because the moving averages change the codebook before the backward pass runs.
    values, codes = _Gumbel.apply(tokens, codebook.detach().clone(), temperature, seed)
    return values, codes


class _Gumbel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, codebook: Tensor, temperature: float, seed: int
    ) -> tuple[Tensor, Tensor]:
        # Neither the softmax nor its gradient depends on where the origin is.
        tokens, shifted = centred(tokens, codebook)
        ctx.save_for_backward(tokens, shifted)
        ctx.temperature = temperature
        ctx.seed = seed
        draws = _noisy_logits(tokens, shifted, temperature, seed)
        codes = torch.cat([logits.argmax(1) for _, logits in draws])
        ctx.mark_non_differentiable(codes)
        return codebook[codes], codes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        tokens, codebook = ctx.saved_tensors
        parts = []
        for rows, logits in _noisy_logits(tokens, codebook, ctx.temperature, ctx.seed):
            soft = logits.softmax(1)
            # d logits / d token is 2 (code - token) / temperature; the token's own part cancels,
            # as the derivatives of a softmax add up to zero.
            along = gradient[rows] @ codebook.t()
            weights = soft * (along - (soft * along).sum(1, keepdim=True))
            parts.append(2.0 / ctx.temperature * (weights @ codebook))
        return torch.cat(parts), None, None, None


def _noisy_logits(
    tokens: Tensor, codebook: Tensor, temperature: float, seed: int
) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of rows with -|token - code|^2 / temperature + Gumbel noise, up to a constant of the
    row.
    """
    source = torch.Generator(device=tokens.device).manual_seed(seed)
    offset = codebook.square().sum(1)
    for rows in chunks(len(tokens), len(codebook)):
        logits = (2.0 * tokens[rows] @ codebook.t() - offset) / temperature
        # The negative logarithm of an exponential draw is a Gumbel draw.
        noise = torch.empty_like(logits).exponential_(generator=source).log_()
        yield rows, logits - noise
