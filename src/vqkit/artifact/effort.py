"""Analysis by synthesis: a slower search for codes that make a file smaller, or what comes back
better.

The encoder gives the codes nearest to its latents, and knows neither what the decoder makes of them
nor what they cost beside their neighbours. With an effort these are where a search begins: of
scalar codes see scalar_search, of text see symbol_search. Files stay what they are: the decoder
does not know how codes were found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from ..coding import ScalarCoder, ScalarCodes
from ..errors import VqkitError
from ..model.autoencoder import Autoencoder
from . import scalar_search, symbol_search
from .codec import Codec, Codes
from .tokenizer import Tokenizer

# Rounds of each effort are as many as its number; 0 takes the encoder's codes.
HIGHEST = 9


def with_effort(codec: Codec, effort: int, network: Autoencoder) -> Codec:
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
    quantizer = network.quantizer
    is_scalar = quantizer.lattice(1) is not None and isinstance(codec.engine, ScalarCoder)
    if not is_scalar and not symbol_search.is_possible(network):
        raise VqkitError(
            "an effort is for models of scalar codes, such as those of recipe photos, and of text "
            f"with at most {symbol_search.MAX_CODEBOOK} codes a codebook on a single grid, and "
            f"this one has {type(quantizer).__name__}; leave the effort out"
        )
    return replace(codec, effort=effort)


def searched(
    tokenizer: Tokenizer,
    codec: Codec,
    values: Tensor,
    codes: Sequence[Codes] | np.ndarray,
    *,
    progress: Callable[[float], None] | None = None,
) -> list[Codes]:
    """Better codes of values (B, C, *extent) than `codes` (q, *grid) of each item, by the effort of
    the codec; the same where there are none.

    progress: called with the number of items that are done, fractions included.
    """
    found: list[Codes] = []
    for number, (one, start) in enumerate(zip(values, codes, strict=True)):

        def tell(share: float, before: int = number) -> None:
            if progress:
                progress(before + share)

        if isinstance(start, ScalarCodes):
            found.append(scalar_search.search(tokenizer, codec, one, start, tell))
        else:
            found.append(symbol_search.search(tokenizer, codec, one, start, tell))
    return found
