"""The search for scalar codes that are worth their bits.

The coder itself chooses the codes of the last stage, by squared error + weight of a bit * bits at
the prices that it has at each of them. What the error is counted from is at first the encoder's
latents, and then, round by round, where the gradient of the squared error of what is decoded says
that they should be: the step of Newton's method for a decoder of one gain, half of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..coding import ScalarCoder, ScalarCodes, gain_of
from ..model.quantizers.base import PADDING, Quantizer
from ..model.tiling import crop, cut, spans
from .codec import Codec
from .tokenizer import Tokenizer

# What a bit weighs, in squared steps of the last stage.
WEIGHT = 0.09
# How far what is wanted goes where the gradient says, of the whole way.
DAMPING = 0.5
# Positions of the input of a part, and tiles around it at most that are decoded with it.
PART_POSITIONS = 1 << 18
MARGIN = 4
# Positions of the grid whose codes are looked up together: a position has up to thousands of them.
TOGETHER = 1 << 12
# Tiles along each dimension of the noise by which a bit is weighed.
MEASURED = 8

Spans = Sequence[tuple[int, int]]


def search(
    tokenizer: Tokenizer,
    codec: Codec,
    values: Tensor,
    codes: ScalarCodes,
    progress: Callable[[float], None],
) -> ScalarCodes:
    """Better codes of values (C, *extent) than `codes` (q, *grid), by the effort of the codec; the
    same where there are none. progress: receives the share that is done.
    """
    return _Search(tokenizer, codec, values[None]).run(codes, progress)


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
        self.num_rounds = codec.effort
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
        latents = self.tokenizer.latents_alone(self.values)
        tokens = self.quantizer.tokens(latents.to(self.tokenizer.device) * self.gain)
        # What is wanted, in steps.
        wanted = _to_grid(tokens, latents) / self.step
        squared_step = self._squared_step()
        weight = WEIGHT * squared_step
        best = start
        least = self._cost(start, weight)
        codes = start
        for number in range(self.num_rounds):
            if number:
                gradient = self._gradient(codes)
                away = self._numbers(codes) - gradient / (2 * squared_step) - wanted
                wanted += DAMPING * away
            codes = self._chosen(codes, wanted)
            cost = self._cost(codes, weight)
            if cost < least:
                best = codes
                least = cost
            progress((number + 1) / self.num_rounds)
        return best

    def _chosen(self, codes: ScalarCodes, wanted: Tensor) -> ScalarCodes:
        """Codes with another last stage, as near to what is wanted (1, C, *grid) as pays."""
        last = codes.numbers([(0, side) for side in codes.grid])[-self.engine.channels :]
        before = self._numbers(codes)[0].cpu() - torch.from_numpy(last)
        return self.engine.choose(codes, (wanted[0].cpu() - before).numpy(), WEIGHT)

    def _gradient(self, codes: ScalarCodes) -> Tensor:
        """That of the squared error of what is decoded, by numbers (1, C, *grid)."""
        cells = self.network.tile_grid
        numbers = self._numbers(codes)
        found = torch.empty_like(numbers)
        for inside in itertools.product(*map(spans, self.counts, self._sides())):
            seen = self._with_margin(inside)
            part = cut(numbers, cells, seen).clone().requires_grad_()
            with torch.enable_grad():
                error = (self._decoded(part, seen) - self._target(seen)) * self.deviation
                (gradient,) = torch.autograd.grad(error.square().sum(), [part])
            cut(found, cells, inside).copy_(cut(gradient, cells, _within(inside, seen)))
        return found

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

    def _decoded(self, numbers: Tensor, seen: Spans) -> Tensor:
        """What numbers of tiles become, standardised; without what lies behind the item's end."""
        return crop(self._whole(numbers), self._extent(seen))

    def _whole(self, numbers: Tensor) -> Tensor:
        """What numbers of whole tiles become, standardised."""
        rows = numbers.movedim(1, -1).flatten(0, -2) * self.step
        latents = self.quantizer.latents_of(rows, numbers) / self.gain
        return self.network.decode_latents(latents)

    # --------------------------------------------------------------------------------- what is paid

    def _squared_step(self) -> float:
        """What the decoder makes of an error of one step, as a squared error of values: measured by
        noise.
        """
        grid = [MEASURED * side for side in self.network.tile_grid]
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, self.quantizer.code_dim, *grid, generator=generator) - 0.5
        noise = noise.to(self.tokenizer.device)
        change = self._whole(noise) - self._whole(torch.zeros_like(noise))
        error = (change * self.deviation).square().sum()
        return float(error / noise.square().sum())

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
        back, ahead = (min(reach, MARGIN) for reach in self.network.decoder_reach)
        seen = []
        for (start, stop), count in zip(inside, self.counts, strict=True):
            seen.append((max(0, start - back), min(count, stop + ahead)))
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


def _to_grid(rows: Tensor, like: Tensor) -> Tensor:
    """(N, C) -> (1, C, *grid) with the grid of `like`."""
    return rows.view(1, *like.shape[2:], -1).movedim(-1, 1)
