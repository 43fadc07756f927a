"""The contract of every bottleneck, and what all of them share.

Shapes: B batch, D latent width, d code width, Q codebooks, K codes, N tokens (the positions of all
images in one row). The grid has any number of dimensions. A family works on tokens (N, d); what
surrounds it is done here, once: shapes, float32, projections, padded positions, checks of codes.

What a code can be. Along Q a position has one code of each codebook, at least 0 and below that
codebook's size. -1 (`PADDING`) means one of two things:

    all codes of a position are -1        padding: it decodes to zeros
    the last stages of a residual row     left out: the stages before them decode alone
    the finer grids of a pyramid          left out of a cell: the coarser ones decode alone

Everything else is a ValueError in `decode`, in every family and in every composite.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...errors import VqkitError
from .results import Quantized, TokensQuantized, in_float32

# Codebooks above this size are not counted: a table of all codes would have no bound in memory.
MAX_COUNTED = 1 << 22
# At most so many codes are looked at to find their centre.
CENTRE_CODES = 64
# The code of a padded position.
PADDING = -1


class Lattice(NamedTuple):
    """The values of codes that divide every channel evenly: whole multiples of `step`, up to
    `limit` of them to either side.
    """

    step: float
    limit: int


class CodeSection(NamedTuple):
    """Codes that share a section of a file: so many of them along Q, from `place` on.

    side: how many times finer their grid is than that of the codes, along each side. A cell of the
    latter has the codes of its positions of the former in succession along Q, row by row.
    """

    place: int
    num_codes: int
    side: int


class Bottleneck(nn.Module, ABC):
    """Latents (B, D, *grid) <-> codes (B, Q, *grid).

    - `decode(encode(x))` equals `forward(x).quantized` in eval mode, to the bit.
    - All arithmetic is float32, whatever autocast does around it.
    - Only `forward` in training mode changes state, and one such call is one optimiser step: moving
      averages and schedules count these calls. Give it the whole batch at once.
    - `mask` (B, *grid) bool is True at real positions. Padded ones are left out before any
      arithmetic, so they may hold anything, NaN included: they have no part in codes, terms,
      statistics and gradients.
    """

    # Weights of the terms in the paper.
    default_weights: Mapping[str, float] = {}
    # The sides of the latents' grid must be multiples of this; the grid of codes is so much
    # coarser.
    grid_multiple = 1
    # Whether codes come from a finite set.
    is_discrete = True

    def __init__(self, latent_dim: int, codebook_sizes: Sequence[int]) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.codebook_sizes = tuple(codebook_sizes)

    @property
    def num_codebooks(self) -> int:
        """Q, the codes of a position."""
        return len(self.codebook_sizes)

    @property
    def codebook_size(self) -> int:
        """K, the values that one code can take; the largest where codebooks differ."""
        return max(self.codebook_sizes)

    @property
    def is_countable(self) -> bool:
        """Whether usage and perplexity tell something: codes are discrete, fit into a table, and
        are meant to occur.
        """
        if not self.is_discrete or self.codebook_size > MAX_COUNTED:
            return False
        return all(part.has_usage for part in self.parts())

    @property
    def codebooks_per_section(self) -> int:
        """Codebooks whose codes lie in one section of a file, in the order of Q."""
        return 1

    @property
    def sections(self) -> tuple[CodeSection, ...]:
        """What the sections of a file hold, in the order of Q."""
        count = self.codebooks_per_section
        places = range(0, self.num_codebooks, count)
        return tuple(CodeSection(place, count, side=1) for place in places)

    @property
    def prefixes(self) -> tuple[int, ...]:
        """How many of the codes along Q can be decoded without those behind them, which are then
        -1: from few to all.
        """
        return (self.num_codebooks,)

    def lattice(self, num_sections: int) -> Lattice | None:
        """What the codes of the first sections stand for; None where that is no lattice."""
        return None

    @property
    def bits_per_position(self) -> float:
        """Sum of log2 K over the codebooks: a position of the codes' grid without entropy
        coding.
        """
        return sum(math.log2(size) for size in self.codebook_sizes)

    def bits(self, codes: Tensor) -> Tensor:
        """What the codes (B, Q, *grid) of items cost one by one, without an entropy coder: (B,)
        float64. log2 K each, but for families whose codes have costs of their own.
        """
        bits = self.bits_per_position * codes[0, 0].numel()
        return torch.full((len(codes),), bits, dtype=torch.float64)

    @property
    def _precision(self) -> torch.dtype:
        """float32, but float64 in a network that was moved to it as a whole."""
        # Asked in every call: what the quantizer has itself comes first, and ends the search.
        for module in self.modules():
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None and tensor.is_floating_point():
                    return tensor.dtype
        return torch.float32

    def places(self) -> list[list[int]]:
        """For every codebook the places along Q where it serves; a shared one serves at several."""
        found: dict[int, list[int]] = {}
        for place, part in enumerate(self.parts()):
            found.setdefault(id(part), []).append(place)
        return list(found.values())

    def per_codebook(self, counts: Tensor) -> list[Tensor]:
        """Counts of codes (Q, K) -> for every codebook (its size,), summed over its places."""
        return [counts[places, : self.codebook_sizes[places[0]]].sum(0) for places in self.places()]

    @abstractmethod
    def parts(self) -> list[Quantizer]:
        """The quantizers inside that have one codebook each, in the order of Q.

        Shared ones repeat.
        """

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
        """Codes (B, Q, *grid) -> quantized (B, D, *grid) float32, zeros where a position is
        padding.

        ValueError for codes that stand for nothing, see the top of this module.
        """

    # ---------------------------------------------------- codes that are chosen one after the other

    def tokens(self, latents: Tensor, section: int = 0) -> Tensor:
        """Latents (B, D, *grid) -> bounded tokens (B * positions, d) of the grid of a section."""
        raise VqkitError(self._no_distances())

    def distances(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Squared distances of bounded tokens to what each code of the next codebook would make of
        them, over all positions of the latents that a token stands for.

        Args:
            tokens: (N, d).
            codes: (N, q), those of the codebooks before; of a pyramid those of the coarser
                positions that hold the tokens.

        Returns:
            (N, K). VqkitError where codes cannot be chosen one after the other.
        """
        raise VqkitError(self._no_distances())

    def _no_distances(self) -> str:
        return f"{type(self).__name__} has no codes that can be weighed one after the other"

    def _checked_codes(self, codes: Tensor) -> Tensor:
        """The codes as int64.

        ValueError for another shape, for fractions and for values out of range, which an exported
        program, without branches, does not look at.
        """
        if codes.dim() < 2 or codes.shape[1] != self.num_codebooks:
            raise ValueError(
                f"codes must be (B, {self.num_codebooks}, *grid), got {tuple(codes.shape)}"
            )
        if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
            raise ValueError(f"codes must be whole numbers (int64), got {codes.dtype}")
        codes = codes.long()
        sizes = torch.tensor(self.codebook_sizes, device=codes.device)
        sizes = sizes.reshape(-1, *[1] * (codes.dim() - 2))
        if torch.compiler.is_exporting():
            return codes
        outside = (codes < PADDING) | (codes >= sizes)
        if outside.any():
            index = int(outside.nonzero()[0, 1])
            value = int(codes[outside][0])
            limit = self.codebook_sizes[index]
            raise ValueError(f"codes of codebook {index} must lie in [0, {limit}), got {value}")
        return codes


class Quantizer(Bottleneck):
    """A bottleneck that takes every position by itself.

        latents (B, D) --project_in--> (N, d) --bound--> tokens (N, d) --quantize--> (N, d)
        --project_out--> (B, D)

    A family implements `quantize`, `assign` and `lookup` on tokens, and `bound` where it wants them
    inside of some range.
    """

    # Whether codes grow and shrink with the tokens. A residual row scales residuals for those
    # whose codes do not.
    fits_any_scale = False
    # Whether a code that never occurs is a fault.
    has_usage = True
    # What every later stage of a residual row is scaled by, where stages are not measured.
    refinement = 1.0
    # Whether a step sets parameters itself, as the first codes. Sharded ones cannot be: what a
    # forward pass sees of them is a copy.
    sets_parameters = False
    # Whether `quantize` passes gradients to the tokens unchanged.
    is_straight_through = True

    def __init__(
        self, code_dim: int, codebook_sizes: Sequence[int], latent_dim: int | None = None
    ) -> None:
        super().__init__(latent_dim or code_dim, codebook_sizes)
        self.code_dim = code_dim
        self.project_in: nn.Module = nn.Identity()
        self.project_out: nn.Identity | nn.Linear = nn.Identity()
        if self.latent_dim != code_dim:
            self.project_in = nn.Linear(self.latent_dim, code_dim)
            self.project_out = nn.Linear(code_dim, self.latent_dim)

    def parts(self) -> list[Quantizer]:
        return [self]

    def forward(
        self, latents: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None
    ) -> Quantized:
        with in_float32(latents.device):
            tokens, real = self._real_tokens(latents, mask)
            result = self.quantize(tokens, generator)
            values = _scatter(result.values, real, 0)
            quantized = _without_padding(self._project_out(values), real)
        codes = from_tokens(_scatter(result.codes, real, PADDING), latents)
        values = from_tokens(quantized, latents)
        return Quantized(values, codes, result.terms, self.default_weights)

    def encode(self, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        with in_float32(latents.device):
            tokens, real = self._real_tokens(latents, mask)
            return from_tokens(_scatter(self.assign(tokens), real, PADDING), latents)

    def decode(self, codes: Tensor) -> Tensor:
        with in_float32(codes.device):
            tokens = to_tokens(self._checked_codes(codes))
            missing = tokens == PADDING
            real = ~missing.all(1)
            if not torch.compiler.is_exporting():
                self._check_left_out(tokens, missing & real[:, None])
            values = self.lookup(tokens.where(real[:, None], 0)).where(real[:, None], 0.0)
            return from_tokens(_without_padding(self._project_out(values), real), codes)

    def _check_left_out(self, codes: Tensor, missing: Tensor) -> None:
        """ValueError where codes (N, Q) of real positions are `missing` that cannot be left out."""
        wrong = missing & ~self.left_out(codes)
        if wrong.any():
            index = int(wrong.nonzero()[0, 1])
            raise ValueError(
                f"code -1 of codebook {index} beside other codes of its position: -1 marks "
                "padding in all codebooks, or the last stages of a residual quantizer"
            )

    # ------------------------------------------------------------------------ what a family defines

    def bound(self, tokens: Tensor) -> Tensor:
        """Any tokens (N, d) -> where the family quantises them: a sphere, a cube.

        By default as they are.
        """
        return tokens

    @abstractmethod
    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        """Bounded tokens (N, d) -> values, codes, terms; learns from them in training mode."""

    @abstractmethod
    def assign(self, tokens: Tensor) -> Tensor:
        """Bounded tokens (N, d) -> codes (N, Q) int64, those of `quantize` in eval mode."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """Codes (N, Q), all in range -> values (N, d), to the bit those of `quantize`."""

    # ------------------------------------------------------------------- what a composite redefines

    def left_out(self, codes: Tensor) -> Tensor:
        """Where codes (N, Q) that are -1 stand for something that was left out: (N, Q) bool."""
        return torch.zeros_like(codes, dtype=torch.bool)

    def assign_at(self, tokens: Tensor, num_sections: int, rate: float) -> Tensor:
        """Bounded tokens (N, d) -> codes (N, q) of the first sections, in the last of which a bit
        weighs `rate` squared steps. Of families whose codes weigh their own bits.
        """
        raise VqkitError(f"{type(self).__name__} has no codes that weigh their own bits")

    def distances(self, tokens: Tensor, codes: Tensor) -> Tensor:
        if self.num_codebooks != 1:
            raise VqkitError(self._no_distances())
        every = torch.arange(self.codebook_size, device=tokens.device)
        return squared_distances(tokens, self.lookup(every[:, None]))

    # --------------------------------------------------------------------------------- from outside

    def tokens(self, latents: Tensor, section: int = 0) -> Tensor:
        with in_float32(latents.device):
            return self._real_tokens(latents, None)[0]

    def latents_of(self, values: Tensor, like: Tensor) -> Tensor:
        """What values of tokens (N, d) are to the decoder: (B, D, *grid), with the batch and grid
        of `like`; gradients pass.
        """
        return from_tokens(self._project_out(values), like)

    def _real_tokens(self, latents: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Bounded tokens of the real positions, and (all positions,) bool, None where none is
        padded.

        Padded positions are selected away first: multiplied by a zero, a NaN would stay one.
        """
        check_latents(latents, self.latent_dim, mask)
        tokens = to_tokens(latents.float()).to(self._precision)
        if mask is None:
            return self.bound(self.project_in(tokens)), None
        real = mask.to(latents.device).reshape(-1)
        return self.bound(self.project_in(tokens[real])), real

    def _project_out(self, values: Tensor) -> Tensor:
        """Values (N, d) -> (N, D), in the precision of the layer: a model may be decoded in
        float64.
        """
        if isinstance(self.project_out, nn.Identity):
            return values
        return self.project_out(values.to(self.project_out.weight.dtype))


def centre_of(codes: Tensor) -> Tensor | None:
    """What to subtract from codes (K, d) and tokens before they are compared: (d,), None for
    nothing.

    It is about the mean, where codes lie further from the origin than from one another: there the
    squares of large numbers leave no bits of float32 for the differences between codes. Some of the
    codes tell that well enough, in a time that does not grow with the codebook.
    """
    some = codes[:: -(-codes.shape[0] // CENTRE_CODES)]
    mean = some.mean(0)
    length = torch.linalg.vector_norm(mean) * math.sqrt(2 * some.shape[0])
    is_far = length > torch.linalg.vector_norm(some)
    if may_ask(codes):
        return mean if is_far else None
    # Subtracting zeros changes no bit.
    return torch.where(is_far, mean, 0.0)


def may_ask(tensor: Tensor) -> bool:
    """Whether a branch may depend on what a tensor holds: elsewhere asking means waiting, or a
    break in the graph.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def centred(tokens: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (N, d) and codes (K, d) at the same distances, where float32 tells them apart."""
    centre = centre_of(codes)
    return (tokens, codes) if centre is None else (tokens - centre, codes - centre)


def squared_distances(tokens: Tensor, values: Tensor) -> Tensor:
    """Tokens (N, d), values (K, d) -> (N, K)."""
    tokens, values = centred(tokens, values)
    products = 2 * tokens @ values.T
    return tokens.square().sum(1, keepdim=True) - products + values.square().sum(1)


def check_latents(latents: Tensor, width: int, mask: Tensor | None = None) -> None:
    """ValueError when the channels are not `width`, the mask has another grid, or nothing is left
    of it.
    """
    if latents.dim() < 2 or latents.shape[1] != width:
        raise ValueError(f"latents must be (B, {width}, *grid), got {tuple(latents.shape)}")
    if mask is None:
        return
    expected = (len(latents), *latents.shape[2:])
    if mask.dtype != torch.bool or mask.shape != expected:
        raise ValueError(f"mask must be bool {expected}, got {mask.dtype} {tuple(mask.shape)}")
    if not mask.any():
        raise ValueError("mask leaves no position: every one is padding")


def _scatter(rows: Tensor, real: Tensor | None, filling: float) -> Tensor:
    """The rows of real positions back in their places among all positions."""
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
    """(N, D) -> (B, D, *grid) with the batch and grid of `like` (B, anything, *grid).

    Channels-last memory.
    """
    return tokens.reshape(like.shape[0], *like.shape[2:], tokens.shape[-1]).movedim(-1, 1)


# -------------------------------------------------------------------------------------------- ranks


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over ranks, in place; a no-op for a single process."""
    if ranks() > 1:
        dist.all_reduce(tensor)
    return tensor


def ranks() -> int:
    """Number of ranks, asked at every call: a module may be built before the process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, 0 without a process group."""
    return dist.get_rank() if ranks() > 1 else 0


def place_among_ranks(count: int, device: torch.device) -> tuple[int, int]:
    """Where this rank's `count` rows begin among those of all ranks, and how many there are
    in all.
    """
    if ranks() == 1:
        return 0, count
    counts = torch.zeros(ranks(), dtype=torch.long, device=device)
    counts[rank()] = count
    each = all_reduce_sum(counts).tolist()
    return sum(each[: rank()]), sum(each)
