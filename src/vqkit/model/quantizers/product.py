"""Product quantisation: channels in groups, each with codes of its own, over any family."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import Quantizer, TokensQuantized


class ProductQuantizer(Quantizer):
    """Channels cut into groups that are quantised apart (Jegou et al. 2011, section II.B;
    multi-head quantisation).

    G groups of K codes make K^G combinations for the cost of G searches among K. Terms are means
    over groups.
    """

    def __init__(
        self, groups: Sequence[Quantizer], num_groups: int, latent_dim: int | None = None
    ) -> None:
        """`groups`: one for each of num_groups, or a single one that all share."""
        sizes: list[int] = []
        for index in range(num_groups):
            sizes += groups[index % len(groups)].codebook_sizes
        super().__init__(num_groups * groups[0].code_dim, sizes, latent_dim)
        self.groups = nn.ModuleList(groups)
        self.num_groups = num_groups
        self.default_weights = groups[0].default_weights
        self.fits_any_scale = groups[0].fits_any_scale
        self.is_straight_through = groups[0].is_straight_through

    def parts(self) -> list[Quantizer]:
        return [part for index in range(self.num_groups) for part in self._group(index).parts()]

    def bound(self, tokens: Tensor) -> Tensor:
        return torch.cat([group.bound(part) for group, part in self._split(tokens)], 1)

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        if len(self.groups) == 1:
            # One pass over the tokens of all groups, so that shared statistics take a single step.
            group = self._group(0)
            result = group.quantize(tokens.reshape(-1, group.code_dim), generator)
            values = result.values.reshape(len(tokens), -1)
            return TokensQuantized(values, result.codes.reshape(len(tokens), -1), result.terms)
        results = [group.quantize(part, generator) for group, part in self._split(tokens)]
        terms = {
            name: torch.stack([result.terms[name] for result in results]).mean()
            for name in results[0].terms
        }
        values = torch.cat([result.values for result in results], 1)
        codes = torch.cat([result.codes for result in results], 1)
        return TokensQuantized(values, codes, terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return torch.cat([group.assign(part) for group, part in self._split(tokens)], 1)

    def lookup(self, codes: Tensor) -> Tensor:
        return torch.cat([group.lookup(part) for group, part in self._split(codes)], 1)

    def left_out(self, codes: Tensor) -> Tensor:
        return torch.cat([group.left_out(part) for group, part in self._split(codes)], 1)

    def _group(self, index: int) -> Quantizer:
        return self.groups[index % len(self.groups)]  # type: ignore[return-value]

    def _split(self, rows: Tensor) -> list[tuple[Quantizer, Tensor]]:
        """Each group with its columns of tokens or codes (N, ...)."""
        columns = rows.chunk(self.num_groups, 1)
        return [(self._group(index), part) for index, part in enumerate(columns)]
