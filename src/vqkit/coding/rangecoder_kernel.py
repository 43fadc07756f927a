"""The range coder compiled: bytes and symbols of `RangeEncoder` and `RangeDecoder`.

A decoder is an array (3,) of int64: range, value, and position in its data. An encoder is an array
(3,): low, range, and how many bytes are out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .kernels import compiled
from .rangecoder import TOTAL


def begin_decoder(data: bytes) -> Any:
    """The state of a decoder before the first symbol of a string."""
    return np.array([1 << 32, int.from_bytes(data[:4].ljust(4, b"\0")), 4])


@compiled
def _advance(span: int, value: int, data: Any, decoder: Any) -> None:
    """Keep range and value of a decoder, widened by as many bytes as the range has become too
    small.
    """
    position = decoder[2]
    while span < 1 << 24:
        digit = data[position] if position < len(data) else 0
        span = span << 8
        value = value << 8 | digit
        position += 1
    decoder[0] = span
    decoder[1] = value
    decoder[2] = position


@compiled
def decode_symbol(frequencies: Any, data: Any, decoder: Any) -> int:
    """The next symbol, of frequencies (K,) that sum to TOTAL."""
    span = decoder[0]
    value = decoder[1]
    target = (((value + 1) << 16) - 1) // span
    symbol = 0
    start = 0
    while start + frequencies[symbol] <= target:
        start += frequencies[symbol]
        symbol += 1
    first = span * start >> 16
    width = (span * (start + frequencies[symbol]) >> 16) - first
    _advance(width, value - first, data, decoder)
    return symbol


@compiled
def decode_bit(one: int, data: Any, decoder: Any) -> int:
    """The next bit, which is 1 with probability `one`, of TOTAL, and whose 0 comes first."""
    span = decoder[0]
    value = decoder[1]
    first = span * (TOTAL - one) >> 16
    if value >= first:
        _advance(span - first, value - first, data, decoder)
        return 1
    _advance(first, value, data, decoder)
    return 0


@compiled
def encode_symbols(symbols: Any, encoder: Any, out: Any) -> None:
    """Append symbols (2 n,), start and frequency of each, to the bytes that are out.

    out has room for two bytes more for each symbol.
    """
    for place in range(0, len(symbols), 2):
        encode_symbol(symbols[place], symbols[place + 1], encoder, out)


@compiled
def encode_symbol(start: int, frequency: int, encoder: Any, out: Any) -> None:
    """Append one symbol; out has room for two bytes more."""
    low = encoder[0]
    span = encoder[1]
    count = encoder[2]
    first = span * start >> 16
    span = (span * (start + frequency) >> 16) - first
    low += first
    while span < 1 << 24:
        if low >> 32:  # a carry
            last = count - 1
            while out[last] == 255:
                out[last] = 0
                last -= 1
            out[last] += 1
        out[count] = low >> 24 & 255
        low = low << 8 & ((1 << 32) - 1)
        span = span << 8
        count += 1
    encoder[0] = low
    encoder[1] = span
    encoder[2] = count


@compiled
def code_bit(bit: int, one: int, data: Any, decoder: Any, encoder: Any, out: Any) -> int:
    """The next bit of a decoder, or `bit` where that is empty, which is then encoded.

    It is 1 with probability `one`, of TOTAL, and its 0 comes first.
    """
    if len(decoder):
        return decode_bit(one, data, decoder)
    start = (TOTAL - one) * bit
    encode_symbol(start, one if bit else TOTAL - one, encoder, out)
    return bit
