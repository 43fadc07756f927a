"""Range coder: symbols with 16-bit frequencies <-> bytes, as few as hold them.

Range coding after Martin (1979), with a 32-bit range that is cut into exact shares (product first,
then shift), so that nothing is lost to rounding on average. `RangeEncoder` and `RangeDecoder` are
normative (docs/file-format.md); `encode_batch` and `BatchRangeDecoder` take many streams in
lockstep, `StringEncoder` many symbols of one stream, and give the same bytes and symbols. Shapes: N
streams, L symbols.

A symbol is an interval [start, start + frequency) of [0, TOTAL). The whole of it, (0, TOTAL), costs
nothing and changes nothing: streams of different lengths are filled up with it.

Most byte strings decode to some symbols: damage is found by the check sums of the file. A decoder
stops only where the string has ended. That bounds the information in a string but not the number of
its symbols: thousands that are nearly certain may take no byte at all, so that whoever decodes must
bound their number first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import kernels
from .format.errors import CorruptCodes

BITS = 16
# Sum of the frequencies of all symbols.
TOTAL = 1 << BITS
# Zeros past the end of a string that its decoder reads at most, in bytes.
BEHIND = 4

# The range at the start, one more than 32 bits hold, so that no code value lies outside of it.
_WHOLE = 1 << 32
# Below this the range is widened by a byte.
_SMALLEST = 1 << 24
_KEEP = _WHOLE - 1


class RangeEncoder:
    """One stream, symbol by symbol, from the beginning or from where a kernel has come."""

    def __init__(self, low: int = 0, width: int = _WHOLE, data: bytes = b"") -> None:
        # Lower end of the interval, relative to the bytes that are out.
        self._low = low
        self._range = width
        self._bytes = bytearray(data)

    def encode(self, start: int, frequency: int) -> None:
        """Append a symbol. ValueError if it is no interval of [0, TOTAL)."""
        _check_symbol(start, frequency)
        first = (self._range * start) >> BITS
        self._range = ((self._range * (start + frequency)) >> BITS) - first
        self._low += first
        while self._range < _SMALLEST:
            self._put(self._low >> 24)
            self._low = (self._low << 8) & _KEEP
            self._range <<= 8

    def finish(self) -> bytes:
        """The string that decodes, BEHIND zeros past its end, to the symbols.

        The encoder is then of no more use.
        """
        end = -(-self._low // _WHOLE) * _WHOLE
        # Then one byte more is needed, and is enough: the range spans its step.
        if end >= self._low + self._range:
            end = -(-self._low // _SMALLEST) * _SMALLEST
        self._put(end >> 24)
        return bytes(self._bytes).removesuffix(b"\0")

    def _put(self, digit: int) -> None:
        """Append a byte.

        What exceeds 255 is a carry into those before it, where it ends: the number is below 1.
        """
        if digit > 0xFF:
            last = len(self._bytes) - 1
            while self._bytes[last] == 0xFF:
                self._bytes[last] = 0
                last -= 1
            self._bytes[last] += 1
        self._bytes.append(digit & 0xFF)


class StringEncoder:
    """One stream, many symbols at a time, in memory for its bytes and no symbols; compiled where
    numba can be used.
    """

    def __init__(self) -> None:
        self._kernel = kernels.load("rangecoder_kernel")
        self._encoder = RangeEncoder()
        self._state = np.array([0, _WHOLE, 0])
        self._out = np.zeros(0, np.uint8)

    def put(self, symbols: np.ndarray) -> None:
        """Append symbols (2 L,) int64, start and frequency of each, that are intervals of [0,
        TOTAL).
        """
        if not self._kernel:
            for start, frequency in symbols.reshape(-1, 2).tolist():
                self._encoder.encode(start, frequency)
            return
        count = int(self._state[2])
        # Two bytes for each symbol, and more than that, so that few calls have to copy.
        if count + len(symbols) > len(self._out):
            room = np.zeros(count + len(symbols) + count // 4, np.uint8)
            room[:count] = self._out[:count]
            self._out = room
        self._kernel.encode_symbols(symbols, self._state, self._out)

    def finish(self) -> bytes:
        """See `RangeEncoder.finish`."""
        if not self._kernel:
            return self._encoder.finish()
        low, width, count = self._state.tolist()
        return RangeEncoder(low, width, self._out[:count].tobytes()).finish()


class RangeDecoder:
    """One stream, symbol by symbol: ask for `target`, find the symbol whose interval holds it,
    `advance`.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 4
        self._range = _WHOLE
        self._value = int.from_bytes(data[:4].ljust(4, b"\0"))

    def target(self) -> int:
        """A number in [0, TOTAL) that lies in the interval of the next symbol."""
        return (((self._value + 1) << BITS) - 1) // self._range

    def advance(self, start: int, frequency: int) -> None:
        """Step over a symbol.

        ValueError if it is no interval of [0, TOTAL) that holds the target; CorruptCodes behind the
        end of the string.
        """
        _check_symbol(start, frequency)
        first = (self._range * start) >> BITS
        width = ((self._range * (start + frequency)) >> BITS) - first
        if not 0 <= self._value - first < width:
            raise ValueError(f"the target is not in [{start}, {start + frequency})")
        self._value -= first
        while width < _SMALLEST:
            byte = self._data[self._position] if self._position < len(self._data) else 0
            self._value = self._value << 8 | byte
            width <<= 8
            self._position += 1
        self._range = width
        check_position(self._position, len(self._data))


def check_position(position: int, length: int) -> None:
    """CorruptCodes if a decoder would have read on behind a string that an encoder wrote."""
    if position > length + BEHIND:
        raise CorruptCodes("codes are corrupt: there are more of them than their bytes can hold")


def _check_symbol(start: int, frequency: int) -> None:
    if not (0 <= start and 1 <= frequency and start + frequency <= TOTAL):
        raise ValueError(f"start {start} and frequency {frequency} are no interval of [0, {TOTAL})")


# ------------------------------------------------------------------------------------- in lockstep

# What stays of `low` when 0, 1 or 2 bytes leave it; a carry waits until its byte leaves.
_LEFT = np.array([(1 << 40) - 1, (1 << 24) - 1, (1 << 16) - 1], np.uint64)


def encode_batch(starts: np.ndarray, frequencies: np.ndarray) -> list[bytes]:
    """Symbols (N, L), integers -> N strings, each what `RangeEncoder` gives.

    ValueError as there. It takes 26 bytes of memory a symbol.
    """
    starts, frequencies = _intervals(starts.T, frequencies.T)  # (L, N)
    length, count = starts.shape
    # A digit above 255 holds the carry into the digit before it.
    digits = np.zeros((2 * length + 2, count), np.uint16)
    lengths = np.zeros(count, np.int64)
    streams = np.arange(count)
    low = np.zeros(count, np.uint64)
    width = np.full(count, _WHOLE, np.uint64)
    for start, frequency in zip(starts, frequencies, strict=True):
        first, width = _share(width, start, frequency)
        low += first
        # Two digits are written, of which as many count as bytes leave; the next symbol writes over
        # the others.
        digits[lengths, streams] = low >> 24
        digits[lengths + 1, streams] = low >> 16 & 0xFF
        leaving = _missing_bytes(width)
        lengths += leaving.view(np.int64)
        low = (low & _LEFT[leaving]) << (leaving << 3)
        width <<= leaving << 3
    short = _rounded_up(low, _WHOLE)
    end = np.where(short < low + width, short, _rounded_up(low, _SMALLEST))
    digits[lengths, streams] = end >> 24
    return _strings(digits, lengths + 1)


class BatchRangeDecoder:
    """N streams, one symbol of each at a time; each gives what `RangeDecoder` gives.

    It takes 6 bytes of memory a byte of data.
    """

    def __init__(self, data: Sequence[bytes]) -> None:
        lengths = np.array([len(one) + 2 for one in data], np.int64)
        padded = np.frombuffer(b"".join(one + b"\0\0" for one in data) + b"\0", np.uint8)
        # Each byte with the one after it.
        self._pairs = padded[:-1].astype(np.uint16) << 8 | padded[1:]
        # Where a stream has two zeros, past which nothing is read.
        self._ends = np.cumsum(lengths) - 2
        self._positions = self._ends + 2 - lengths
        self._range = np.full(len(data), _WHOLE, np.uint64)
        self._value = self._next_pair() << 16
        self._positions += 2
        self._value |= self._next_pair()
        self._positions += 2

    def targets(self) -> np.ndarray:
        """Numbers in [0, TOTAL), (N,) int64, each in the interval of the next symbol of its
        stream.
        """
        return ((((self._value + 1) << BITS) - 1) // self._range).view(np.int64)

    def advance(self, starts: np.ndarray, frequencies: np.ndarray) -> None:
        """Step over a symbol (N,) of each stream.

        Errors as in `RangeDecoder`; the streams are then of no use.
        """
        first, width = _share(self._range, *_intervals(starts, frequencies))
        value = self._value - first
        # A value below `first` wraps round to more than any range.
        if (value >= width).any():
            raise ValueError("a target is not in the interval of its symbol")
        missing = _missing_bytes(width)
        shift = missing << 3
        self._value = value << shift | self._next_pair() >> (16 - shift)
        self._range = width << shift
        self._positions += missing.view(np.int64)
        check_position(int((self._positions - self._ends).max(initial=0)), 0)

    def _next_pair(self) -> np.ndarray:
        """The next two bytes of each stream as a number, zeros past its end."""
        return self._pairs[np.minimum(self._positions, self._ends)].astype(np.uint64)


def _intervals(starts: np.ndarray, frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    start = np.ascontiguousarray(starts, np.uint64)
    frequency = np.ascontiguousarray(frequencies, np.uint64)
    # A negative number became a huge one. TOTAL - frequency wraps only for a frequency that the
    # first test refuses.
    inside = (frequency - 1 < TOTAL) & (start <= TOTAL - frequency)
    if start.shape != frequency.shape or not inside.all():
        raise ValueError(f"some start and frequency are no interval of [0, {TOTAL})")
    return start, frequency


def _share(
    width: np.ndarray, start: np.ndarray, frequency: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First value and width of the share of a range that belongs to a symbol."""
    first = (width * start) >> BITS
    return first, ((width * (start + frequency)) >> BITS) - first


def _missing_bytes(width: np.ndarray) -> np.ndarray:
    """By how many bytes a range is too small.

    0, 1 or 2, as a symbol leaves at least _SMALLEST >> BITS of it.
    """
    return (width < _SMALLEST).astype(np.uint64) + (width < _SMALLEST >> 8)


def _rounded_up(low: np.ndarray, step: int) -> np.ndarray:
    """The next multiple of a power of two."""
    bits = step.bit_length() - 1
    return (low + (step - 1)) >> bits << bits


def _strings(digits: np.ndarray, lengths: np.ndarray) -> list[bytes]:
    """Digits (places, N) up to 511 -> bytes, the last of them only if it is not zero."""
    for place in range(int(lengths.max(initial=0)) - 1, 0, -1):
        digits[place - 1] += digits[place] >> 8
    text = (digits & 0xFF).astype(np.uint8).T
    strings = []
    for row, length in zip(text, lengths, strict=True):
        strings.append(row[:length].tobytes().removesuffix(b"\0"))
    return strings
