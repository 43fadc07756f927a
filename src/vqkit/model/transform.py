"""The map f between the latents z and the quantizer: z' = f(z), q = quantize(z'), image =
decoder(f.inverse(q)).

    none     z' = z
    mlp      z' = skip(z) + a small network at every position
    conv     z' = skip(z) + residual convolutions, which also see neighbours
    linear   z' = W z + b with W always invertible; undone before the decoder

`skip` is the identity where the widths of z and z' agree, else a linear map. The last layer of mlp
and conv starts at zero and W at the identity, so that a model starts as one without f (but for
`skip`). f earns its keep together with the term `transform` (normality.py), which says what z'
should look like, and with quantizers made for N(0, 1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config.sections import TransformConfig
from .blocks import DepthwiseResidual

# Logarithm of the longest that a linear transform makes a vector of length one.
MAX_LOG_STRETCH = 3.0


class Transform(nn.Module):
    """No transform: z' = z. The base of those that do something.

    forward: latents (B, latent_dim, *grid) -> (B, D, *grid) for a quantizer of width D.
    inverse: quantized (B, D, *grid) -> what the decoder takes, of the same shape.
    reach: positions to either side that a position depends on, an upper bound; ahead: those behind
    it.
    """

    reach = 0
    ahead = 0

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self, latents: Tensor) -> Tensor:
        return latents

    def inverse(self, quantized: Tensor) -> Tensor:
        return quantized


class MLPTransform(Transform):
    """skip(z) + linear(gelu(linear(... z))) at every position, `num_blocks` hidden layers of
    `width`.
    """

    def __init__(self, config: TransformConfig, latent_dim: int, quantizer_dim: int) -> None:
        super().__init__(latent_dim)
        self.skip = _skip(latent_dim, quantizer_dim)
        hidden: list[nn.Module] = []
        for index in range(config.num_blocks):
            hidden += [nn.Linear(config.width if index else latent_dim, config.width), nn.GELU()]
        self.layers = nn.Sequential(*hidden, _zero_linear(config.width, quantizer_dim))

    def forward(self, latents: Tensor) -> Tensor:
        tokens = latents.movedim(1, -1)  # (B, *grid, latent_dim)
        return (self.skip(tokens) + self.layers(tokens)).movedim(-1, 1)


class ConvTransform(Transform):
    """skip(z) + linear(DepthwiseResidual x num_blocks(linear(z))): every position sees its
    neighbours, or those before it where it is causal.
    """

    def __init__(
        self,
        config: TransformConfig,
        latent_dim: int,
        quantizer_dim: int,
        dims: int,
        is_causal: bool,
    ) -> None:
        super().__init__(latent_dim)
        self.reach = 2 * config.num_blocks
        self.ahead = 0 if is_causal else config.num_blocks
        self.skip = _skip(latent_dim, quantizer_dim)
        self.stem = nn.Linear(latent_dim, config.width)
        self.blocks = nn.Sequential(
            *(
                DepthwiseResidual(config.width, 2, dims, is_causal=is_causal)
                for _ in range(config.num_blocks)
            )
        )
        self.head = _zero_linear(config.width, quantizer_dim)

    def forward(self, latents: Tensor) -> Tensor:
        tokens = latents.movedim(1, -1)  # (B, *grid, latent_dim)
        return (self.skip(tokens) + self.head(self.blocks(self.stem(tokens)))).movedim(-1, 1)


class LinearTransform(Transform):
    """z' = W z + b with W = exp(A), the matrix exponential, whose inverse is exp(-A) whatever A is.

    A starts at zero, W at the identity, and weight decay pulls it there. Xiao & Liu 2020, arXiv
    2007.09651. All arithmetic is float32, and A is scaled down where W would stretch or squash a
    direction more than e^3 = 20 times (the symmetric part of A bounds that): beyond, the inverse
    exists but float32 no longer finds it.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.log_weight = nn.Parameter(torch.zeros(width, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            tokens = latents.float().movedim(1, -1)
            mapped = F.linear(tokens, torch.linalg.matrix_exp(self.log_map()), self.bias)
            return mapped.movedim(-1, 1)

    def inverse(self, quantized: Tensor) -> Tensor:
        with torch.autocast(quantized.device.type, enabled=False):
            tokens = quantized.float().movedim(1, -1) - self.bias
            return F.linear(tokens, torch.linalg.matrix_exp(-self.log_map())).movedim(-1, 1)

    def log_map(self) -> Tensor:
        """A (D, D), within its bound."""
        symmetric = (0.5 * (self.log_weight + self.log_weight.T)).detach()
        # The logarithm of what W can do to a length, at most.
        stretch = torch.linalg.matrix_norm(symmetric, 2)
        return self.log_weight * (MAX_LOG_STRETCH / stretch.clamp(min=MAX_LOG_STRETCH))


def build_transform(
    config: TransformConfig, quantizer_dim: int, dims: int = 2, *, is_causal: bool = False
) -> Transform:
    """The map of a config, over grids of `dims` dimensions; this `match` is the registry.

    is_causal: no position sees those behind it.

    ValueError when none or linear are to change the width.
    """
    latent_dim = config.latent_dim or quantizer_dim
    if config.kind in ("none", "linear") and latent_dim != quantizer_dim:
        raise ValueError(
            f"model.transform.kind={config.kind} keeps the width, but latent_dim is {latent_dim} "
            f"and the quantizer takes {quantizer_dim} channels; use mlp or conv, or leave "
            "model.transform.latent_dim=null"
        )
    match config.kind:
        case "none":
            return Transform(quantizer_dim)
        case "mlp":
            return MLPTransform(config, latent_dim, quantizer_dim)
        case "conv":
            return ConvTransform(config, latent_dim, quantizer_dim, dims, is_causal)
        case "linear":
            return LinearTransform(quantizer_dim)


def _skip(before: int, after: int) -> nn.Module:
    if before == after:
        return nn.Identity()
    return nn.Linear(before, after)


def _zero_linear(before: int, after: int) -> nn.Linear:
    layer = nn.Linear(before, after)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
