"""Single files: what is written is read, and everything else has a name."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.coding.files import MODEL, decoded, read_codes, write_codes
from vqkit.coding import (
    BARE,
    FILE,
    MIXING,
    CorruptCodes,
    CorruptHeader,
    CorruptSection,
    FileHeader,
    FormatError,
    NewerVersion,
    NotVq,
    OutOfBounds,
    Stage,
    TrailingBytes,
    Truncated,
    UnknownSection,
    WrongModel,
    WrongProfile,
    check_block,
    check_model,
    codes_crc,
    describe,
    profile_of,
    read_file,
    stage_crcs,
    usable_name,
    write_file,
)
from vqkit.coding.format.numbers import crc_bytes, varint
from vqkit.coding.format.sections import section
from vqkit.errors import VqkitError

SIDES = st.sampled_from([1, 127, 128, 1 << 14]) | st.integers(1, 1 << 14)
HEADERS = st.builds(
    FileHeader,
    st.tuples(SIDES, SIDES),
    st.integers(1, 64),
    st.integers(0, 1),
    st.none() | st.binary(min_size=8, max_size=8),
)
STAGES = st.builds(Stage, st.integers(0, 2**32 - 1), st.binary(max_size=200))
NAMES = st.none() | st.text(max_size=20).filter(usable_name)


def file_of(sections, num_codebooks=1, model_id=MODEL):
    """A file of raw sections behind a right header."""
    stages = [Stage(0, b"")] * num_codebooks
    header = write_file(FileHeader((28, 28), num_codebooks, 0, model_id), stages)
    return header[: -6 * num_codebooks] + sections


def header_of(numbers, kind=b"\x96vq\x11" + MODEL + b"\0"):
    written = kind + b"".join(map(varint, numbers))
    return written + crc_bytes(written)


STAGE = section(1, bytes(4) + b"abc")


@given(HEADERS, st.data(), NAMES)
def test_what_is_written_is_read(header, data, name):
    stages = tuple(
        data.draw(st.lists(STAGES, min_size=header.num_codebooks, max_size=header.num_codebooks))
    )
    written = write_file(header, stages, name)
    assert profile_of(written) == (BARE if header.model_id is None else FILE)
    for source in (written, io.BytesIO(written)):
        found = read_file(source)
        assert (found.header, found.stages, found.name, found.truncated) == (
            header,
            stages,
            name,
            False,
        )


def test_a_small_image_has_26_bytes_of_overhead():
    header = FileHeader((28, 28), 1, 0, MODEL)
    assert len(write_file(header, [Stage(0, b"payload")])) == 26 + len(b"payload")
    assert len(write_file(FileHeader((28, 28), 1, 0, None), [Stage(0, b"")])) == 14


def test_golden_bytes():
    """The example of docs/file-format.md, which may never change."""
    written = write_file(
        FileHeader((28, 300), 1, MIXING, MODEL),
        [Stage(codes_crc(np.array([[5, 6]]), 0), b"\xab")],
        "a.png",
    )
    golden = "96767111 0001020304050607 01 1c ac02 01 433130fa 02 05 612e706e67 01 05 d7975e16 ab"
    assert written == bytes.fromhex(golden)
    assert golden in (Path(__file__).parents[2] / "docs" / "file-format.md").read_text()


def test_nothing_that_is_not_a_file_is_read():
    for data in (b"", b"\x96", b"\x96vq", b"\x89PNG\r\n", b"PK\3\4", b"\x96vq\x01" + bytes(40)):
        with pytest.raises(NotVq):
            read_file(data)


@pytest.mark.parametrize(
    "kind", [b"\x96vq\x21", b"\x96vq\x14", b"\x96vq\x11" + MODEL + b"\x10", b"\x96vq\x10\x03"]
)
def test_newer_files_are_named(kind):
    with pytest.raises(NewerVersion):
        read_file(kind + bytes(20))


def test_a_bundle_is_not_a_file():
    with pytest.raises(WrongProfile):
        read_file(b"\x96vq\x12" + MODEL + bytes(30))


def test_the_model_is_checked():
    written = read_file(write_codes(np.ones((1, 4), int)))
    check_model(written.header.kind, MODEL, 0)
    with pytest.raises(WrongModel, match="0001020304050607"):
        check_model(written.header.kind, bytes(8), 0)
    check_model(
        read_file(write_codes(np.ones((1, 4), int), model_id=None)).header.kind, bytes(8), 0
    )


def test_every_changed_bit_of_a_header_is_found():
    data = write_codes(np.arange(9).reshape(1, 9))
    for bit in range(8 * 20):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(
            (
                NotVq,
                NewerVersion,
                CorruptHeader,
                OutOfBounds,
                WrongProfile,
                Truncated,
                CorruptSection,
            )
        ):
            read_codes(bytes(changed), 9)


def test_a_changed_model_id_is_a_corrupt_header():
    data = bytearray(write_codes(np.ones((1, 4), int)))
    data[5] ^= 1
    with pytest.raises(CorruptHeader):
        read_file(bytes(data))


@pytest.mark.parametrize(
    "numbers",
    [
        (0, 1, 1),
        (1, 0, 1),
        (1, 1, 0),
        (2**20 + 1, 1, 1),
        (1, 2**35, 1),
        (2**15, 2**15, 1),
        (1, 1, 65),
    ],
)
def test_sizes_have_bounds(numbers):
    with pytest.raises(OutOfBounds):
        read_file(header_of(numbers) + STAGE)
    with pytest.raises(OutOfBounds):
        write_file(FileHeader(numbers[:2], numbers[2], 0, MODEL), [Stage(0, b"")] * numbers[2])


def test_numbers_have_one_spelling():
    for number in (b"\x9c\x00", b"\xff" * 9 + b"\x01", b"\x9c\x80\x80\x80\x80\x00"):
        with pytest.raises(OutOfBounds):
            read_file(b"\x96vq\x10\0" + number + b"\x01\x01" + STAGE)


def test_a_section_that_claims_too_much_is_refused():
    with pytest.raises(OutOfBounds):
        read_file(file_of(STAGE + varint(2) + varint(2**30 + 1)))
    with pytest.raises(OutOfBounds):
        read_file(file_of(STAGE + section(8, b"") * 256))


def test_sections():
    """Ancillary ones are skipped wherever they stand, critical ones are not; nothing else follows
    the last stage.
    """
    read = read_file(
        file_of(section(6, b"?") + STAGE + section(200, b"?") + STAGE + section(6, b""), 2)
    )
    assert len(read.stages) == 2 and not read.truncated
    with pytest.raises(UnknownSection):
        read_file(file_of(section(3, b"?") + STAGE))
    with pytest.raises(UnknownSection):
        read_file(file_of(STAGE + section(3, b"?")))
    with pytest.raises(TrailingBytes):
        read_file(file_of(STAGE + STAGE))
    for zeros in (1, 2, 3):
        with pytest.raises(TrailingBytes):
            read_file(file_of(STAGE + bytes(zeros)))
    with pytest.raises(CorruptSection):
        read_file(file_of(section(1, b"abc")))


@pytest.mark.parametrize(
    "body", [b"\xff", b"../x", b"/x", b"", b"a\0b", b"C:x", b"a\\b", b"a//b", b"n" * 1025]
)
def test_names_that_are_not_safe_are_absent(body):
    assert read_file(file_of(section(2, body) + STAGE)).name is None
    try:
        name = body.decode()
    except UnicodeDecodeError:
        name = "\udcff"
    assert not usable_name(name)
    with pytest.raises(ValueError, match="name"):
        write_file(FileHeader((1, 1), 1, 0, None), [Stage(0, b"")], name)


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="stages"):
        write_file(FileHeader((1, 1), 2, 0, None), [Stage(0, b"")])
    with pytest.raises(ValueError, match="8 bytes"):
        write_file(FileHeader((1, 1), 1, 0, b"abc"), [Stage(0, b"")])
    for code in (-1, 2**32):
        with pytest.raises(ValueError, match="codes"):
            codes_crc(np.array([code]), 0)


def test_cut_off_anywhere_it_gives_the_stages_that_are_there():
    codes = np.random.default_rng(0).integers(0, 1024, (3, 16))
    data = write_codes(codes, "name.png")
    first_stage = sum(size for _, size in describe(data).parts[:3])
    lengths = set()
    for size in range(len(data)):
        try:
            found, truncated = read_codes(data[:size], 16)
        except (NotVq, Truncated):
            assert size < first_stage
            continue
        assert truncated and size >= first_stage and len(found) < 3
        assert (found == codes[: len(found)]).all()
        lengths.add(len(found))
    assert lengths == {1, 2}
    whole, truncated = read_codes(data, 16)
    assert (whole == codes).all() and not truncated


def test_cut_off_behind_the_last_stage_it_gives_all():
    found = read_file(file_of(STAGE + section(6, b"abc"))[:-1])
    assert len(found.stages) == 1 and found.truncated


def test_codes_are_checked_with_their_place():
    codes = np.arange(12).reshape(3, 4)
    crc = codes_crc(codes, 1)
    assert (
        crc
        == codes_crc(codes.astype(np.uint16), 1)
        == codes_crc(codes.T.copy().T, 1)
        == codes_crc(codes.ravel(), 1)
    )
    check_block(codes, 1, crc)
    for other, number in ((codes, 0), (codes + 1, 1), (codes.T, 1), (codes[:2], 1)):
        with pytest.raises(CorruptCodes, match=f"block {number + 1} is corrupt"):
            check_block(other, number, crc)


def test_the_sum_of_a_stage_is_that_of_all_numbers_up_to_it():
    """Against zlib, over the bytes that docs/file-format.md names, written down by hand."""
    first, second = "00000000 05000000 00010000", "01000000 07000000 ffffffff"
    expected = [zlib.crc32(bytes.fromhex(text)) for text in (first, first + second)]
    assert stage_crcs(np.array([[5, 256], [7, 2**32 - 1]])) == expected


@pytest.mark.parametrize("place", range(3))
def test_a_whole_stage_of_another_file_of_the_same_model_is_refused(place):
    codes, others = np.random.default_rng(0).integers(0, 1024, (2, 3, 16))
    stages, spliced = read_file(write_codes(codes)).stages, read_file(write_codes(others)).stages
    mixed = stages[:place] + spliced[place : place + 1] + stages[place + 1 :]
    found = decoded(mixed[place].payload, 16)
    assert (found == others[place]).all(), "the splice itself is not damaged"
    with pytest.raises(CorruptCodes, match=f"stage {max(place, 1) + 1} is corrupt"):
        read_codes(write_file(FileHeader((28, 28), 3, 0, MODEL), mixed), 16)


def test_stages_that_change_places_are_found():
    codes = np.random.default_rng(0).integers(0, 1024, (2, 16))
    stages = read_file(write_codes(codes)).stages
    with pytest.raises(CorruptCodes):
        read_codes(write_file(FileHeader((28, 28), 2, 0, MODEL), stages[::-1]), 16)


def test_a_description_accounts_for_every_byte():
    data = write_file(FileHeader((28, 28), 2, 0, MODEL), [Stage(0, b"abc"), Stage(1, b"")], "a.png")
    found = describe(data)
    assert found.profile == "file" and found.parts == (
        ("header", 20),
        ("name", 7),
        ("stage 1", 9),
        ("stage 2", 6),
    )
    assert (
        found.size == len(data)
        and found.bits_per_position == 8 * len(data) / 784
        and not found.truncated
    )
    cut = describe(io.BytesIO(data[:-1]))
    assert cut.truncated and cut.parts[-1] == ("cut off", 5) and cut.size == len(data) - 1
    assert describe(data + section(6, b"")).parts[-1] == ("section 6, not known", 2)


def test_every_error_is_one_sentence_for_users():
    for error in FormatError.__subclasses__():
        assert issubclass(error, VqkitError) and error.__doc__
