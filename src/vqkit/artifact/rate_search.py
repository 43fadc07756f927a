"""The best file of an item that is not larger than asked: a search along all that a model offers.

Of scalar codes these are stages and gains. Of codes of a codebook these are the first stages, with
the quantizer's own codes, and the stages behind them, where bits are weighed as much as it takes
(see operating_points).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from torch import Tensor

from ..coding import BytesCoder, MixingCoder, ScalarCoder, TransformerCoder
from ..errors import VqkitError
from .codec import Codec, Coded
from .effort import with_effort
from .operating_points import assign, can_be_weighed, distortion, ladder

if TYPE_CHECKING:
    from .compressor import Compressor

Found: TypeAlias = tuple[Codec, Coded]

# Weights of a bit that are tried, by halving, between the smallest and the largest, in units of the
# mean squared distance of tokens to their codes.
PROBES = 6
LEAST = 2.0**-7
MOST = 2.0


def within(
    compressor: Compressor, values: Tensor, bits: float, name: str | None = None, effort: int = 0
) -> Found:
    """An item (C, *extent) as well as so many bits for each of its positions allow, every byte of
    its file counted, with the name that it is to have.

    VqkitError without a codebook, for an effort that is not there, and where no file is that small.
    """
    return _Search(compressor, values, bits, name, effort).best()


class _Search:
    """One item, and how large its file may be."""

    def __init__(
        self, compressor: Compressor, values: Tensor, bits: float, name: str | None, effort: int
    ) -> None:
        self.compressor = compressor
        self.network = compressor.artifact.network
        self.quantizer = self.network.quantizer
        self.values = values
        self.bits = bits
        self.name = name
        self.effort = effort

    def best(self) -> Found:
        kinds = self._kinds()
        # Whether there is such an effort is known before anything is computed.
        with_effort(kinds[-1], self.effort, self.network)
        if isinstance(kinds[0].engine, TransformerCoder):
            found, least = self._among_stages(kinds)
        else:
            # Files grow along the ladder.
            count = bisect_right(
                kinds, self.bits, key=lambda kind: self._size(kind, self._own(kind))
            )
            found = self._largest(kinds[:count])
            least = self._size(kinds[0], self._own(kinds[0]))
        if found is None:
            raise VqkitError(
                "the smallest file that this model makes of the item has "
                f"{least:.3f} bits per position, more than {self.bits:g}"
            )
        return self._searched(*found)

    def _kinds(self) -> list[Codec]:
        """From small files to large ones."""
        codec = self.compressor.codec()
        engine = codec.engine
        if isinstance(engine, MixingCoder | BytesCoder) or not can_be_weighed(
            self.quantizer, codec.has_prefixes
        ):
            return [codec]
        max_gain = self.compressor.artifact.network.max_gain
        points = ladder(engine, codec.num_stages, codec.has_prefixes, max_gain)
        return [codec.at(point) for point in points]

    def _own(self, codec: Codec) -> Coded:
        """The item as a kind of file has it."""
        return self.compressor.code(self.values[None], codec)[0]

    def _own_size(self, codec: Codec) -> float:
        return self._size(codec, self._own(codec))

    def _size(self, codec: Codec, coded: Coded) -> float:
        """Bits of the file for each position of the item."""
        data = codec.file_of(coded, self.name)
        return 8 * len(data) / math.prod(coded.extent)

    def _quality(self, codec: Codec, coded: Coded) -> float:
        """How close the item is to what a file of it gives, in dB."""
        shown = self.compressor.values_of(codec, [coded.codes], coded.extent)
        signal = self.compressor.artifact.signal
        return float(signal.measures(shown, self.values[None])[signal.quality][0])

    def _largest(self, kinds: Sequence[Codec]) -> Found | None:
        """The last of these that fits; of scalar codes with the effort that was asked for, which
        may take a few bits more where they pay.
        """
        for codec in reversed(kinds):
            if isinstance(codec.engine, ScalarCoder):
                codec = with_effort(codec, self.effort, self.network)
            coded = self._own(codec)
            if self._size(codec, coded) <= self.bits:
                return codec, coded
        return None

    def _searched(self, codec: Codec, coded: Coded) -> Found:
        """The same with the effort that was asked for, where that fits too: of codebooks, other
        codes do not take fewer bits.
        """
        if self.effort and not codec.effort:
            better = with_effort(codec, self.effort, self.network)
            found = self._own(better)
            if self._size(better, found) <= self.bits:
                return better, found
        return codec, coded

    # -------------------------------------------------------------------------- codes of codebooks

    def _among_stages(self, kinds: Sequence[Codec]) -> tuple[Found | None, float]:
        """The best that fits, of the first stages and of more stages whose bits are weighed; and
        the size of the smallest file without a weight.
        """
        whole = self._own(kinds[-1])
        assert isinstance(whole.codes, np.ndarray)
        found: Found | None = None
        least = math.inf
        for number, codec in enumerate(kinds):
            # Stages know nothing of those behind them.
            codes = whole.codes[: codec.num_codebooks]
            coded = replace(whole, codes=codes, payloads=whole.payloads[: codec.num_stages])
            size = self._size(codec, coded)
            least = min(least, size)
            if size > self.bits:
                return self._weighed(kinds[number:], found), least
            found = codec, coded
        return found, least

    def _weighed(self, kinds: Sequence[Codec], found: Found | None) -> Found | None:
        """What was found, or better: more stages, each with the least weight of a bit with which
        its file fits, as long as another stage makes the item better; nothing else where bits
        cannot be weighed.
        """
        if not can_be_weighed(self.quantizer, kinds[0].has_prefixes):
            return found
        latents = self.compressor.tokenizer.latents_alone(self.values[None])
        quality = -math.inf if found is None else self._quality(*found)
        for codec in kinds:
            fits = self._fitting(codec, latents)
            if fits is None:
                return found
            better = self._quality(*fits)
            if better <= quality:
                return found
            found = fits
            quality = better
        return found

    def _fitting(self, codec: Codec, latents: Tensor) -> Found | None:
        """A kind of file with the least weight of a bit that makes it fit, of the latents (1, D,
        *grid) of the item.
        """
        engine = codec.engine
        assert isinstance(engine, TransformerCoder)
        own = self.quantizer.encode(latents).numpy()[:, : codec.num_codebooks]
        unit = distortion(self.quantizer, latents, own)
        low = math.log2(LEAST)
        high = math.log2(MOST)
        found: Found | None = None
        for _ in range(PROBES):
            middle = (low + high) / 2
            weight = unit * 2.0**middle
            codes = assign(self.quantizer, engine, latents, codec.num_stages, weight)
            payloads = tuple(engine.encode(codes)[0])
            coded = Coded(tuple(self.values.shape[1:]), codes[0], payloads)
            heavier = replace(codec, weight=weight)
            if self._size(heavier, coded) <= self.bits:
                found = heavier, coded
                high = middle
            else:
                low = middle
        return found
