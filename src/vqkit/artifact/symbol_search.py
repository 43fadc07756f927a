"""The search for codes that give back more of a text.

Where a byte comes back wrong, other codes are tried for its patch and for those beside it, the
nearest ones to the encoder's latents first: the decoder tells what they make of all bytes that it
lets them change. A code is taken where fewer bytes are wrong with it, or as many that are likelier
all together. Patches so far apart that no byte depends on both are tried together, and the result
is that of trying them one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.autoencoder import Autoencoder
from ..model.quantizers.base import PADDING, Quantizer
from ..model.tiling import pad_to_multiple, spans
from .codec import Codec
from .tokenizer import Tokenizer

# Where a round tries other codes, in tiles from each with a wrong value. An effort has as many
# rounds as its number.
PLACES = (0, -1, 1, -2, 2)
# Codes that are tried at a tile in a round, with the one that is there.
CANDIDATES = 8
# Codes of a codebook, all of which are put in order for every tile that is tried.
MAX_CODEBOOK = 1 << 16
# Tiles of an item that are searched before those behind them.
SEGMENT = 1 << 12
# Positions of the grid that go through the decoder together, and codes that are put in order.
TOGETHER = 1 << 12
IN_ORDER = 1 << 18


def is_possible(network: Autoencoder) -> bool:
    """Whether values are symbols in a row, and their codes ones that can be tried."""
    quantizer = network.quantizer
    has_symbols = network.likelihood.kind == "categorical" and network.clock is None
    return (
        has_symbols
        and network.tile_grid == (1,)
        and isinstance(quantizer, Quantizer)
        and quantizer.is_discrete
        and quantizer.codebook_size <= MAX_CODEBOOK
    )


@torch.no_grad()
def search(
    tokenizer: Tokenizer,
    codec: Codec,
    values: Tensor,
    codes: np.ndarray,
    progress: Callable[[float], None],
) -> np.ndarray:
    """Better codes of values (C, T) than `codes` (q, t), by the effort of the codec; the same where
    there are none. progress: receives the share that is done.
    """
    found = _Search(tokenizer, values, codes)
    for start, end in spans(codes.shape[1], SEGMENT):
        found.run(start, end, codec.effort)
        progress(end / codes.shape[1])
    return found.codes.numpy().astype(codes.dtype)


class _Search:
    """The search for the codes of one item, values (C, T); a tile has one position of the grid.

    codes: (q, t) int32, the best so far. is_wrong: (t,) bool, tiles with a value that comes back as
    another, in the segment that is searched. tried: (q, t) int32, how many of the nearest codes
    were tried at a tile since anything was changed that has to do with it.
    """

    def __init__(self, tokenizer: Tokenizer, values: Tensor, codes: np.ndarray) -> None:
        network = tokenizer.network
        assert isinstance(network.quantizer, Quantizer)
        self.tokenizer = tokenizer
        self.quantizer = network.quantizer
        self.tile = network.tile[0]
        self.reach = network.decoder_reach
        # Tiles between two that change no value in common, and to those that a change depends on.
        self.far = self.reach.back + self.reach.ahead
        self.length = values.shape[1]
        self.values = pad_to_multiple(values[None], network.tile)[0]
        self.codes = torch.from_numpy(codes.astype(np.int32))
        self.num_left_out = self.quantizer.num_codebooks - len(codes)
        self.is_wrong = torch.zeros(codes.shape[1], dtype=torch.bool)
        self.tried = torch.zeros(codes.shape, dtype=torch.int32)

    def run(self, start: int, end: int, num_rounds: int) -> None:
        """Search the tiles from start to end."""
        self.is_wrong[start:end] = self._wrong_tiles(start, end)
        tokens = self._tokens(start, end)
        together = max(1, TOGETHER // (CANDIDATES * (2 * self.far + 1)))
        for away, codebook in itertools.product(PLACES * num_rounds, range(len(self.codes))):
            wrong = start + self.is_wrong[start:end].nonzero()[:, 0]
            places = wrong + away
            places = places[(places >= start) & (places < end)]
            for group in apart(places.tolist(), self.far + 1):
                found = torch.tensor(group)
                # Without those where one before has mended all.
                found = found[self.is_wrong[found - away]]
                for some in found.split(together) if len(found) else ():
                    self._try(some, codebook, tokens[some - start])

    def _try(self, places: Tensor, codebook: int, tokens: Tensor) -> None:
        """Take the best of the next codes at places (n,), far from one another; tokens (n, d)."""
        options = self._options(places, codebook, tokens)  # (n, m), the present one first
        tiles = self._around(places)  # (n, w)
        seen = self.codes[:, tiles].movedim(0, 1)  # (n, q, w)
        candidates = seen[:, None].repeat(1, options.shape[1], 1, 1)
        candidates[:, :, codebook].masked_scatter_(
            (tiles == places[:, None])[:, None], options.to(torch.int32)
        )
        is_wrong, nats = self._compared(candidates.flatten(0, 1), tiles, options.shape[1])
        # Around what a candidate can change the windows end, and what is decoded is another.
        away = tiles - places[:, None]
        is_its_own = (away >= -self.reach.ahead) & (away <= self.reach.back)  # (n, w)
        best = _best(
            is_wrong.where(is_its_own[:, None], 0.0).sum(2),
            nats.where(is_its_own[:, None], 0.0).sum(2),
        )
        self.codes[codebook, places] = options.gather(1, best[:, None])[:, 0].to(torch.int32)
        of_best = is_wrong[torch.arange(len(places)), best] > 0
        self.is_wrong[tiles[is_its_own]] = of_best[is_its_own]
        self.tried[codebook, places] += options.shape[1] - 1
        for place in places[best > 0].tolist():
            self.tried[:, max(0, place - self.far) : place + self.far + 1] = 0

    def _options(self, places: Tensor, codebook: int, tokens: Tensor) -> Tensor:
        """The present code at places (n,), and the next nearest ones to tokens (n, d) that were not
        tried: (n, m), the present one again where there are no more.
        """
        found = []
        size = self.quantizer.codebook_sizes[codebook]
        together = max(1, IN_ORDER // size)
        for some, near in zip(places.split(together), tokens.split(together), strict=True):
            present = self.codes[:, some].T.long()  # (n, q)
            rows = F.pad(present, (0, self.num_left_out), value=PADDING)
            rows = rows[:, None].repeat(1, size, 1)
            rows[:, :, codebook] = torch.arange(size)
            values = self.quantizer.lookup(rows.flatten(0, 1).to(near.device))
            distances = (values.unflatten(0, (-1, size)) - near[:, None]).square().sum(2).cpu()
            now = present[:, codebook, None]
            distances.scatter_(1, now, -1.0)
            order = distances.argsort(stable=True, dim=1)
            ranks = self.tried[codebook, some][:, None] + torch.arange(1, CANDIDATES)
            others = order.gather(1, ranks.clamp(max=size - 1)).where(ranks < size, now)
            found.append(torch.cat([now, others], 1))
        return torch.cat(found)

    def _compared(self, candidates: Tensor, tiles: Tensor, each: int) -> tuple[Tensor, Tensor]:
        """Wrong values and nats of tiles (n, w), by each candidate (n * each, q, w) of theirs: both
        (n, each, w) float64.
        """
        places = (tiles[:, :, None] * self.tile + torch.arange(self.tile)).flatten(1)
        values = self.values[:, places].movedim(0, 1).repeat_interleave(each, 0)
        codes = F.pad(candidates.long(), (0, 0, 0, self.num_left_out), value=PADDING)
        is_wrong, nats = self.tokenizer.compared(codes, values)
        is_real = (places < self.length).repeat_interleave(each, 0)[:, None]
        found = []
        for one in (is_wrong, nats):
            by_tile = (one.double() * is_real).sum(1).unflatten(1, (-1, self.tile)).sum(2)
            found.append(by_tile.unflatten(0, (-1, each)))
        return found[0], found[1]

    # ---------------------------------------------------------------------------------------- parts

    def _around(self, places: Tensor) -> Tensor:
        """The tiles around places (n,) that values depend on which they change, (n, w): as many
        for all of them, at the ends of the item more to one side.
        """
        count = self.codes.shape[1]
        width = min(2 * self.far + 1, count)
        first = (places - self.far).clamp(0, count - width)
        return first[:, None] + torch.arange(width)

    def _wrong_tiles(self, start: int, end: int) -> Tensor:
        """Which of the tiles from start to end have a wrong value, bool."""
        first = max(0, start - self.reach.back)
        tiles = torch.arange(first, min(end + self.reach.ahead, self.codes.shape[1]))[None]
        is_wrong, _ = self._compared(self.codes[None, :, tiles[0]], tiles, 1)
        return is_wrong[0, 0, start - first : end - first] > 0

    def _tokens(self, start: int, end: int) -> Tensor:
        """What the quantizer rounds at the tiles from start to end, (n, d)."""
        reach = self.tokenizer.network.encoder_reach
        first = max(0, start - reach.back)
        part = self.values[:, first * self.tile : (end + reach.ahead) * self.tile]
        latents = self.tokenizer.latents_alone(part[None])[:, :, start - first : end - first]
        return self.quantizer.tokens(latents.to(self.tokenizer.device))


def apart(places: Sequence[int], distance: int) -> list[list[int]]:
    """Rising places in groups, in which they are at least so far apart."""
    groups: list[list[int]] = []
    for place in places:
        for group in groups:
            if place - group[-1] >= distance:
                group.append(place)
                break
        else:
            groups.append([place])
    return groups


def _best(wrong: Tensor, nats: Tensor) -> Tensor:
    """The first candidate with the fewest nats among those with the fewest wrong values, both
    (n, m): (n,).
    """
    fewest = wrong == wrong.amin(1, keepdim=True)
    nats = nats.where(fewest, torch.inf)
    return torch.from_numpy(nats.numpy().argmin(1))
