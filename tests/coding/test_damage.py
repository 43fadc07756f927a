"""Damaged files never crash, never take memory for what is not there, and never give wrong codes
without a word.
"""

import time
import tracemalloc

import pytest

from tests.coding.files import MODEL, read_block, read_codes, write_codes, write_many
from vqkit.coding import Bundle, FormatError, Parts, describe, read_file
from vqkit.coding.format.numbers import crc_bytes, varint

MUTATIONS = 3000
POSITIONS = 12


def mutated(data, other, rng):
    """A file with bits flipped, bytes replaced, parts of itself or another file spliced in, or its
    end cut off.
    """
    changed, kind = bytearray(data), rng.integers(0, 6)
    start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    if kind == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 4)).tolist():
            changed[place] ^= 1 << int(rng.integers(0, 8))
    elif kind == 1:
        changed[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
    elif kind == 2:
        del changed[start:end]
    elif kind == 3:
        changed[start:start] = data[start:end]
    elif kind == 4:
        changed[start:end] = other[start : end + int(rng.integers(-3, 4))]
    else:
        del changed[start:]
    return bytes(changed)


@pytest.mark.parametrize("name", [None, "a.png"])
def test_a_damaged_file_gives_its_codes_or_an_error(name, rng):
    codes, others = rng.integers(0, 1024, (2, 3, POSITIONS))
    data, other, right = write_codes(codes, name), write_codes(others, name), 0
    for _ in range(MUTATIONS):
        changed = mutated(data, other, rng)
        try:
            describe(changed)
            found, truncated = read_codes(changed, POSITIONS)
        except FormatError:
            continue
        # All stages of another file of this model are no damage; one alone, among those of the
        # first, is.
        assert any((found == one[: len(found)]).all() for one in (codes, others))
        assert truncated or len(found) == 3
        right += 1
    assert right > 50


def test_a_damaged_bare_stream_is_no_harder(rng):
    data = write_codes(rng.integers(0, 1024, (2, POSITIONS)), model_id=None)
    for _ in range(MUTATIONS):
        try:
            describe(mutated(data, data, rng))
        except FormatError:
            pass


def test_a_damaged_bundle_gives_its_codes_or_an_error(rng):
    codes, others = rng.integers(0, 1024, (2, 6, 2, POSITIONS))
    names = [f"{number}.png" for number in range(6)]
    data, other, right = write_many(codes, 2, names), write_many(others, 2, names), 0
    for _ in range(MUTATIONS):
        changed = mutated(data, other, rng)
        try:
            describe(changed)
            bundle = Bundle(changed)
        except FormatError:
            continue
        assert bundle.header.num_blocks == 3
        for number in range(3):
            try:
                found = read_block(bundle, number, POSITIONS)
            except FormatError:
                continue
            part = slice(2 * number, 2 * number + 2)
            assert (found == codes[part]).all() or (found == others[part]).all()
            right += 1
        try:
            assert bundle.names() in (names, None)
        except FormatError:
            pass
    assert right > 50


def test_noise_is_refused(rng):
    for start in (b"", b"\x96vq\x10\0", b"\x96vq\x11", b"\x96vq\x12", b"\x96vq\x13"):
        for _ in range(MUTATIONS // 10):
            noise = start + rng.bytes(int(rng.integers(0, 200)))
            for read in (read_file, Bundle, Parts, describe):
                try:
                    read(noise)
                except FormatError:
                    continue


def file_that_claims_much():
    return b"\x96vq\x10\0" + b"".join(map(varint, (2**14, 2**14, 64))) + b"\x01" + varint(2**30)


def bundle_that_claims_much(items=2**24):
    numbers = (64, items, 1, items, 2**14, 2**14)
    header = b"\x96vq\x12" + MODEL + b"\0" + b"".join(map(varint, numbers))
    return header + crc_bytes(header) + varint(2**30) * 1000


def parts_that_claim_much():
    header = b"\x96vq\x13" + MODEL + b"\x20" + b"".join(map(varint, (2**33, 2**13, 64)))
    return header + crc_bytes(header) + varint(2**30) * 1000


@pytest.mark.parametrize(
    "data",
    [
        file_that_claims_much(),
        bundle_that_claims_much(),
        parts_that_claim_much(),
        b"\x96vq\x11" + b"\xff" * 100,
    ],
)
def test_huge_claims_are_refused_at_once(data):
    tracemalloc.start()
    start = time.perf_counter()
    for read in (read_file, Bundle, Parts, describe):
        with pytest.raises(FormatError):
            read(data)
    assert time.perf_counter() - start < 0.5
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
