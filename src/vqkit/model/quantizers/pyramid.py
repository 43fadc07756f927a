"""Residual codes over grids of several resolutions, coarse first, over any family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .base import (
    PADDING,
    CodeSection,
    Quantized,
    Quantizer,
    all_reduce_sum,
    from_tokens,
    to_tokens,
)
from .cells import CellBottleneck, coarse_mask, fold, pooled, repeated, spread, unfold
from .results import in_float32, terms_of
from .stages import SCALE_DECAY, StagesMixin


class PyramidQuantizer(StagesMixin, CellBottleneck):
    """Each grid quantises what the coarser ones left over (the multi-scale residual quantizer of
    Tian et al. 2024, arXiv 2404.02905, algorithm 1, with grids that are twice as fine as the one
    before and a quantizer of its own for each).

        context_0 = 0      residual_g = mean of the tokens in a position of grid g - context_g
        context_(g+1) = context_g + quantised residual_g, at the positions of grid g + 1

    The last context is the value. Its gradient passes as it passes the finest grid that the batch
    uses; coarser grids learn from their own terms, which are means over grids. What a grid gets is
    divided by its scale, as in a residual row.

    Codes lie on the coarsest grid: for each cell first its code of that grid, then those of each
    finer grid, row by row. A finer grid that is left out of a cell, with all grids finer still, is
    -1 there. Otherwise -1 is padding: of a cell, or of a position within it that has no real one
    of the finest grid.
    """

    def __init__(
        self,
        stages: Sequence[Quantizer],
        latent_dim: int | None = None,
        grid_dims: int = 2,
        dropout: float = 0.0,
    ) -> None:
        """`stages`: one for each grid, the coarsest first.

        dropout: share of the training batches that use only a random number of the first grids.
        """
        self.grid_sides = tuple(2**number for number in range(len(stages)))
        sizes: list[int] = []
        for stage, side in zip(stages, self.grid_sides, strict=True):
            for size in stage.codebook_sizes:
                sizes += [size] * side**grid_dims
        width = stages[0].code_dim
        super().__init__(latent_dim or width, sizes, grid_dims, self.grid_sides[-1])
        self.code_dim = width
        self._set_stages(list(stages), len(stages), dropout, torch.ones(len(stages)))
        self.project_in: nn.Module = nn.Identity()
        self.project_out: nn.Module = nn.Identity()
        if self.latent_dim != width:
            self.project_in = nn.Linear(self.latent_dim, width)
            self.project_out = nn.Linear(width, self.latent_dim)

    @property
    def sections(self) -> tuple[CodeSection, ...]:
        found: list[CodeSection] = []
        place = 0
        for number, side in enumerate(self.grid_sides):
            count = side**self.grid_dims
            for _ in self._stage(number).codebook_sizes:
                found.append(CodeSection(place, count, side))
                place += count
        return tuple(found)

    @property
    def prefixes(self) -> tuple[int, ...]:
        counts = [self._codes_of(number) for number in range(self.num_stages)]
        return tuple(sum(counts[: number + 1]) for number in range(self.num_stages))

    def parts(self) -> list[Quantizer]:
        parts: list[Quantizer] = []
        for number, side in enumerate(self.grid_sides):
            parts += repeated(self._stage(number).parts(), side, self.grid_dims)
        return parts

    def forward(
        self, latents: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None
    ) -> Quantized:
        with in_float32(latents.device):
            latents = self._checked_latents(latents, mask)
            tokens = self._bounded(latents, mask)
            depth = self._depth(generator, latents.device)
            moments = [_moments(_rows(tokens, mask))]
            context = tokens.new_zeros(())
            codes: list[Tensor] = []
            terms: list[Mapping[str, Tensor]] = []
            for number in range(depth):
                if number:
                    context = spread(context, 2)
                means, real = self._means(tokens, mask, number)
                rows = _rows(means - context, real)
                moments.append(_moments(rows))
                if self.training and self._is_unmeasured():
                    self._measure(moments, 0.0)
                # A copy, because the buffer moves on before the backward pass needs it.
                scale = self.scales[number].clone()
                result = self._stage(number).quantize(rows / scale, generator)
                values = _on_grid(result.values * scale, means, real, 0.0)
                # Gradients pass the finest of the grids alone.
                context = context + (values if number == depth - 1 else values.detach())
                codes.append(_on_grid(result.codes, means, real, PADDING))
                terms.append(result.terms)
            if self.training and not self.fits_any_scale:
                self._measure(moments, SCALE_DECAY)
                self._mark_measured(depth)
            value = spread(context, 2 ** (self.num_stages - depth))
            joined = terms_of(lambda: self._joined(terms, moments), self.training, latents.device)
            quantized = self._out(value, mask)
            return Quantized(quantized, self._arranged(codes), joined, self.default_weights)

    def encode(self, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        with in_float32(latents.device):
            tokens = self._bounded(self._checked_latents(latents, mask), mask)
            context = tokens.new_zeros(())
            codes: list[Tensor] = []
            for number in range(self.num_stages):
                if number:
                    context = spread(context, 2)
                means, real = self._means(tokens, mask, number)
                rows = _rows(means - context, real)
                chosen = self._stage(number).assign(rows / self.scales[number])
                values = self._stage(number).lookup(chosen) * self.scales[number]
                context = context + _on_grid(values, means, real, 0.0)
                codes.append(_on_grid(chosen, means, real, PADDING))
            return self._arranged(codes)

    def decode(self, codes: Tensor) -> Tensor:
        with in_float32(codes.device):
            grids = self._grids(self._checked_codes(codes))
            real = _real_positions(grids)
            context = self._values(0, grids[0])
            for number in range(1, self.num_stages):
                context = spread(context, 2) + self._values(number, grids[number])
            return self._out(context, real)

    def bits(self, codes: Tensor) -> Tensor:
        bits = [self._stage(number).bits(part) for number, part in enumerate(self._grids(codes))]
        return torch.stack(bits).sum(0)

    def tokens(self, latents: Tensor, section: int = 0) -> Tensor:
        with in_float32(latents.device):
            tokens = self._bounded(self._checked_latents(latents, None), None)
            return to_tokens(self._means(tokens, None, section)[0])

    def distances(self, tokens: Tensor, codes: Tensor) -> Tensor:
        done = codes.shape[1]
        for number in range(done):
            values = self._stage(number).lookup(codes[:, number : number + 1])
            tokens = tokens - values * self.scales[number]
        scale = self.scales[done]
        num_positions = (self.grid_multiple // self.grid_sides[done]) ** self.grid_dims
        found = self._stage(done).distances(tokens / scale, codes[:, :0])
        return found * (scale.square() * num_positions)

    def _codes_of(self, number: int) -> int:
        """Codes along Q of a grid."""
        in_a_position = self._stage(number).num_codebooks
        return in_a_position * self.grid_sides[number] ** self.grid_dims

    def _arranged(self, grids: list[Tensor]) -> Tensor:
        """Codes (B, q, *grid) of the first grids, each at its own positions -> (B, Q, *cells), -1
        for the others.
        """
        parts = []
        for codes, side in zip(grids, self.grid_sides, strict=False):
            parts.append(fold(codes, side))
        cells = parts[0]
        num_missing = self.num_codebooks - sum(part.shape[1] for part in parts)
        missing = cells.new_full((cells.shape[0], num_missing, *cells.shape[2:]), PADDING)
        return torch.cat([*parts, missing], 1)

    def _grids(self, codes: Tensor) -> list[Tensor]:
        """The inverse of `_arranged`, all grids."""
        counts = [self._codes_of(number) for number in range(self.num_stages)]
        parts = codes.split(counts, 1)
        return [unfold(part, side) for part, side in zip(parts, self.grid_sides, strict=True)]

    def _bounded(self, latents: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens of all positions (B, d, *grid), zeros where padded."""
        rows = self._stage(0).bound(self.project_in(to_tokens(latents)))
        tokens = from_tokens(rows, latents)
        return tokens if mask is None else tokens.where(mask.to(tokens.device)[:, None], 0.0)

    def _means(
        self, tokens: Tensor, mask: Tensor | None, number: int
    ) -> tuple[Tensor, Tensor | None]:
        """Means of the real tokens in every position of a grid (B, d, *grid), and which positions
        have any.
        """
        factor = self.grid_multiple // self.grid_sides[number]
        if factor == 1:
            return tokens, mask
        means = pooled(tokens, factor)
        if mask is None:
            return means, None
        mask = mask.to(tokens.device)
        shares = pooled(mask[:, None].float(), factor)
        return means / shares.clamp(min=factor**-self.grid_dims), coarse_mask(mask, factor)

    def _values(self, number: int, codes: Tensor) -> Tensor:
        """What codes (B, q, *grid) of a grid add there: (B, d, *grid), zeros for -1."""
        rows = to_tokens(codes)
        values = self._stage(number).lookup(rows.clamp(min=0)) * self.scales[number]
        return from_tokens(values.where(rows[:, :1] != PADDING, 0.0), codes)

    def _out(self, value: Tensor, mask: Tensor | None) -> Tensor:
        """The value (B, d, *grid) as latents, in the precision of the layer, zeros where padded."""
        weight = getattr(self.project_out, "weight", value)
        quantized = from_tokens(self.project_out(to_tokens(value).to(weight.dtype)), value)
        return quantized if mask is None else quantized.where(mask.to(value.device)[:, None], 0.0)

    def _joined(
        self, terms: list[Mapping[str, Tensor]], moments: list[tuple[Tensor, int]]
    ) -> dict[str, Tensor]:
        """The terms of all grids as one: means, but bits, which add up, each grid's for so many of
        the finest positions.
        """
        joined = {}
        num_tokens = moments[0][1]
        for name in terms[0]:
            each = torch.stack([one[name] for one in terms])
            if name == "rate":
                shares = [count / num_tokens for _, count in moments[1:]]
                joined[name] = (each * each.new_tensor(shares)).sum()
            else:
                joined[name] = each.mean()
        return joined

    @torch.no_grad()
    def _measure(self, moments: list[tuple[Tensor, int]], decay: float) -> None:
        """Let the scales of the grids that ran follow this batch: moments of all tokens, then of
        what each grid gets.
        """
        sums = torch.stack([total for total, _ in moments])
        counts = sums.new_tensor([count for _, count in moments])
        sums, counts = all_reduce_sum(torch.stack([sums, counts]))
        squares = sums / counts
        self._follow(squares[1:] / squares[0].clamp(min=1e-12), decay)


def _rows(tokens: Tensor, real: Tensor | None) -> Tensor:
    """The tokens (N, d) of real positions."""
    rows = to_tokens(tokens)
    return rows if real is None else rows[real.to(rows.device).reshape(-1)]


def _on_grid(rows: Tensor, like: Tensor, real: Tensor | None, filling: float) -> Tensor:
    """Rows of real positions (N, n) -> (B, n, *grid), with the filling elsewhere."""
    if real is not None:
        positions = real.to(rows.device).reshape(-1)
        whole = rows.new_full((positions.shape[0], rows.shape[1]), filling)
        rows = whole.masked_scatter(positions[:, None], rows)
    return from_tokens(rows, like)


def _moments(rows: Tensor) -> tuple[Tensor, int]:
    """Sum of the squares of rows, and their number."""
    return rows.detach().square().sum(), len(rows)


def _real_positions(grids: list[Tensor]) -> Tensor:
    """Codes (B, q, *grid) of every grid, coarse first -> which of the finest positions are real, in
    cells that may lack the finer grids.

    ValueError for codes that stand for nothing.
    """
    real = _present(grids[0], 0)
    cells = real
    for number, codes in enumerate(grids[1:], 1):
        present = _present(codes, number)
        # Cells that have this grid at all.
        cells = cells & fold(present[:, None], 2**number).any(1)
        above = spread(real[:, None], 2)[:, 0]
        if _any(present & ~(above & spread(cells[:, None], 2**number)[:, 0])):
            raise ValueError(
                f"codes of codebooks of grid {number} beside a coarse code of -1, which is padding "
                "or left out"
            )
        has_grid = spread(cells[:, None], 2 ** (number - 1))[:, 0]
        if _any(real & has_grid & ~fold(present[:, None], 2).any(1)):
            raise ValueError(
                f"a code of a codebook of grid {number - 1} whose finer positions are all -1, "
                "padding, beside finer codes in its cell"
            )
        real = torch.where(spread(cells[:, None], 2**number)[:, 0], present, above)
    return real


def _present(codes: Tensor, number: int) -> Tensor:
    """Which positions of a grid have codes (B, q, *grid): (B, *grid) bool."""
    missing = codes == PADDING
    if _any(missing.any(1) != missing.all(1)):
        raise ValueError(f"code -1 of a codebook of grid {number} beside others of its position")
    return ~missing[:, 0]


def _any(wrong: Tensor) -> bool:
    """Whether any is wrong; an exported program, without branches, does not look."""
    return not torch.compiler.is_exporting() and bool(wrong.any())
