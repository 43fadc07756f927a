"""Product quantisation: channels in groups, each with codes of its own, over any family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from .base import Quantizer, TokensQuantized
from .results import terms_of


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
        parts: list[Quantizer] = []
        for index in range(self.num_groups):
            parts += self._group(index).parts()
        return parts

    def bound(self, tokens: Tensor) -> Tensor:
        return self._by_group(tokens, lambda group, part: group.bound(part))

    def quantize(self, tokens: Tensor, generator: torch.Generator | None = None) -> TokensQuantized:
        if len(self.groups) == 1:
            # One pass over the tokens of all groups, so that shared statistics take a single step.
            group = self._group(0)
            result = group.quantize(tokens.reshape(-1, group.code_dim), generator)
            values = result.values.reshape(tokens.shape[0], -1)
            return TokensQuantized(values, result.codes.reshape(tokens.shape[0], -1), result.terms)
        results = [group.quantize(part, generator) for group, part in self._split(tokens)]
        values = torch.cat([result.values for result in results], 1)
        codes = torch.cat([result.codes for result in results], 1)
        terms = terms_of(
            lambda: _means([result.terms for result in results]), self.training, tokens.device
        )
        return TokensQuantized(values, codes, terms)

    def assign(self, tokens: Tensor) -> Tensor:
        return self._by_group(tokens, lambda group, part: group.assign(part))

    def bits(self, codes: Tensor) -> Tensor:
        return torch.stack([group.bits(part) for group, part in self._split(codes)]).sum(0)

    def lookup(self, codes: Tensor) -> Tensor:
        return self._by_group(codes, lambda group, part: group.lookup(part))

    def left_out(self, codes: Tensor) -> Tensor:
        return self._by_group(codes, lambda group, part: group.left_out(part))

    def _group(self, index: int) -> Quantizer:
        return self.groups[index % len(self.groups)]  # type: ignore[return-value]

    def _split(self, rows: Tensor) -> Iterator[tuple[Quantizer, Tensor]]:
        """Each group with its channels of tokens or codes (N, channels, ...)."""
        for index, columns in enumerate(rows.chunk(self.num_groups, 1)):
            yield self._group(index), columns

    def _by_group(self, rows: Tensor, function: Callable[[Quantizer, Tensor], Tensor]) -> Tensor:
        """`function` of each group and its columns, side by side: (N, ...) -> (N, ...)."""
        return torch.cat([function(group, part) for group, part in self._split(rows)], 1)


def _means(terms: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean over groups of each loss term."""
    return {name: torch.stack([one[name] for one in terms]).mean() for name in terms[0]}
