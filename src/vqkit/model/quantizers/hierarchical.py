"""Two grids or more: a coarse one for the rough content, a fine one for the detail."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .base import PADDING, Bottleneck, Quantized, Quantizer
from .cells import CellBottleneck, coarse_mask, fold, repeated, unfold
from .results import in_float32, terms_of


class HierarchicalQuantizer(CellBottleneck):
    """A coarse grid first, then a fine one conditioned on it (Razavi et al. 2019, arXiv 1906.00446,
    section 3.1).

        latents --cells of 2^n positions, linear--> top --linear, back to positions--> context
        [latents, context] --linear--> bottom --linear--> + context = quantized

    Codes lie on the coarse grid: for each cell first the codes of the top, then those of its
    positions, row by row. The top may be hierarchical again, which makes three grids. A cell is
    padding where all of its positions are; a position inside of a real cell may be padding alone.
    """

    def __init__(self, top: Bottleneck, bottom: Quantizer, latent_dim: int, grid_dims: int) -> None:
        grid_multiple = 2 * top.grid_multiple
        sizes = list(top.codebook_sizes)
        for size in bottom.codebook_sizes:
            sizes += [size] * grid_multiple**grid_dims
        super().__init__(latent_dim, sizes, grid_dims, grid_multiple)
        self.top = top
        self.bottom = bottom
        cell = 2**grid_dims * latent_dim
        self.to_top = nn.Linear(cell, top.latent_dim)
        self.from_top = nn.Linear(top.latent_dim, cell)
        self.to_bottom = nn.Linear(2 * latent_dim, bottom.latent_dim)
        self.from_bottom = nn.Linear(bottom.latent_dim, latent_dim)
        self.default_weights = {**bottom.default_weights, **top.default_weights}

    def parts(self) -> list[Quantizer]:
        bottom = repeated(self.bottom.parts(), self.grid_multiple, self.grid_dims)
        return [*self.top.parts(), *bottom]

    def forward(
        self, latents: Tensor, generator: torch.Generator | None = None, mask: Tensor | None = None
    ) -> Quantized:
        with in_float32(latents.device):
            latents = self._checked_latents(latents, mask)
            top = self.top(self._top_latents(latents), generator, coarse_mask(mask))
            context = self._context(top.quantized)
            bottom = self.bottom(self._bottom_latents(latents, context), generator, mask)
            quantized = self._join(context, bottom.quantized, mask)
            terms = terms_of(
                lambda: _joined(top.terms, bottom.terms), self.training, latents.device
            )
        codes = self._arrange(top.codes, bottom.codes)
        return Quantized(quantized, codes, terms, self.default_weights)

    def encode(self, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        with in_float32(latents.device):
            latents = self._checked_latents(latents, mask)
            top = self.top.encode(self._top_latents(latents), coarse_mask(mask))
            context = self._context(self.top.decode(top))
            bottom = self.bottom.encode(self._bottom_latents(latents, context), mask)
            return self._arrange(top, bottom)

    def bits(self, codes: Tensor) -> Tensor:
        num_top = self.top.num_codebooks
        bottom = unfold(codes[:, num_top:], self.grid_multiple)
        return self.top.bits(codes[:, :num_top]) + self.bottom.bits(bottom)

    def decode(self, codes: Tensor) -> Tensor:
        with in_float32(codes.device):
            codes = self._checked_codes(codes)
            num_top = self.top.num_codebooks
            top = codes[:, :num_top]
            below = codes[:, num_top:]
            alone = (top == PADDING).all(1) & (below != PADDING).any(1)
            if not torch.compiler.is_exporting() and alone.any():
                raise ValueError("codes of a cell's positions beside a coarse code of -1, padding")
            bottom = unfold(below, self.grid_multiple)
            context = self._context(self.top.decode(top))
            return self._join(context, self.bottom.decode(bottom), (bottom != PADDING).any(1))

    def _top_latents(self, latents: Tensor) -> Tensor:
        return _pointwise(self.to_top, fold(latents, 2))

    def _context(self, top: Tensor) -> Tensor:
        return unfold(_pointwise(self.from_top, top), 2)

    def _bottom_latents(self, latents: Tensor, context: Tensor) -> Tensor:
        return _pointwise(self.to_bottom, torch.cat([latents, context], 1))

    def _join(self, context: Tensor, bottom: Tensor, mask: Tensor | None) -> Tensor:
        joined = context + _pointwise(self.from_bottom, bottom)
        if mask is None:
            return joined
        return joined.where(mask.to(joined.device)[:, None], 0.0)

    def _arrange(self, top: Tensor, bottom: Tensor) -> Tensor:
        return torch.cat([top, fold(bottom, self.grid_multiple)], 1)


def _joined(top: Mapping[str, Tensor], bottom: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The terms of both grids as one: means, where both have them."""
    joined = {}
    for name in {**top, **bottom}:
        both = [terms[name] for terms in (top, bottom) if name in terms]
        joined[name] = torch.stack(both).mean()
    return joined


def _pointwise(layer: nn.Linear, x: Tensor) -> Tensor:
    """A layer over the channels of (B, C, *grid), in the precision of its weights."""
    return layer(x.movedim(1, -1).to(layer.weight.dtype)).movedim(-1, 1)
