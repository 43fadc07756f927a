"""Bundles: many images, each to be had alone, and everything else has a name."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coding.files import MODEL, decoded, payload, read_block, write_codes, write_many
from vqkit.coding import (
    Block,
    Bundle,
    BundleHeader,
    CorruptCodes,
    CorruptHeader,
    CorruptSection,
    Extents,
    OutOfBounds,
    TrailingBytes,
    Truncated,
    UnknownSection,
    WrongProfile,
    codes_crc,
    describe,
    write_bundle,
)
from vqkit.coding.format.numbers import crc_bytes, varint
from vqkit.coding.format.sections import section

SIZES = st.lists(st.sampled_from([(28, 28), (32, 64), (1, 1 << 20)]), min_size=1, max_size=40)


class Counted(io.BytesIO):
    """A stream that counts the bytes that are read."""

    bytes_read = 0

    def read(self, size=-1):
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def header_of(numbers, kind=b"\x96vq\x12" + MODEL + b"\0"):
    written = kind + b"".join(map(varint, numbers))
    return written + crc_bytes(written)


def index_of(lengths):
    written = b"".join(map(varint, lengths))
    return written + crc_bytes(written)


@settings(max_examples=60)
@given(SIZES, st.integers(1, 3), st.integers(1, 16), st.booleans(), st.data())
def test_what_is_written_is_read(sizes, stages, block_size, named, data):
    header = BundleHeader(Extents(sizes), stages, 0, MODEL, block_size)
    payloads = [tuple(data.draw(st.binary(max_size=200)) for _ in range(stages)) for _ in sizes]
    spans = [header.items(number) for number in range(header.num_blocks)]
    blocks = [
        Block(number * 77, tuple(payloads[span.start : span.stop]))
        for number, span in enumerate(spans)
    ]
    names = [f"folder/image-{number}.png" for number in range(len(sizes))] if named else None
    bundle = Bundle(io.BytesIO(write_bundle(header, blocks, names)))
    assert [bundle.block(number) for number in range(bundle.whole_blocks)] == blocks
    assert [bundle.header.extents[number] for number in range(len(sizes))] == sizes
    assert bundle.names() == names and not bundle.truncated
    for number, size in enumerate(sizes):
        item = bundle.item(number)
        assert item.extent == size and item.payloads == payloads[number]
        assert number == item.block * block_size + item.place
    assert (bundle.header.num_codebooks, bundle.header.model_id) == (stages, MODEL)
    with pytest.raises(IndexError):
        bundle.item(len(sizes))


@pytest.mark.parametrize("items", [64, 65, 256, 257, 1000])
@pytest.mark.parametrize("size", [10, 127])
def test_overhead_is_at_most_two_bytes_an_item(items, size):
    header = BundleHeader(Extents([(28, 28)] * items), 1, 0, MODEL)
    spans = [header.items(number) for number in range(header.num_blocks)]
    data = write_bundle(header, [Block(0, ((bytes(size),),) * len(span)) for span in spans])
    assert len(data) - items * size <= 2 * items


def test_an_item_is_found_without_reading_other_blocks():
    codes = np.random.default_rng(0).integers(0, 1024, (2000, 1, 16))
    stream = Counted(write_many(codes, block_size=20))
    bundle = Bundle(stream)
    opening = stream.bytes_read
    assert opening < 0.03 * bundle.size
    item = bundle.item(1234)
    assert (decoded(item.payloads[0], 16) == codes[1234, 0]).all()
    assert stream.bytes_read - opening == bundle.span(item.block)[1] - bundle.span(item.block)[0]
    assert (read_block(bundle, 61, 16) == codes[1220:1240]).all()


def test_blocks_that_change_places_are_found():
    codes = np.random.default_rng(0).integers(0, 1024, (2, 1, 4))
    header = BundleHeader(Extents([(28, 28)] * 2), 1, 0, MODEL, 1)
    blocks = [Block(codes_crc(one, number), ((payload(one),),)) for number, one in enumerate(codes)]
    assert (read_block(Bundle(write_bundle(header, blocks)), 1, 4) == codes[1]).all()
    with pytest.raises(CorruptCodes, match="block 1"):
        read_block(Bundle(write_bundle(header, blocks[::-1])), 0, 4)


def test_cut_off_anywhere_it_gives_the_blocks_that_are_there():
    codes = np.random.default_rng(0).integers(0, 1024, (5, 2, 8))
    data = write_many(codes, block_size=2, names=list("abcde"))
    seen = set()
    for size in range(4, len(data)):
        try:
            bundle = Bundle(data[:size])
        except Truncated:
            continue
        assert bundle.truncated or size == len(data) - len(
            section(4, zlib.compress(b"a\0b\0c\0d\0e", 9))
        )
        for number in range(3):
            if number < bundle.whole_blocks:
                assert (read_block(bundle, number, 8) == codes[2 * number : 2 * number + 2]).all()
            else:
                with pytest.raises(Truncated):
                    bundle.block(number)
        seen.add(bundle.whole_blocks)
    assert seen == {1, 2, 3}


def test_a_file_is_not_a_bundle():
    for model_id in (MODEL, None):
        with pytest.raises(WrongProfile):
            Bundle(write_codes(np.ones((1, 4), int), model_id=model_id))


@pytest.mark.parametrize(
    "numbers",
    [
        *[
            (0, 1, 1, 1, 1, 1),
            (65, 1, 1, 1, 1, 1),
            (1, 0, 1),
            (1, 2**24 + 1, 1, 1, 1, 1),
            (1, 1, 0, 1, 1, 1),
        ],
        *[
            (1, 1, 257, 1, 1, 1),
            (1, 2, 1, 3, 1, 1),
            (1, 2, 1, 0, 1, 1),
            (1, 1, 1, 1, 0, 1),
            (1, 1, 1, 1, 2**15, 2**15),
        ],
    ],
)
def test_sizes_have_bounds(numbers):
    with pytest.raises(OutOfBounds):
        Bundle(header_of(numbers) + index_of([5]) + bytes(5))


def test_damaged_header_index_and_blocks_are_named():
    data = bytearray(
        write_many(np.random.default_rng(0).integers(0, 1024, (3, 1, 8)), block_size=2)
    )
    for place in (6, 18):
        changed = data.copy()
        changed[place] ^= 1
        with pytest.raises(CorruptHeader, match="header"):
            Bundle(bytes(changed))
    index = Bundle(bytes(data)).header_bytes
    data[index] ^= 1
    with pytest.raises(CorruptHeader, match="index"):
        Bundle(bytes(data))
    header = header_of((1, 2, 2, 2, 28, 28))
    with pytest.raises(OutOfBounds):  # shorter than its check sum and lengths
        Bundle(header + index_of([5]) + bytes(5))
    for block in (b"\1\1abc", b"\1\1a", b"\x80\0ab", b"\xff\xff\xff\xff", b"\x80\x80"):
        with pytest.raises(CorruptCodes, match="block 1"):
            Bundle(header + index_of([4 + len(block)]) + bytes(4) + block).block(0)


def test_only_sections_that_may_be_skipped_follow_the_blocks():
    data = write_many(np.ones((2, 1, 4), int))
    assert not Bundle(data + section(6, b"?")).truncated
    for tag in (1, 3):
        with pytest.raises(UnknownSection):
            Bundle(data + section(tag, bytes(4)))
    with pytest.raises(TrailingBytes):
        Bundle(data + bytes(3))
    assert Bundle(data + section(6, b"?")[:-1]).truncated


@pytest.mark.parametrize(
    "joined", [b"a", b"a\0b\0c", b"a\0../b", b"a\0\xff", b"\0", b"a\0" + b"b" * 2000]
)
def test_names_that_are_not_those_of_the_items_are_refused(joined):
    bundle = Bundle(write_many(np.ones((2, 1, 4), int)) + section(4, zlib.compress(joined)))
    with pytest.raises(CorruptSection):
        bundle.names()
    assert read_block(bundle, 0, 4).shape == (2, 1, 4)


def test_packed_names_cannot_fill_the_memory(monkeypatch):
    monkeypatch.setattr("vqkit.coding.format.bundle.MAX_NAMES_BYTES", 1000)
    packed = zlib.compress(b"a" * 10_000_000, 9)
    plain = write_many(np.ones((2, 1, 4), int))
    for body in (packed, packed[:-3], b"no zlib", b"", zlib.compress(b"a\0b") + b"more"):
        with pytest.raises(CorruptSection):
            Bundle(plain + section(4, body)).names()
    with pytest.raises(OutOfBounds):
        write_many(np.ones((2, 1, 4), int), names=["a" * 600, "b" * 600])


def test_wrong_use_is_refused():
    header = BundleHeader(Extents([(28, 28)] * 3), 1, 0, MODEL, 2)
    good = [Block(0, ((b"",), (b"",))), Block(0, ((b"",),))]
    for blocks in (good[:1], good + good[1:], good[::-1], [Block(0, ((b"", b""),) * 2), good[1]]):
        with pytest.raises(ValueError, match="block"):
            write_bundle(header, blocks)
    for names in (["a", "b"], ["a", "b", "../c"]):
        with pytest.raises(ValueError, match="name"):
            write_bundle(header, good, names)
    with pytest.raises(IndexError):
        Bundle(write_bundle(header, good)).block(2)


def test_a_description_accounts_for_every_byte():
    data = write_many(np.ones((5, 1, 4), int), block_size=2, names=list("abcde"))
    found = describe(data)
    assert [what for what, _ in found.parts] == ["header", "index", "blocks", "names"]
    assert sum(size for _, size in found.parts) == found.size == len(data)
    assert found.profile == "bundle" and found.bits_per_position == 8 * len(data) / (5 * 784)
    cut = describe(data[:-30])
    assert (
        cut.truncated
        and cut.parts[-1][0] == "cut off"
        and sum(size for _, size in cut.parts) == len(data) - 30
    )
