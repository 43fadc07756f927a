"""Grids of several resolutions, whose codes lie together on the coarsest: cell by cell.

A cell is one position of the coarsest grid, and all positions of the finer ones within it. Along Q
it has the codes of the coarsest grid first, then those of each finer one, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .base import Bottleneck, Quantizer, check_latents


class CellBottleneck(Bottleneck):
    """A bottleneck that quantises cells of `grid_multiple` positions along each of `grid_dims`
    sides.
    """

    def __init__(
        self, latent_dim: int, codebook_sizes: Sequence[int], grid_dims: int, grid_multiple: int
    ) -> None:
        super().__init__(latent_dim, codebook_sizes)
        self.grid_dims = grid_dims
        self.grid_multiple = grid_multiple

    def _checked_latents(self, latents: Tensor, mask: Tensor | None) -> Tensor:
        """In the precision of the quantizer, zeros where padded: cells mix positions.

        ValueError for a grid that makes no cells.
        """
        check_latents(latents, self.latent_dim, mask)
        grid = tuple(latents.shape[2:])
        if len(grid) != self.grid_dims or any(side % self.grid_multiple for side in grid):
            raise ValueError(
                f"cells of {self.grid_dims} grid dimensions need sides that are multiples of "
                f"{self.grid_multiple}, got {grid}"
            )
        latents = latents.float().to(self._precision)
        if mask is None:
            return latents
        return latents.where(mask.to(latents.device)[:, None], 0.0)

    def _checked_codes(self, codes: Tensor) -> Tensor:
        codes = super()._checked_codes(codes)
        if codes.dim() != 2 + self.grid_dims:
            raise ValueError(
                f"cells of {self.grid_dims} grid dimensions have codes (B, {self.num_codebooks}, "
                f"*grid), got {tuple(codes.shape)}"
            )
        return codes


def repeated(parts: Sequence[Quantizer], factor: int, dims: int) -> list[Quantizer]:
    """The parts of a grid that has `factor` positions along each side of a cell, in the order of
    Q.
    """
    places: list[Quantizer] = []
    for part in parts:
        places += [part] * factor**dims
    return places


def coarse_mask(mask: Tensor | None, factor: int = 2) -> Tensor | None:
    """(B, *grid) bool -> (B, *grid / factor): real where one of its positions is."""
    if mask is None:
        return None
    return fold(mask[:, None], factor).any(1)


def fold(x: Tensor, factor: int) -> Tensor:
    """(B, C, *grid) -> (B, C * factor^n, *grid / factor): cells become channels, of each channel
    row by row.
    """
    dims = x.dim() - 2
    sides: list[int] = []
    for side in x.shape[2:]:
        sides += (side // factor, factor)
    x = x.reshape(*x.shape[:2], *sides)
    cells = range(2, 2 + 2 * dims, 2)
    inside = range(3, 3 + 2 * dims, 2)
    return x.permute(0, 1, *inside, *cells).flatten(1, 1 + dims)


def unfold(x: Tensor, factor: int) -> Tensor:
    """The inverse of `fold`: (B, C * factor^n, *grid) -> (B, C, *grid * factor)."""
    grid = x.shape[2:]
    x = x.reshape(x.shape[0], -1, *[factor] * len(grid), *grid)
    inside = range(2, 2 + len(grid))
    cells = range(2 + len(grid), 2 + 2 * len(grid))
    order: list[int] = []
    for cell, place in zip(cells, inside, strict=True):
        order += (cell, place)
    return x.permute(0, 1, *order).reshape(*x.shape[:2], *(side * factor for side in grid))


def spread(x: Tensor, factor: int) -> Tensor:
    """(B, C, *grid) -> (B, C, *grid * factor): every position as often as it has finer ones."""
    for axis in range(2, 2 * x.dim() - 2, 2):
        x = x.unsqueeze(axis + 1).expand(*x.shape[: axis + 1], factor, *x.shape[axis + 1 :])
    return x.reshape(*x.shape[:2], *_joined_sides(x.shape[2:]))


def pooled(x: Tensor, factor: int) -> Tensor:
    """(B, C, *grid) -> (B, C, *grid / factor): means of the positions of each cell."""
    return fold(x, factor).unflatten(1, (x.shape[1], -1)).mean(2)


def _joined_sides(sides: Sequence[int]) -> list[int]:
    """Sides and factors in turn, multiplied."""
    return [side * factor for side, factor in zip(sides[::2], sides[1::2], strict=True)]
