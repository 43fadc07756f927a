"""Wires encoder, transform, quantizer and decoder, and owns the sizes that follow from settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..config.sections import LossConfig
from ..shapes import Shape
from . import gaussian
from .likelihood import Likelihood, by_value
from .normality import build_normality
from .quantizers import build_quantizer
from .tiling import PART_POSITIONS, Reach, crop, pad_to_multiple
from .transform import build_transform

if TYPE_CHECKING:
    from ..settings import ModelConfig


class Widths(NamedTuple):
    """Channels at the ends of the networks: what the encoder gives, what the decoder takes, what it
    gives.
    """

    encoder: int
    latents: int
    outputs: int


class Clock(NamedTuple):
    """What a decoder must know of all that came before a position, along the one dimension of the
    grid.

    passing: latents (B, D, t) -> what each position adds, (B, n, t) int64, a function of the
    position and few around it. cycles: after how much each of the n begins anew.
    """

    passing: Callable[[Tensor], Tensor]
    cycles: tuple[int, ...]

    def read(self, latents: Tensor, start: Tensor | None = None) -> Tensor:
        """(B, n, t) int64 at the beginning of every position. start: (B, n) at the first; None =
        0.
        """
        passing = self.passing(latents)
        passed = passing.cumsum(2) - passing
        if start is not None:
            passed = passed + start[..., None]
        return passed % torch.tensor(self.cycles, device=passed.device)[:, None]


class Ahead(NamedTuple):
    """How far networks look ahead along the one dimension of an item, in values.

    encoder: values behind the end of a tile that its codes depend on. decoder: values behind a
    value up to which codes must be known for it.
    """

    encoder: int
    decoder: int


class Backbone(NamedTuple):
    """The networks around the bottleneck.

    encoder: (B, C, *extent) -> (B, encoder width, *grid), for extents of whole tiles. decoder: the
    way back.
    tile: the smallest extent that the encoder takes. tile_grid: the grid of one tile. reach:
    positions of the grid that encoder and decoder together look around, an upper bound;
    decoder_reach: the decoder alone. ahead: of items along one dimension, how far they look ahead,
    and reach is then how far they look back; None = as far ahead as back. part_positions: positions
    of an item that are computed at once, if it is larger. clock: of a decoder that takes it behind
    its latents, as n more channels.
    encodes_exactly: codes are found in float64, so that they do not depend on what else is computed
    at the time.
    """

    encoder: nn.Module
    decoder: nn.Module
    tile: tuple[int, ...]
    tile_grid: tuple[int, ...]
    reach: int
    decoder_reach: int
    ahead: Ahead | None = None
    part_positions: int = PART_POSITIONS
    clock: Clock | None = None
    encodes_exactly: bool = False


class Output(NamedTuple):
    """Result of a forward pass.

    reconstruction: (B, C, *extent) standardised. codes: (B, Q, *grid) int64, -1 where padded.
    terms: unweighted scalar losses by name, each a mean over the values of the batch.
    """

    reconstruction: Tensor
    codes: Tensor
    terms: dict[str, Tensor]


class Autoencoder(nn.Module):
    """x (B, C, *extent) -> encoder -> z -> transform -> quantizer -> inverse transform -> decoder
    -> reconstruction.

    With `config.variational` the encoder gives a mean and a variance, and training draws z from
    them; evaluation takes the mean. Where `losses.kl` is 0 nothing asks for a variance, so there is
    none: z is the encoder's output, to the bit. Values are standardised float32. Any extent will
    do: x is padded to whole tiles by repeating its edge, and cropped back. `shape` is that of
    training, which only some networks depend on; `std` and `mean` (C,) are what standardised the
    values; only `losses.distortion: logistic_mixture` needs the mean. ValueError for settings that
    contradict one another.
    """

    def __init__(
        self,
        config: ModelConfig,
        shape: Shape,
        losses: LossConfig,
        std: Sequence[float],
        mean: Sequence[float] | None,
        build_backbone: Callable[..., Backbone],
    ) -> None:
        super().__init__()
        self.shape = shape
        dims = len(shape.extent)
        self.is_sampled = config.variational and losses.kl.peak > 0
        self.quantizer = build_quantizer(config.quantizer)
        self.transform = build_transform(
            config.transform, self.quantizer.latent_dim, dims, is_causal=config.causal
        )
        self.likelihood = Likelihood(losses.distortion, std, mean, losses.num_mixtures, dims)
        widths = Widths(
            encoder=self.transform.latent_dim * (2 if self.is_sampled else 1),
            latents=self.quantizer.latent_dim,
            outputs=shape.channels * self.likelihood.outputs_per_channel,
        )
        backbone = build_backbone(config.network, shape, widths)
        self.encoder = backbone.encoder
        self.decoder = backbone.decoder
        self.normality = build_normality(losses, self.quantizer.latent_dim, dims)
        # The quantizer may want a grid of a multiple, on which several positions share a cell of
        # codes.
        self.tile = tuple(side * self.quantizer.grid_multiple for side in backbone.tile)
        self.tile_grid = backbone.tile_grid
        # Tiles to either side that codes may depend on, an upper bound: 2 more for a quantizer that
        # looks around itself, in its own, coarser positions, and 2 for every block of a transform
        # that does.
        around = backbone.reach - backbone.decoder_reach + 2 + self.transform.reach
        side = self.tile[0]
        self.ahead = Ahead(around * side, backbone.decoder_reach * side)
        if backbone.ahead is not None:
            # No quantizer looks out of a cell, which is a tile.
            transform = self.transform.ahead * backbone.tile[0]
            self.ahead = Ahead(backbone.ahead.encoder + transform, backbone.ahead.decoder)
        self.encoder_reach = Reach(around, -(-self.ahead.encoder // side))
        # Codes become latents cell by cell, and no transform that looks around has an inverse.
        self.decoder_reach = Reach(backbone.decoder_reach, -(-self.ahead.decoder // side))
        self.reach = self.encoder_reach.before(self.decoder_reach)
        self.part_positions = backbone.part_positions
        self.clock = backbone.clock
        self.encodes_exactly = backbone.encodes_exactly
        # Whether codes have costs of their own: scalar ones.
        self.has_costs = config.quantizer.has_loss("rate")
        # Codebooks are as large as the latents; only a step can be finer.
        self.max_gain = config.max_gain if self.has_costs else 1.0
        self.has_frozen_codes = False

    def freeze_codes(self) -> None:
        """From now on only the decoder learns, and what its output is read with: every item keeps
        its codes, to the bit.
        """
        self.has_frozen_codes = True
        for part in self._parts_of_codes():
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As of every module; parts that are frozen stay in eval mode."""
        super().train(mode)
        if self.has_frozen_codes:
            for part in self._parts_of_codes():
                part.eval()
        return self

    def codes_state(self) -> dict[str, Tensor]:
        """Parameters and buffers that decide which codes an item has and what they stand for, by
        name.
        """
        free = ("decoder.", "likelihood.")
        state = self.state_dict()
        return {name: value for name, value in state.items() if not name.startswith(free)}

    def _parts_of_codes(self) -> list[nn.Module]:
        """What decides which codes an item has, and what they stand for."""
        parts = [self.encoder, self.transform, self.quantizer]
        return parts if self.normality is None else [*parts, self.normality]

    def forward(
        self,
        x: Tensor,
        generator: torch.Generator | None = None,
        target: Tensor | None = None,
        mask: Tensor | None = None,
        parts: int = 1,
    ) -> Output:
        """x and what it shall become (default: the same), both (B, C, *extent).

        mask: (B, *extent) bool, True where a position is real; others have no part in codes and
        terms, whatever x and target hold there. Or (B, C, *extent), of single values: a position is
        real where one of them is. parts: the networks go through the batch in so many parts and are
        computed again backwards, which saves memory; the bottleneck always sees the whole batch, so
        that the result is that of one part.
        """
        wanted = x if target is None else target
        x = _without_padding(x, mask)
        mean, log_var = self.posterior(x, parts)
        z = mean
        if log_var is not None and self.training and not self.has_frozen_codes:
            z = gaussian.sample(mean, log_var, generator)
        latents = self.transform(z)
        grid_mask = None
        if mask is not None:
            grid_mask = self.grid_mask(mask.any(1) if mask.dim() == x.dim() else mask)
        gain = self._gain(generator)
        gained = latents if gain is None else latents * gain
        result = self.quantizer(gained, generator, grid_mask)
        quantized = result.quantized if gain is None else result.quantized / gain
        clock = None if self.clock is None else self._any_time(quantized, generator)
        decoded = self._decoded(quantized, x.shape[2:], parts, clock)
        terms = {"reconstruction": self.likelihood(decoded, wanted, mask), **result.terms}
        if log_var is not None:
            # Nats per item; reconstruction is a mean over values, and so must be its counterpart.
            terms["kl"] = gaussian.kl(mean, log_var, grid_mask) / _values_per_item(x, mask)
        if "rate" in terms:
            # Bits per position of the latents, likewise.
            terms["rate"] = terms["rate"] * _positions_per_value(latents, grid_mask, x, mask)
        if self.normality is not None:
            terms["transform"] = self.normality(latents, generator, grid_mask)
        return Output(self.likelihood.mean(decoded), result.codes, terms)

    def latents(self, x: Tensor) -> Tensor:
        """Standardised x (B, C, *extent) -> what the quantizer gets in eval mode (B, D, *grid): no
        noise.
        """
        return self.transform(self.posterior(x)[0])

    def encode(self, x: Tensor, mask: Tensor | None = None, gain: float = 1.0) -> Tensor:
        """Standardised x (B, C, *extent) -> codes (B, Q, *grid) int64.

        mask (B, *extent) as in `forward`. gain: what latents are multiplied by before they are
        quantised.
        """
        latents = self.latents(_without_padding(x, mask))
        if gain != 1.0:
            latents = latents * gain
        grid_mask = None if mask is None else self.grid_mask(mask)
        return self.quantizer.encode(latents, grid_mask)

    def decode(
        self,
        codes: Tensor,
        extent: Sequence[int] | None = None,
        gain: float = 1.0,
        clock: Tensor | None = None,
    ) -> Tensor:
        """Codes (B, Q, *grid) -> standardised (B, C, *extent), whole tiles when extent is None.

        gain: what the latents were multiplied by before they were quantised. clock: as `read_clock`
        gives it, of codes that are a part of an item; None = they begin with it.
        """
        quantized = self._quantized(codes) / gain
        return self.likelihood.mean(self._decoded(quantized, extent, clock=clock))

    def decoder_output(self, codes: Tensor) -> Tensor:
        """What `decode` has before it chooses values: (B, C * outputs_per_channel, *whole tiles),
        of which `likelihood` tells the nats of any others, too.
        """
        return self._decoded(self._quantized(codes), None)

    def read_clock(self, codes: Tensor, gain: float = 1.0, start: Tensor | None = None) -> Tensor:
        """What `decode` needs of codes (B, Q, t) where the decoder has a clock: (B, n, t) int64."""
        assert self.clock is not None
        latents = self.transform.inverse(self._quantized(codes) / gain)
        return self.clock.read(latents, start)

    def decode_latents(self, latents: Tensor, extent: Sequence[int] | None = None) -> Tensor:
        """As `decode`, of latents (B, D, *grid) that no quantizer has touched."""
        return self.likelihood.mean(self._decoded(latents, extent))

    def repaired(self, x: Tensor, latents: Tensor, nats: float) -> Tensor:
        """Standardised x (B, C, *extent) with other values where they are likelier by more than so
        many nats, given latents (B, D, *grid) or what codes of them stand for.
        """
        return self.likelihood.repaired(self._decoded(latents, x.shape[2:]), x, nats)

    def nats(self, x: Tensor, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        """-log p(x | codes) of standardised x (B, C, *extent) given codes (B, Q, *grid): (B,)
        float64, in nats.

        ValueError where `losses.distortion` is not a likelihood.
        """
        return self.likelihood.nats(self._decoded(self._quantized(codes), x.shape[2:]), x, mask)

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Grid of the codes of an item of that extent."""
        grid = []
        for side, tile, cells in zip(extent, self.tile, self.tile_grid, strict=True):
            grid.append(-(-side // tile) * cells)
        return tuple(grid)

    def grid_mask(self, mask: Tensor) -> Tensor:
        """(B, *extent) bool -> (B, *latent grid) bool: a position of the latents is real where a
        part of it is.

        The grid is that of the latents; codes of a hierarchy lie on a coarser one.
        """
        multiple = self.quantizer.grid_multiple
        # F.pad takes the amounts before and behind, from the last dimension to the first.
        padding: list[int] = []
        for side, tile in zip(reversed(mask.shape[1:]), reversed(self.tile), strict=True):
            padding += (0, -side % tile)
        padded = F.pad(mask, padding)
        folded = padded
        for axis, (tile, cells) in enumerate(zip(self.tile, self.tile_grid, strict=True), 1):
            count = padded.shape[axis] // tile * cells * multiple
            folded = folded.unflatten(axis, (count, -1)).any(axis + 1)
        return folded

    def num_bits(self, extent: Sequence[int]) -> float:
        """Bits of all codes of an item without entropy coding."""
        return self.quantizer.bits_per_position * Shape(1, tuple(self.grid(extent))).num_positions

    def bits_in_words(self, extent: Sequence[int]) -> str:
        """`num_bits`, and whether it is but a bound, far above what most codes cost."""
        bound = "at most " if self.has_costs else ""
        return f"{bound}{self.num_bits(extent):.0f} bits"

    def sample_codes(self, count: int, extent: Sequence[int], generator: torch.Generator) -> Tensor:
        """Codes (count, Q, *grid) of items of an extent as the prior has them, drawn on the CPU.

        Finite codes are uniform and independent; without a quantizer z ~ N(0, 1). Decoded, these
        are items as far as training made codes or z follow that prior.
        """
        device = next(self.parameters()).device
        grid = self.grid(extent)
        if self.quantizer.is_discrete:
            draws = []
            for size in self.quantizer.codebook_sizes:
                draws.append(torch.randint(size, (count, *grid), generator=generator))
            return torch.stack(draws, dim=1).to(device)
        latents = torch.randn((count, self.transform.latent_dim, *grid), generator=generator)
        return self.quantizer.encode(self.transform(latents.to(device)))

    def posterior(self, x: Tensor, parts: int = 1) -> tuple[Tensor, Tensor | None]:
        """Mean of z given x (B, latent_dim, *grid), and its log-variance where z is sampled."""
        output = in_parts(self.encoder, pad_to_multiple(x, self.tile), parts)
        if not self.is_sampled:
            return output, None
        return gaussian.mean_and_log_variance(output)

    def _gain(self, generator: torch.Generator | None) -> Tensor | None:
        """What the latents of this batch are multiplied by, equal on all ranks; None for nothing.

        Its logarithm is uniform between those of 1 / max_gain and max_gain (after Cui et al. 2021,
        arXiv 2003.02012, whose gains are learned). A batch that is measured has none.
        """
        if self.max_gain == 1.0 or generator is None:
            return None
        share = torch.rand((), generator=generator, device=generator.device)
        return self.max_gain ** (2 * share - 1)

    def _quantized(self, codes: Tensor) -> Tensor:
        """Codes -> quantized in the precision of the decoder: a model may be decoded in float64."""
        return self.quantizer.decode(codes).to(next(self.decoder.parameters()).dtype)

    def _any_time(self, quantized: Tensor, generator: torch.Generator | None) -> Tensor:
        """The clock of quantized (B, D, t), from a random start where there is a generator: what
        happens to come first in an item is nothing to be learnt.
        """
        assert self.clock is not None
        start = None
        if generator is not None:
            draws = torch.rand(len(self.clock.cycles), generator=generator, device=generator.device)
            cycles = torch.tensor(self.clock.cycles, device=draws.device)
            start = (draws * cycles).long().expand(len(quantized), -1).to(quantized.device)
        return self.clock.read(self.transform.inverse(quantized), start)

    def _decoded(
        self,
        quantized: Tensor,
        extent: Sequence[int] | None,
        parts: int = 1,
        clock: Tensor | None = None,
    ) -> Tensor:
        """What the decoder gives (B, C * outputs_per_channel, *extent), of which `likelihood` makes
        values or nats.
        """
        latents = self.transform.inverse(quantized)
        if self.clock is not None:
            time = self.clock.read(latents) if clock is None else clock
            latents = torch.cat([latents, time.to(latents.dtype)], 1)
        output = in_parts(self.decoder, latents, parts).float()
        if extent is None:
            return output
        return crop(output, extent)


def channels_last(x: Tensor) -> Tensor:
    """x in the memory layout that convolutions are fastest in, where there is one for its
    dimensions.
    """
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.contiguous(memory_format=layouts.get(x.dim(), torch.contiguous_format))


def in_parts(network: nn.Module, x: Tensor, parts: int) -> Tensor:
    """network(x), one part of the batch at a time.

    Activations are computed again backwards (Chen et al. 2016).
    """
    if parts == 1:
        return network(x)
    return torch.cat([checkpoint(network, part, use_reentrant=False) for part in x.chunk(parts)])


def _without_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (B, C, *extent) with zeros where the mask (B, *extent), or (B, C, *extent), is False.

    Networks, which look around, see no others.
    """
    if mask is None:
        return x
    return x.where(by_value(mask, x), 0.0)


def _positions_per_value(
    latents: Tensor, grid_mask: Tensor | None, x: Tensor, mask: Tensor | None
) -> Tensor | float:
    """Real positions of the latents (B, D, *grid) for every real value of x."""
    if mask is None or grid_mask is None:
        return latents[:, :1].numel() / x.numel()
    return grid_mask.sum() / by_value(mask, x).expand_as(x).sum()


def _values_per_item(x: Tensor, mask: Tensor | None) -> Tensor | int:
    """Real values of an item, on average over the batch."""
    if mask is None:
        return x[0].numel()
    return by_value(mask, x).expand_as(x).sum() / len(x)
