"""The contract that every bottleneck obeys, and the pieces that several share.

Shapes: B batch, D latent width, d code width, Q codebooks, K codes, N = B * h * w tokens; any number of grid
dimensions. A family works on tokens (N, d); everything around it is done here once: shapes, float32, projections,
padded positions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...errors import VqkitError

MAX_COUNTED = 1 << 22
"""codebooks that are larger are not counted: tables of every code would take memory without end"""
PADDING = -1
"""the code of a padded position; it decodes to zeros"""


@dataclass(frozen=True)
class Quantized:
    """What a bottleneck returns.

    quantized: (B, D, *grid), what the decoder sees; gradients reach the latents through it; zeros where padded.
    codes: (B, Q, *grid) int64; -1 where padded.
    loss: scalar, the terms summed with the weights of the paper; for use outside of vqkit's trainer.
    terms: unweighted scalars by name (`commitment`, `codebook`, `entropy`), for a sum with weights from a recipe.
    """

    quantized: Tensor
    codes: Tensor
    loss: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class TokensQuantized:
    """What a family makes of tokens: values (N, d) with their gradient, codes (N, Q) int64, unweighted terms."""

    values: Tensor
    codes: Tensor
    terms: dict[str, Tensor]


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float], like: Tensor) -> Tensor:
    """Sum of weight * term, the one place where losses are added up; a scalar zero on `like`'s device if empty."""
    total = like.new_zeros((), dtype=torch.float32)
    for name, term in terms.items():
        if weights[name] != 0:
            total = total + weights[name] * term
    return total


class Bottleneck(nn.Module, ABC):
    """Latents (B, D, *grid) <-> codes (B, Q, *grid), at whatever number of grid dimensions.

    `decode(encode(x))` equals `forward(x).quantized` in eval mode, to the bit. All arithmetic is float32, whatever
    autocast does around it. Only `forward` in training mode changes state. `mask` (B, *grid) bool is True where a
    position is real: padded ones have no part in codes, terms and statistics.
    """

    default_weights: Mapping[str, float] = {}
    """weights of the terms in the paper"""
    grid_multiple = 1
    """the latents' grid must be a multiple of this; codes lie on a grid that is this much coarser"""
    is_discrete = True
    """whether codes come from a finite set"""

    def __init__(self, latent_dim: int, codebook_sizes: Sequence[int]) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.codebook_sizes = tuple(codebook_sizes)

    @property
    def num_codebooks(self) -> int:
        """Q"""
        return len(self.codebook_sizes)

    @property
    def codebook_size(self) -> int:
        """K, values that one code can take; the largest where codebooks differ."""
        return max(self.codebook_sizes)

    @property
    def is_countable(self) -> bool:
        """Whether usage and perplexity can be had: codes are discrete, and so few that a table can count them."""
        return self.is_discrete and self.codebook_size <= MAX_COUNTED

    @property
    def bits_per_position(self) -> float:
        """Sum of log2 K over the codebooks: a position of the codes' grid without entropy coding."""
        return sum(math.log2(size) for size in self.codebook_sizes)

    def places(self) -> list[list[int]]:
        """For every codebook, the places along Q where it serves: more than one where it is shared."""
        found: dict[int, list[int]] = {}
        for place, part in enumerate(self.parts()):
            found.setdefault(id(part), []).append(place)
        return list(found.values())

    def per_codebook(self, counts: Tensor) -> list[Tensor]:
        """Counts of codes (Q, K) -> (K,) of every codebook, over all of its places, cut to its own size."""
        return [counts[places, : self.codebook_sizes[places[0]]].sum(0) for places in self.places()]

    @abstractmethod
    def parts(self) -> list[Quantizer]:
        """The quantizers inside that have one codebook each, in the order of Q; shared ones occur again."""

    @abstractmethod
    def forward(
        self, latents: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None
    ) -> Quantized:
        """Quantise (B, D, *grid); `generator` drives everything random in training mode."""

    @abstractmethod
    def encode(self, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        """Latents (B, D, *grid) -> codes (B, Q, *grid) int64; never changes state."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, Q, *grid) int64 -> quantized (B, D, *grid) float32; zeros where a position is padding."""


class Quantizer(Bottleneck):
    """A bottleneck that takes every position for itself.

        latents (B, D) --project_in--> (N, d) --bound--> tokens (N, d) --quantize--> (N, d) --project_out--> (B, D)

    A family implements `quantize`, `assign` and `lookup` on tokens, and `bound` if it wants them in some range.
    """

    fits_any_scale = False
    """whether codes grow and shrink with the tokens; else whoever quantises residuals must scale them"""

    def __init__(self, code_dim: int, codebook_sizes: Sequence[int], latent_dim: int | None = None) -> None:
        super().__init__(latent_dim or code_dim, codebook_sizes)
        self.code_dim = code_dim
        projects = self.latent_dim != code_dim
        self.project_in: nn.Module = nn.Linear(self.latent_dim, code_dim) if projects else nn.Identity()
        self.project_out: nn.Module = nn.Linear(code_dim, self.latent_dim) if projects else nn.Identity()

    def parts(self) -> list[Quantizer]:
        return [self]

    def forward(
        self, latents: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None
    ) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            tokens, real = self._tokens(latents, mask), _real(latents, mask)
            result = self.quantize(tokens if real is None else tokens[real], generator)
            values = _scatter(result.values, real, 0)
            quantized = _without_padding(self._project_out(values), real)
            loss = weighted_sum(result.terms, self.default_weights, values)
        codes = _scatter(result.codes, real, PADDING)
        return Quantized(from_tokens(quantized, latents), from_tokens(codes, latents), loss, result.terms)

    def encode(self, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            tokens, real = self._tokens(latents, mask), _real(latents, mask)
            codes = _scatter(self.assign(tokens if real is None else tokens[real]), real, PADDING)
            return from_tokens(codes, latents)

    def decode(self, codes: Tensor) -> Tensor:
        with torch.autocast(codes.device.type, enabled=False):
            tokens = to_tokens(codes)
            real = tokens[:, 0] >= 0
            values = self.lookup(tokens.where(real[:, None], 0)).where(real[:, None], 0.0)
            return from_tokens(_without_padding(self._project_out(values), real), codes)

    # ----------------------------------------------------------------------------------------- what a family defines

    def bound(self, tokens: Tensor) -> Tensor:
        """Any tokens (N, d) -> where the family quantises them, a sphere or a cube; the identity by default."""
        return tokens

    @abstractmethod
    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        """Bounded tokens (N, d) -> values, codes, terms; learns from them in training mode."""

    @abstractmethod
    def assign(self, tokens: Tensor) -> Tensor:
        """Bounded tokens (N, d) -> codes (N, Q) int64, those of `quantize` in eval mode."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """Codes (N, Q) -> values (N, d), to the bit those of `quantize`."""

    def distances(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Squared distances (N, K) of bounded tokens (N, d) to what each code of the next codebook would make of them.

        codes: (N, q), those of the codebooks before.
        """
        if self.num_codebooks != 1:
            raise VqkitError(f"{type(self).__name__} has no codes that can be weighed one after the other")
        return squared_distances(tokens, self.lookup(torch.arange(self.codebook_size)[:, None]))

    def tokens(self, latents: Tensor) -> Tensor:
        """Latents (B, D, *grid) -> bounded tokens (B * positions, d)."""
        with torch.autocast(latents.device.type, enabled=False):
            return self._tokens(latents, None)

    def _project_out(self, values: Tensor) -> Tensor:
        """Values (N, d) -> (N, D), in the precision of the layer's weights: a model may be decoded in float64."""
        weight = getattr(self.project_out, "weight", values)
        return self.project_out(values.to(weight.dtype))

    def _tokens(self, latents: Tensor, mask: Tensor | None) -> Tensor:
        check_latents(latents, self.latent_dim, mask)
        return self.bound(self.project_in(to_tokens(latents.float())))


def squared_distances(tokens: Tensor, values: Tensor) -> Tensor:
    """Tokens (N, d), values (K, d) -> (N, K)."""
    return tokens.square().sum(1, keepdim=True) - 2 * tokens @ values.T + values.square().sum(1)


def check_latents(latents: Tensor, width: int, mask: Tensor | None = None) -> None:
    """ValueError when the channels are not `width`, the mask has another grid, or nothing is left of it."""
    if latents.dim() < 2 or latents.shape[1] != width:
        raise ValueError(f"latents must be (B, {width}, *grid), got {tuple(latents.shape)}")
    if mask is None:
        return
    if mask.dtype != torch.bool or mask.shape != (len(latents), *latents.shape[2:]):
        expected = (len(latents), *latents.shape[2:])
        raise ValueError(f"mask must be bool {expected}, got {mask.dtype} {tuple(mask.shape)}")
    if not mask.any():
        raise ValueError("mask leaves no position: every one is padding")


def _real(latents: Tensor, mask: Tensor | None) -> Tensor | None:
    """(N,) bool, None where nothing is padded."""
    return None if mask is None else mask.to(latents.device).reshape(-1)


def _scatter(rows: Tensor, real: Tensor | None, filling: float) -> Tensor:
    """The rows of real positions back in their places among all N."""
    if real is None:
        return rows
    whole = rows.new_full((len(real), *rows.shape[1:]), filling)
    return whole.masked_scatter(real[:, None], rows)


def _without_padding(rows: Tensor, real: Tensor | None) -> Tensor:
    return rows if real is None else rows.where(real[:, None], 0.0)


def to_tokens(latents: Tensor) -> Tensor:
    """(B, D, *grid) -> (N, D); free of copies when the memory is channels-last."""
    return latents.movedim(1, -1).reshape(-1, latents.shape[1])


def from_tokens(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, D) -> (B, D, *grid) with the batch and grid of `like` (B, anything, *grid); channels-last memory."""
    return tokens.reshape(like.shape[0], *like.shape[2:], tokens.shape[-1]).movedim(-1, 1)


# -------------------------------------------------------------------------------------------------------------- ranks


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over ranks in place; a no-op without ranks."""
    if ranks() > 1:
        dist.all_reduce(tensor)
    return tensor


def ranks() -> int:
    """Number of ranks, asked at every call: a module may be built before the process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process among them, 0 without a process group."""
    return dist.get_rank() if ranks() > 1 else 0


def place_among_ranks(count: int, device: torch.device) -> tuple[int, int]:
    """Where this rank's `count` rows begin among those of all ranks joined, and how many there are in all."""
    if ranks() == 1:
        return 0, count
    counts = torch.zeros(ranks(), dtype=torch.long, device=device)
    counts[rank()] = count
    each = all_reduce_sum(counts).tolist()
    return sum(each[: rank()]), sum(each)
