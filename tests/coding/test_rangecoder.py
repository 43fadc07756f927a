"""The range coder: exact, minimal, the same in lockstep, and harmless on any bytes."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqkit.coding import CorruptCodes
from vqkit.coding.rangecoder import (
    TOTAL,
    BatchRangeDecoder,
    RangeDecoder,
    RangeEncoder,
    encode_batch,
)


@st.composite
def symbols(draw):
    """Any interval of [0, TOTAL), the extremes often."""
    frequency = draw(
        st.sampled_from([1, 2, 255, 256, TOTAL // 2, TOTAL - 1, TOTAL]) | st.integers(1, TOTAL)
    )
    rest = TOTAL - frequency
    return draw(st.sampled_from([0, rest]) | st.integers(0, rest)), frequency


def encode(intervals):
    encoder = RangeEncoder()
    for start, frequency in intervals:
        encoder.encode(start, frequency)
    return encoder.finish()


def holds(data, intervals):
    """Whether a string decodes to these symbols."""
    decoder = RangeDecoder(data)
    for start, frequency in intervals:
        if not start <= decoder.target() < start + frequency:
            return False
        decoder.advance(start, frequency)
    return True


def ideal_bits(intervals):
    return sum(16 - math.log2(frequency) for _, frequency in intervals)


@given(st.lists(symbols(), max_size=200))
def test_what_is_encoded_is_decoded_at_one_byte_more_than_the_ideal(intervals):
    data = encode(intervals)
    assert holds(data, intervals)
    assert ideal_bits(intervals) / 8 - 4 <= len(data) <= 1 + 1.0002 * ideal_bits(intervals) / 8


@given(st.lists(symbols(), max_size=3))
def test_no_shorter_string_would_do(intervals):
    data = encode(intervals).rstrip(b"\0")
    if 1 <= len(data) <= 3:
        size = len(data) - 1
        shorter = (number.to_bytes(size) for number in range(256**size))
        assert not any(
            holds(one, intervals) for one in shorter if size < 2 or one[0] in (data[0], data[0] + 1)
        )


@given(st.integers(0, 6), st.integers(0, 40), st.data())
def test_lockstep_gives_the_same_bytes_and_symbols(count, length, data):
    flat = data.draw(st.lists(symbols(), min_size=count * length, max_size=count * length))
    starts, frequencies = np.array(flat, np.int64).reshape(count, length, 2).transpose(2, 0, 1)
    strings = encode_batch(starts, frequencies)
    assert strings == [encode(flat[row * length : (row + 1) * length]) for row in range(count)]
    decoder = BatchRangeDecoder(strings)
    for start, frequency in zip(starts.T, frequencies.T, strict=True):
        targets = decoder.targets()
        assert targets.dtype == np.int64
        assert ((start <= targets) & (targets < start + frequency)).all()
        decoder.advance(start, frequency)


def test_many_symbols_cost_what_they_should(rng):
    """A skewed and a flat alphabet, 200 000 symbols: within 0.02 % and a byte."""
    for weights in (rng.dirichlet(np.full(512, 0.3)), np.ones(512), np.array([0.999, 0.001])):
        frequencies = np.maximum(1, (weights / weights.sum() * 65000).astype(np.int64))
        frequencies[frequencies.argmax()] += TOTAL - frequencies.sum()
        starts = np.cumsum(frequencies) - frequencies
        drawn = rng.choice(len(weights), (4, 50_000), p=frequencies / TOTAL)
        strings = encode_batch(starts[drawn], frequencies[drawn])
        for row, string in zip(drawn, strings, strict=True):
            ideal = (16 - np.log2(frequencies[row])).sum() / 8
            assert ideal - 1 <= len(string) <= 1 + 1.0002 * ideal


@pytest.mark.parametrize("length", [0, 1, 5, 300])
@pytest.mark.parametrize("frequency", [1, 65535, 65536])
def test_extremes(length, frequency):
    for start in {0, TOTAL - frequency}:
        data = encode([(start, frequency)] * length)
        assert holds(data, [(start, frequency)] * length)
        if start == 0 or length == 0:
            assert data == bytes(len(data))  # nothing but zeros, as many as say how much was coded


def test_a_carry_runs_through_many_bytes(rng):
    """The interval straddles a number whose bytes are all 255 but the first, until the last symbol
    decides.
    """
    middle = (TOTAL // 2 - 1, 2)
    for first in ((16000, 1), (0, TOTAL)):
        for end, low in (((0, TOTAL // 2), False), ((TOTAL // 2, TOTAL // 2), True)):
            intervals = [first, middle, *[(TOTAL // 2 - 1, 2)] * 100, end, (5, 1)]
            data = encode(intervals)
            assert holds(data, intervals)
            assert data.count(b"\0" if low else b"\xff") > 150
            assert encode_batch(*np.array([intervals]).transpose(2, 0, 1)) == [data]


def test_symbols_that_cost_nothing_change_nothing():
    intervals = [(7, 9), (40_000, 1), (0, 30_000)]
    filled = [(0, TOTAL), *intervals, (0, TOTAL), (0, TOTAL)]
    assert encode(filled) == encode(intervals)


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_any_bytes_decode_to_some_symbols_until_they_end(strings, seed):
    """No target is out of bounds, both decoders agree, and no string holds more symbols than its
    bytes can.
    """
    frequencies = np.random.default_rng(seed).multinomial(TOTAL - 50, np.full(50, 1 / 50)) + 1
    ends = np.cumsum(frequencies)
    batch, single = BatchRangeDecoder(strings), [RangeDecoder(one) for one in strings]
    for number in range(60):
        targets = batch.targets()
        assert targets.tolist() == [decoder.target() for decoder in single]
        found = np.searchsorted(ends, targets, side="right")
        assert found.max() < 50
        starts = ends[found] - frequencies[found]
        ended = False
        for decoder, start, frequency in zip(
            single, starts.tolist(), frequencies[found].tolist(), strict=True
        ):
            try:
                decoder.advance(start, frequency)
            except CorruptCodes:
                ended = True
        if ended:
            with pytest.raises(CorruptCodes):
                batch.advance(starts, frequencies[found])
            assert number > min(map(len, strings)) / 2 - 1  # 16 bits a symbol at most
            return
        batch.advance(starts, frequencies[found])
    pytest.fail("60 symbols of 5.5 bits or more came out of 30 bytes")


@pytest.mark.parametrize(
    "interval", [(0, 0), (-1, 5), (5, -1), (0, TOTAL + 1), (TOTAL, 1), (TOTAL - 1, 2)]
)
def test_what_is_no_interval_is_refused(interval):
    start, frequency = (np.array([[number]]) for number in interval)
    for call in (
        lambda: RangeEncoder().encode(*interval),
        lambda: RangeDecoder(b"a").advance(*interval),
        lambda: encode_batch(start, frequency),
        lambda: BatchRangeDecoder([b"a"]).advance(start[0], frequency[0]),
    ):
        with pytest.raises(ValueError, match="no interval"):
            call()


def test_a_symbol_without_the_target_is_refused():
    for interval in ((0, 100), (60_000, 100)):
        with pytest.raises(ValueError, match="target"):
            RangeDecoder(b"\x80").advance(*interval)
        with pytest.raises(ValueError, match="target"):
            BatchRangeDecoder([b"\x80"]).advance(*np.array([interval]).T)


def test_golden_bytes():
    """The example of docs/file-format.md, which may never change: [3/16 - 2^-21, 3/16) of the unit
    interval.
    """
    intervals = [(0, 16_384), (16_384, 32_768), (65_535, 1), (49_152, 16_384)]
    assert encode(intervals).hex() == "2ffff8"
    assert encode_batch(*np.array([intervals]).transpose(2, 0, 1)) == [bytes.fromhex("2ffff8")]
    assert "2f ff f8" in (Path(__file__).parents[2] / "docs" / "file-format.md").read_text()
