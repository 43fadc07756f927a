"""Product quantisation: channels in groups, each with codes of its own, over any family."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import Quantizer, TokensQuantized


class ProductQuantizer(Quantizer):
    """Channels are cut into groups that are quantised apart (Jegou et al. 2011, section II.B; multi-head quantisation).

    G groups of K codes make K^G combinations at the cost of G searches among K. Terms are means over groups.
    """

    def __init__(self, groups: Sequence[Quantizer], num_groups: int, latent_dim: int | None = None) -> None:
        """`groups`: one for each of num_groups, or a single one that all share."""
        sizes = [size for index in range(num_groups) for size in groups[index % len(groups)].codebook_sizes]
        super().__init__(num_groups * groups[0].code_dim, sizes, latent_dim)
        self.groups = nn.ModuleList(groups)
        self.num_groups = num_groups
        self.default_weights = groups[0].default_weights
        self.fits_any_scale = groups[0].fits_any_scale

    def parts(self) -> list[Quantizer]:
        return [part for index in range(self.num_groups) for part in self._group(index).parts()]

    def bound(self, tokens: Tensor) -> Tensor:
        return torch.cat([group.bound(part) for group, part in self._split(tokens)], 1)

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        if len(self.groups) == 1:  # one pass over the tokens of all groups, so that shared statistics take one step
            result = self._group(0).quantize(tokens.reshape(-1, self._group(0).code_dim), generator)
            rows = len(tokens)
            return TokensQuantized(result.values.reshape(rows, -1), result.codes.reshape(rows, -1), result.terms)
        results = [group.quantize(part, generator) for group, part in self._split(tokens)]
        terms = {name: torch.stack([result.terms[name] for result in results]).mean() for name in results[0].terms}
        values, codes = (torch.cat([getattr(result, name) for result in results], 1) for name in ("values", "codes"))
        return TokensQuantized(values, codes, terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return torch.cat([group.assign(part) for group, part in self._split(tokens)], 1)

    def lookup(self, codes: Tensor) -> Tensor:
        return torch.cat([group.lookup(part) for group, part in self._split(codes)], 1)

    def _group(self, index: int) -> Quantizer:
        return self.groups[index % len(self.groups)]  # type: ignore[return-value]

    def _split(self, rows: Tensor) -> list[tuple[Quantizer, Tensor]]:
        """Each group with its columns of tokens or codes (N, ...)."""
        return [(self._group(index), part) for index, part in enumerate(rows.chunk(self.num_groups, 1))]
