"""Values to codes and back, on any device."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial, wraps
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..coding import ScalarCodes
from ..model.autoencoder import Autoencoder, channels_last
from ..model.order_free import OrderFree
from ..model.quantizers.base import PADDING
from ..model.tiling import by_parts, crop, cut, from_parts, pad_to_multiple, parts_of, spans
from ..shapes import Shape
from .device import resolve_device
from .record import Artifact

# Values of the items that go through the networks together; of larger items, each goes in parts by
# itself.
BATCH_VALUES = 1 << 22
# Parts of large items are so many times smaller than they might be, beside scalar codes that are
# kept: they cost a tenth more time and half of the memory.
SHARE = 2
# Scalar codes that are found or looked up together: each takes 40 bytes meanwhile.
CODES_TOGETHER = 1 << 20

Spans = Sequence[tuple[int, int]]
Result = TypeVar("Result")


def _computed(method: Callable[..., Result]) -> Callable[..., Result]:
    """A method of a tokenizer in which networks are used."""

    @wraps(method)
    def computed(self: Tokenizer, *args: Any, **kwargs: Any) -> Result:
        with torch.no_grad():
            if not self.order_free or OrderFree.is_on():
                return method(self, *args, **kwargs)
            with OrderFree():
                return method(self, *args, **kwargs)

    return computed


class Tokenizer:
    """Encodes and decodes with the network of an artifact.

    Values are what files hold, (B, C, *extent) of any extent, on any device; codes and values come
    back on the CPU. The artifact's own network is used on the CPU, a copy of it elsewhere: nothing
    is moved in place.
    """

    def __init__(
        self, artifact: Artifact, device: str | torch.device = "cpu", *, order_free: bool = False
    ) -> None:
        """order_free: compute on the CPU as model.order_free says, so that codes and values are the
        same on every machine. VqkitError then, as soon as the network does what that does not
        cover.
        """
        self.artifact = artifact
        self.order_free = order_free
        self.device = resolve_device("cpu" if order_free else device)
        self.normalisation = artifact.normalisation
        self.network = artifact.network
        if self.device.type != "cpu":
            self.network = copy.deepcopy(artifact.network).to(self.device)

    @property
    def shape(self) -> Shape:
        """Channels and extent of the items of training."""
        return self.artifact.shape

    @property
    def num_codebooks(self) -> int:
        """Q, codes of a position."""
        return self.network.quantizer.num_codebooks

    def grid(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Grid of the codes of an item of that extent."""
        return self.network.grid(extent)

    def standardise(self, values: Tensor) -> Tensor:
        """Values (B, C, *extent) -> what the network takes, on its device."""
        return channels_last(self.normalisation.apply(values.to(self.device)))

    def restore(self, standardised: Tensor) -> Tensor:
        """What the network gives (B, C, *extent) -> values on the CPU, rounded as files hold
        them.
        """
        return self.normalisation.restore(standardised).cpu()

    @_computed
    def encode(self, values: Tensor, mask: Tensor | None = None, gain: float = 1.0) -> Tensor:
        """Values (B, C, *extent) -> codes (B, Q, *grid) int64.

        mask (B, *extent) bool, True where real. gain: what latents are multiplied by before they
        are quantised.
        """
        network = self._encoding
        if mask is not None and network.encodes_exactly and mask.dim() == 2:
            return self._encoded_without_padding(values, mask, gain)
        if mask is not None:
            found = network.encode(self._standardised(values, network), mask.to(self.device), gain)
            return found.cpu()
        encode = partial(network.encode, gain=gain)
        parts = values.split(max(1, BATCH_VALUES // max(1, values[0].numel())))
        return _joined([self._encoded(encode, part, self.network.tile_grid) for part in parts])

    def _encoded_without_padding(self, values: Tensor, mask: Tensor, gain: float) -> Tensor:
        """As `encode`, of items along one dimension, padded behind their end: each has the codes
        that it has without its padding, which an encoder that looks ahead would see.
        """
        # Up to the last position that is real: gaps before it are seen, whatever fills them.
        places = torch.arange(1, mask.shape[1] + 1)
        lengths = (mask.cpu() * places).amax(1)
        grid = self.grid(values.shape[2:])
        codes = torch.full((len(values), self.num_codebooks, *grid), PADDING)
        for length in lengths.unique().tolist():
            if length:
                rows = (lengths == length).nonzero()[:, 0]
                found = self.encode(values[rows, :, :length], gain=gain)
                codes[rows, :, : found.shape[2]] = found
        return codes

    @_computed
    def encode_alone(self, values: Tensor, gain: float = 1.0) -> Tensor:
        """As `encode`, each item by itself: sums of floats, and codes at an edge, may depend on the
        rest of a batch.
        """
        return _joined([self.encode(one, gain=gain) for one in values.split(1)])

    @_computed
    def encode_scalar(self, values: Tensor, num_codebooks: int, gain: float = 1.0) -> ScalarCodes:
        """Values (C, *extent) of one item -> the first codes, as `encode` has them, in less memory:
        those of parts that are done.
        """
        network = self._encoding
        grid = self.grid(values.shape[1:])
        codes = ScalarCodes(num_codebooks, grid, network.quantizer.codebook_size)
        for part in parts_of(network, self._counts(grid), network.encoder_reach, SHARE):
            seen = pad_to_multiple(cut(values[None], network.tile, part.seen), network.tile)
            latents = network.latents(self._standardised(seen, network))
            latents = cut(latents, network.tile_grid, part.inner)
            (first, _), *others = self._cells(part.inside)
            for start, stop in _rows(latents.shape, self.num_codebooks):
                rows = latents[:, :, start:stop]
                found = network.quantizer.encode(rows if gain == 1.0 else rows * gain)
                given = found[0, :num_codebooks].to(torch.int16).cpu().numpy()
                codes.put([(first + start, first + stop), *others], given)
            del seen, latents, rows, found
        return codes

    @_computed
    def latents_alone(self, values: Tensor) -> Tensor:
        """What the quantizer gets of each item by itself, (B, D, *grid) on the CPU."""
        multiple = self.network.quantizer.grid_multiple
        latents = self._encoding.latents
        cells = [side * multiple for side in self.network.tile_grid]
        return _joined([self._encoded(latents, one, cells) for one in values.split(1)])

    @_computed
    def decode(
        self,
        codes: Tensor,
        extent: Sequence[int] | None = None,
        *,
        double: bool = False,
        gain: float = 1.0,
        start: Tensor | None = None,
    ) -> Tensor:
        """Codes (B, Q, *grid) int64 -> values (B, C, *extent); None = whole tiles.

        gain: what latents were multiplied by before they were quantised.
        double: compute in float64, so that values do not depend on how many items and threads there
        are. start: the clock (B, n) at the first position, as `clock_after` gives it; None = the
        item begins. ValueError for what are no codes of this model.
        """
        self._check(codes)
        network = self._double if double or self.order_free else self.network
        device = next(network.parameters()).device

        num_codes = codes.shape[1]
        if network.clock is not None:
            # The clock goes with the codes of a position, through all parts that items are cut in.
            time = network.read_clock(codes.to(device), gain, start)
            codes = torch.cat([codes, time.cpu()], 1)

        def decoded(part: Tensor) -> Tensor:
            part = part.to(device)
            time = None if network.clock is None else part[:, num_codes:]
            return self.restore(network.decode(part[:, :num_codes], gain=gain, clock=time))

        values = []
        for part in codes.split(_items_together(codes[0].numel())):
            values.append(
                by_parts(
                    network,
                    decoded,
                    part,
                    network.tile_grid,
                    network.tile,
                    reach=network.decoder_reach,
                )
            )
        whole = _joined(values)
        if extent is None:
            return whole
        return crop(whole, extent)

    @torch.no_grad()
    def compared(self, codes: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What codes (B, Q, *grid) stand for, exactly, beside values (B, C, *whole tiles): which of
        these come back as others, bool, and their nats, both (B, C, *extent). Of models with a
        likelihood.
        """
        network = self._double
        output = self._decoder_output(codes)
        shown = self.restore(network.likelihood.mean(output))
        nats = network.likelihood.nll(output, self._standardised(values, network))
        return shown != values.cpu(), nats.cpu()

    @_computed
    def _decoder_output(self, codes: Tensor) -> Tensor:
        """That of the network in float64."""
        return self._double.decoder_output(codes.to(next(self._double.parameters()).device))

    @_computed
    def clock_after(
        self, codes: Tensor, gain: float = 1.0, start: Tensor | None = None
    ) -> Tensor | None:
        """The clock (B, n) behind codes (B, Q, t), for codes that go on; None for a decoder without
        one.
        """
        network = self._double
        if network.clock is None:
            return None
        if not codes.shape[2]:
            return start
        # What the clock says at the last position, and what that adds.
        device = next(network.parameters()).device
        codes = torch.cat([codes, codes[..., -1:]], 2).to(device)
        return network.read_clock(codes, gain, start)[..., -1].cpu()

    @_computed
    def decode_scalar(
        self,
        items: Sequence[ScalarCodes],
        extent: Sequence[int],
        *,
        double: bool = False,
        gain: float = 1.0,
    ) -> Tensor:
        """Codes of the first stages of items of one extent -> values (B, C, *extent), as `decode`
        has them.
        """
        network = self._double if double or self.order_free else self.network
        counts = self._counts(items[0].grid)
        together = _items_together(self.num_codebooks * math.prod(items[0].grid))
        values = []
        for first in range(0, len(items), together):
            some = items[first : first + together]

            def decoded(seen: Spans, some: Sequence[ScalarCodes] = some) -> Tensor:
                latents = self._latents_of(some, self._cells(seen))
                parameter = next(network.parameters())
                latents = latents.to(parameter.device, parameter.dtype) / gain
                return self.restore(network.decode_latents(latents))

            values.append(
                from_parts(
                    network,
                    counts,
                    decoded,
                    network.tile,
                    reach=network.decoder_reach,
                    share=SHARE,
                )
            )
        return crop(_joined(values), extent)

    def reconstruct(self, values: Tensor) -> Tensor:
        """Values (B, C, *extent) through the model and back."""
        return self.decode(self.encode(values), values.shape[2:])

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Items that the model makes up: values (count, C, *extent) of the training extent, a
        function of the seed.

        Codes are drawn uniformly, or z ~ N(0, 1) without a quantizer, and decoded: samples of the
        model as far as its codes are uniform and independent, which the terms `kl` and `transform`
        work for. Noise from a plain model.
        """
        generator = torch.Generator().manual_seed(seed)
        codes = self.network.sample_codes(count, self.shape.extent, generator).cpu()
        return self.decode(codes, self.shape.extent)

    def to(self, device: str | torch.device) -> Tokenizer:
        """This tokenizer on another device; itself if it is there already."""
        if resolve_device(device) == self.device:
            return self
        return Tokenizer(self.artifact, device)

    @cached_property
    def _double(self) -> Autoencoder:
        """The network in float64: on its device, but for Apple's, which has none."""
        network = copy.deepcopy(self.network)
        if self.device.type == "mps":
            network = network.cpu()
        return network.double()

    @property
    def _encoding(self) -> Autoencoder:
        """The network that finds codes."""
        is_exact = self.order_free or self.network.encodes_exactly
        return self._double if is_exact else self.network

    def _standardised(self, values: Tensor, network: Autoencoder) -> Tensor:
        """Values (B, C, *extent) as a network takes them, on its device."""
        like = next(network.parameters())
        standardised = self.normalisation.apply(values.to(like.device))
        return channels_last(standardised.to(like.dtype))

    def _latents_of(self, items: Sequence[ScalarCodes], cells: Spans) -> Tensor:
        """What codes of a box of cells stand for, (B, D, *sides) float32: a few rows after the
        other, as codes are many and take 8 bytes on their way.
        """
        (first, end), *others = cells
        missing = self.num_codebooks - len(items[0])
        behind = (0, 0) * len(cells)
        sides = [stop - start for start, stop in cells]
        width = self.network.quantizer.latent_dim
        found = channels_last(torch.empty(len(items), width, *sides, device=self.device))
        for start, stop in _rows((len(items), 0, end - first, *sides[1:]), self.num_codebooks):
            box = [(first + start, first + stop), *others]
            given = torch.from_numpy(np.stack([one.codes(box) for one in items]))
            # Stages that are not there are -1.
            codes = F.pad(given.long(), (*behind, 0, missing), value=PADDING)
            found[:, :, start:stop] = self.network.quantizer.decode(codes.to(self.device))
        return found

    def _counts(self, grid: Sequence[int]) -> list[int]:
        """Tiles along each dimension of a grid."""
        return [cells // side for cells, side in zip(grid, self.network.tile_grid, strict=True)]

    def _cells(self, tiles: Spans) -> list[tuple[int, int]]:
        """Cells of the grid from the first to the end of tiles."""
        found = []
        for (start, stop), side in zip(tiles, self.network.tile_grid, strict=True):
            found.append((start * side, stop * side))
        return found

    def _encoded(
        self, encode: Callable[[Tensor], Tensor], values: Tensor, cells: Sequence[int]
    ) -> Tensor:
        """What `encode` makes of values (B, C, *extent) when they are standardised, part by part:
        (B, ., *grid), `cells` of it for each tile.
        """
        network = self._encoding

        def encoded(part: Tensor) -> Tensor:
            return encode(self._standardised(part, network)).cpu()

        padded = pad_to_multiple(values, network.tile)
        return by_parts(network, encoded, padded, network.tile, cells)

    def _check(self, codes: Tensor) -> None:
        quantizer = self.network.quantizer
        dims = len(self.shape.extent)
        if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
            raise ValueError(
                f"codes are whole numbers (int64), as encode gives them, not {codes.dtype}"
            )
        if (
            codes.dim() != dims + 2
            or codes.shape[1] != quantizer.num_codebooks
            or not codes.numel()
        ):
            grid = ", ".join(["grid"] * dims)
            raise ValueError(
                f"codes must be (B, {quantizer.num_codebooks}, {grid}), got {tuple(codes.shape)}"
            )
        # -1 is padding, or a stage of a residual quantizer that is left out.
        lowest, highest = codes.movedim(1, 0).flatten(1).aminmax(dim=1)
        limits = torch.tensor(quantizer.codebook_sizes, device=codes.device)
        outside = (lowest.long() < -1) | (highest.long() >= limits)
        if outside.any():
            index = int(outside.nonzero()[0])
            limit = quantizer.codebook_sizes[index]
            raise ValueError(f"codes of codebook {index} must lie in [0, {limit}), got one outside")


def _items_together(num_codes: int) -> int:
    """Items of so many codes that go through the decoder together."""
    return max(1, BATCH_VALUES // (num_codes * 64))


def _rows(shape: Sequence[int], num_codebooks: int) -> list[tuple[int, int]]:
    """First and end of the rows of a grid whose codes are looked at together; shape (B, any, rows,
    ...).
    """
    in_row = shape[0] * num_codebooks * math.prod(shape[3:])
    return spans(shape[2], max(1, CODES_TOGETHER // in_row))


def _joined(parts: list[Tensor]) -> Tensor:
    """Parts of a batch one behind the other, without a copy of a single one, which may be large."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)
