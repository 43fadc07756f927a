"""Analysis by synthesis: a slower search for codes that make a file smaller, or what comes back
better.

The encoder gives the codes nearest to its latents, and knows neither what the decoder makes of them
nor what they cost beside their neighbours. Here the latents of one item are moved down the gradient
of

    squared error of what is decoded + weight of a bit * bits

with rounding in a soft form that grows hard (Yang, Bamler & Mandt 2020, arXiv 2006.04988; the form
is that of Agustsson & Theis 2020, arXiv 2006.09952). Files stay what they are: the decoder does not
know how codes were found.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..coding import ScalarCoder, ScalarCodes, gain_of
from ..coding.grids import rows_and_columns
from ..errors import VqkitError
from ..model.code_costs import CodeCosts
from ..model.quantizers.base import PADDING, Bottleneck, Quantizer
from ..model.tiling import crop, cut, spans
from .codec import Codec
from .tokenizer import Tokenizer

# Steps of each effort; 0 takes the encoder's codes.
STEPS = (0, 4, 6, 9, 13, 18, 25, 36, 50, 70)
HIGHEST = len(STEPS) - 1
# What a bit weighs, in squared steps of the last stage.
WEIGHT = 0.1
# Of Adam, in steps of the lattice; it falls to a tenth.
LEARNING_RATE = 0.1
# How hard rounding is at first and in the end.
SOFTEST = 2.0
HARDEST = 24.0
# Steps after which the costs of codes follow the codes again.
FIT_EVERY = 5
# Positions of the input of a part, and tiles around it at most that are decoded with it.
PART_POSITIONS = 1 << 18
MARGIN = 4
# Positions of the grid whose codes are looked up together: a position has up to thousands of them.
TOGETHER = 1 << 12
# Tiles along each dimension of the noise by which a bit is weighed.
MEASURED = 8

Spans = Sequence[tuple[int, int]]


def with_effort(codec: Codec, effort: int, quantizer: Bottleneck) -> Codec:
    """A codec whose codes are searched for so long.

    VqkitError for an effort that there is none of, and for codes that are not searched for.
    """
    # Not isinstance: a truth value is an int, too.
    if type(effort) is not int or not 0 <= effort <= HIGHEST:
        raise VqkitError(f"an effort is a whole number from 0 to {HIGHEST}, not {effort!r}")
    if not effort:
        return codec
    if codec.holds_values:
        raise VqkitError("lossless files keep every value, whatever the effort; leave it out")
    if quantizer.lattice(1) is None or not isinstance(codec.engine, ScalarCoder):
        raise VqkitError(
            "an effort is for models of scalar codes, such as those of recipe photos, and this one "
            f"has {type(quantizer).__name__}; leave the effort out"
        )
    return replace(codec, effort=effort)


def searched(
    tokenizer: Tokenizer,
    codec: Codec,
    values: Tensor,
    codes: Sequence[ScalarCodes],
    *,
    progress: Callable[[float], None] | None = None,
) -> list[ScalarCodes]:
    """Better codes of values (B, C, *extent) than `codes` (q, *grid) of each item, by the effort of
    the codec; the same where there are none.

    progress: called with the number of items that are done, fractions included.
    """
    found = []
    for number, one in enumerate(values.split(1)):

        def tell(share: float, before: int = number) -> None:
            if progress:
                progress(before + share)

        search = _Search(tokenizer, codec, one)
        found.append(search.run(codes[number], tell))
    return found


class _Search:
    """The search for the codes of one item, values (1, C, *extent).

    Codes are seen as what they stand for in steps of the last stage: whole numbers (1, C, *grid).
    """

    def __init__(self, tokenizer: Tokenizer, codec: Codec, values: Tensor) -> None:
        network = tokenizer.network
        assert isinstance(network.quantizer, Quantizer)
        assert isinstance(codec.engine, ScalarCoder)
        lattice = network.quantizer.lattice(codec.num_stages)
        assert lattice is not None
        self.tokenizer = tokenizer
        self.network = network
        self.quantizer = network.quantizer
        self.codec = codec
        self.engine = codec.engine
        self.values = values
        self.gain = gain_of(codec.gain)
        self.step = lattice.step
        self.limit = lattice.limit
        self.num_steps = STEPS[codec.effort]
        self.counts = [
            cells // side
            for cells, side in zip(network.grid(values.shape[2:]), network.tile_grid, strict=True)
        ]
        # What one unit of standardised values is in units of files.
        normalisation = tokenizer.normalisation
        deviation = torch.tensor(normalisation.std) * (normalisation.levels or 1)
        self.deviation = deviation.view(1, -1, *(1,) * (values.dim() - 2)).to(tokenizer.device)

    @torch.no_grad()
    def run(self, start: ScalarCodes, progress: Callable[[float], None]) -> ScalarCodes:
        """Codes (q, *grid), those of the start unless others are better."""
        numbers = self._numbers(start)
        latents = self.tokenizer.latents_alone(self.values)
        tokens = self.quantizer.tokens(latents.to(self.tokenizer.device) * self.gain)
        places = _to_grid(tokens, latents) / self.step
        weight = self._weight_of_a_bit()
        parts = list(itertools.product(*map(spans, self.counts, self._sides())))
        for number, inside in enumerate(parts):

            def tell(share: float, before: int = number) -> None:
                progress((before + share) / len(parts))

            self._search_part(numbers, places, inside, weight, tell)
        found = self._codes(numbers)
        if self._cost(found, weight) < self._cost(start, weight):
            return found
        return start

    def _search_part(
        self,
        numbers: Tensor,
        places: Tensor,
        inside: Spans,
        weight: float,
        progress: Callable[[float], None],
    ) -> None:
        """Set the numbers of a part to better ones, if some are found."""
        cells = self.network.tile_grid
        seen = self._with_margin(inside)
        inner = _within(inside, seen)
        before = cut(numbers, cells, seen)
        target = self._target(seen)
        near = cut(places, cells, inside)
        # Channels from some place on have nothing but zeros.
        used = (near.abs().amax((0, *range(2, near.dim()))) >= 0.5).nonzero()
        channels = int(used.max()) + 1 if len(used) else 0
        channels = max(channels, _last_used(before))
        if not channels:
            return
        costs = CodeCosts(torch.from_numpy(self.engine.predicted[:channels]).to(numbers.device))

        def with_inner(moved: Tensor) -> Tensor:
            whole = before.clone()
            cut(whole, cells, inner)[:, :channels] = moved
            return whole

        def cost(whole: Tensor) -> Tensor:
            error = (self._decoded(whole, seen) - target) * self.deviation
            bits = costs.bits(_in_rows(whole[:, :channels]))
            return error.square().sum() + weight * bits

        costs.fit(_in_rows(before[:, :channels]))
        moved = near[:, :channels].clone().clamp_(-self.limit, self.limit).requires_grad_()
        optimizer = torch.optim.Adam([moved], lr=LEARNING_RATE, betas=(0.9, 0.99))
        for step in range(self.num_steps):
            share = step / self.num_steps
            if step and step % FIT_EVERY == 0:
                costs.fit(_in_rows(with_inner(moved.detach().round())[:, :channels]))
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * (1 - 0.9 * share)
            with torch.enable_grad():
                hardness = SOFTEST * (HARDEST / SOFTEST) ** share
                total = cost(with_inner(_softly_rounded(moved, hardness)))
                (moved.grad,) = torch.autograd.grad(total, [moved])
            optimizer.step()
            progress((step + 1) / self.num_steps)
        after = with_inner(moved.detach().round().clamp(-self.limit, self.limit))
        if cost(after) < cost(before):
            before.copy_(after)

    # ---------------------------------------------------------------------------- codes and numbers

    def _numbers(self, codes: ScalarCodes) -> Tensor:
        """What codes stand for (1, C, *grid)."""
        given = torch.from_numpy(np.asarray(codes)).flatten(1)
        left_out = self.quantizer.num_codebooks - len(given)
        numbers = torch.empty(self.quantizer.code_dim, given.shape[1])
        for some, out in zip(given.split(TOGETHER, 1), numbers.split(TOGETHER, 1), strict=True):
            rows = F.pad(some.T.long().to(self.tokenizer.device), (0, left_out), value=PADDING)
            out.copy_((self.quantizer.lookup(rows) / self.step).round().T)
        return numbers.view(1, -1, *codes.grid).to(self.tokenizer.device)

    def _codes(self, numbers: Tensor) -> ScalarCodes:
        """Codes (q, *grid) of numbers."""
        given = numbers[0].flatten(1)
        codes = np.empty((self.codec.num_codebooks, given.shape[1]), np.int16)
        for number, some in enumerate(given.split(TOGETHER, 1)):
            rows = self.quantizer.assign_at(some.T * self.step, self.codec.num_stages, 0.0)
            start = number * TOGETHER
            codes[:, start : start + TOGETHER] = rows.T.cpu().numpy()
        return ScalarCodes.of(codes.reshape(-1, *numbers.shape[2:]), self.engine.levels)

    def _decoded(self, numbers: Tensor, seen: Spans) -> Tensor:
        """What numbers of tiles become, standardised; without what lies behind the item's end."""
        return crop(self._whole(numbers), self._extent(seen))

    def _whole(self, numbers: Tensor) -> Tensor:
        """What numbers of whole tiles become, standardised."""
        rows = numbers.movedim(1, -1).flatten(0, -2) * self.step
        latents = self.quantizer.latents_of(rows, numbers) / self.gain
        return self.network.decode_latents(latents)

    # --------------------------------------------------------------------------------- what is paid

    def _weight_of_a_bit(self) -> float:
        """A bit as a squared error of values: its weight in squared steps of the latents, times
        what the decoder makes of a squared error there, measured by noise.
        """
        grid = [MEASURED * side for side in self.network.tile_grid]
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, self.quantizer.code_dim, *grid, generator=generator) - 0.5
        noise = noise.to(self.tokenizer.device)
        change = self._whole(noise) - self._whole(torch.zeros_like(noise))
        error = (change * self.deviation).square().sum()
        return float(error / noise.square().sum()) * WEIGHT

    def _cost(self, codes: ScalarCodes, weight: float) -> float:
        """Of codes (q, *grid): what files hold of them, and what comes back."""
        (payloads,) = self.engine.encode([codes])
        bits = 8 * sum(map(len, payloads))
        shown = self._restored(codes)
        error = 0.0
        # Row by row, as differences take more memory than values.
        for one, other in zip(shown[0].unbind(1), self.values[0].unbind(1), strict=True):
            error += float((one.double() - other.double()).square().sum())
        return error + weight * bits

    def _restored(self, codes: ScalarCodes) -> Tensor:
        """What comes back of codes: values (1, C, *extent)."""
        numbers = self._numbers(codes)
        shown = torch.empty_like(self.values)
        for inside in itertools.product(*map(spans, self.counts, self._sides())):
            seen = self._with_margin(inside)
            part = self._decoded(cut(numbers, self.network.tile_grid, seen), seen)
            part = cut(self.tokenizer.restore(part), self.network.tile, _within(inside, seen))
            cut(shown, self.network.tile, inside).copy_(part)
        return shown

    # ---------------------------------------------------------------------------------------- parts

    def _sides(self) -> list[int]:
        """Tiles of a part along each dimension, about as many in all parts."""
        side = round(PART_POSITIONS ** (1 / len(self.counts)))
        sides = []
        for count, tile in zip(self.counts, self.network.tile, strict=True):
            most = max(1, side // tile)
            sides.append(-(-count // -(-count // most)))
        return sides

    def _with_margin(self, inside: Spans) -> list[tuple[int, int]]:
        margin = min(self.network.decoder_reach, MARGIN)
        seen = []
        for (start, stop), count in zip(inside, self.counts, strict=True):
            seen.append((max(0, start - margin), min(count, stop + margin)))
        return seen

    def _extent(self, seen: Spans) -> list[int]:
        """Values of those tiles, without what lies behind the item's end."""
        extent = []
        for (start, stop), tile, side in zip(
            seen, self.network.tile, self.values.shape[2:], strict=True
        ):
            extent.append(min(stop * tile, side) - start * tile)
        return extent

    def _target(self, seen: Spans) -> Tensor:
        """The standardised values of tiles."""
        part = self.values
        for axis, ((start, _), tile, side) in enumerate(
            zip(seen, self.network.tile, self._extent(seen), strict=True), 2
        ):
            part = part.narrow(axis, start * tile, side)
        return self.tokenizer.standardise(part)


def _within(inside: Spans, seen: Spans) -> list[tuple[int, int]]:
    """Tiles of a part, counted from the first of those that are seen with it."""
    inner = []
    for (start, stop), (edge, _) in zip(inside, seen, strict=True):
        inner.append((start - edge, stop - edge))
    return inner


def _softly_rounded(numbers: Tensor, hardness: float) -> Tensor:
    """Between two whole numbers a curve from one to the other, the steeper the harder."""
    below = numbers.detach().floor() + 0.5
    return below + 0.5 * torch.tanh(hardness * (numbers - below)) / math.tanh(hardness / 2)


def _in_rows(numbers: Tensor) -> Tensor:
    """(1, C, *grid) -> (C, rows, columns), as coders see them."""
    return numbers[0].reshape(-1, *rows_and_columns(numbers.shape[2:]))


def _to_grid(rows: Tensor, like: Tensor) -> Tensor:
    """(N, C) -> (1, C, *grid) with the grid of `like`."""
    return rows.view(1, *like.shape[2:], -1).movedim(-1, 1)


def _last_used(numbers: Tensor) -> int:
    """Channels up to the last with a number other than zero."""
    used = numbers.flatten(2).any(2).any(0).nonzero()
    return int(used.max()) + 1 if len(used) else 0
