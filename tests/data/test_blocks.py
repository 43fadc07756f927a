"""Samples of shards where they lie: the same bytes as the libraries of the formats read, whole
blocks held out, and an order that a step alone decides.
"""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from vqkit.data.blocks import TOGETHER, WINDOW_BLOCKS, BlockOrder, find_places, split_blocks
from vqkit.data.shards import find_shards
from vqkit.errors import VqkitError


def is_sample(path: Path) -> bool:
    return path.suffix == ".bin"


def write_tar(path: Path, contents: list[bytes], suffix: str = "bin", mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for number, content in enumerate(contents):
            for end, data in ((suffix, content), ("txt", b"words")):
                member = tarfile.TarInfo(f"folder/{number:05}.{end}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def write_table(path: Path, contents: list[bytes | None], rows: int, nested: bool) -> None:
    column = [{"bytes": one, "path": "x"} for one in contents] if nested else contents
    table = pyarrow.table({"caption": ["a"] * len(contents), "image": column})
    pyarrow.parquet.write_table(table, path, row_group_size=rows)


def numbers(count: int, first: int = 0) -> list[bytes]:
    """Contents of different lengths that tell their number."""
    return [str(number).encode() * (1 + number % 5) for number in range(first, first + count)]


def places(folder: Path):
    return find_places(find_shards(str(folder), is_sample), is_sample)


def test_bytes_are_those_of_the_libraries(tmp_path):
    write_tar(tmp_path / "a.tar", numbers(150))
    write_table(tmp_path / "b.parquet", numbers(90, 150), 40, nested=True)
    write_table(tmp_path / "c.parquet", numbers(10, 240), 7, nested=False)

    store, bad = places(tmp_path)

    assert not bad
    assert [store.raw(index) for index in range(len(store))] == numbers(250)
    assert store.names[149:151] == ["a.tar:149", "b.parquet:0"]
    # 150 members in runs, then groups of 40, 40, 10, 7 and 3 rows.
    sizes = [TOGETHER, TOGETHER, 150 - 2 * TOGETHER, 40, 40, 10, 7, 3]
    assert np.diff(store.blocks).tolist() == sizes
    first = sum(len(one) for one in numbers(TOGETHER))
    assert store.sizes[0] == first


def test_a_worker_gets_places_and_no_rows(tmp_path):
    write_table(tmp_path / "a.parquet", [bytes(100_000)] * 4, 2, nested=False)
    store, _ = places(tmp_path)
    store.raw(0)

    sent = pickle.dumps(store)

    assert len(sent) < 10_000
    assert pickle.loads(sent).raw(3) == bytes(100_000)


def test_rows_in_memory_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("vqkit.data.blocks.WINDOW_BYTES", 250_000)
    write_table(tmp_path / "a.parquet", [bytes([n]) * 100_000 for n in range(8)], 1, nested=False)
    store, _ = places(tmp_path)

    for index in range(8):
        assert store.raw(index)[0] == index

    assert len(store._groups) == 2


def test_what_is_broken_is_named_and_the_rest_is_read(tmp_path):
    write_tar(tmp_path / "a.tar", numbers(20))
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: 11 * 4 * 512 + 700])
    (tmp_path / "b.parquet").write_bytes(b"no table")
    write_table(tmp_path / "c.parquet", [b"one", None], 10, nested=True)

    store, bad = places(tmp_path)

    # Two blocks of a member each for the sample and its words: the twelfth is torn.
    assert store.raw(0) == b"0"
    assert {one.name for one in bad} == {"a.tar", "b.parquet"}
    assert store.raw(len(store) - 2) == b"one"
    with pytest.raises(ValueError, match="holds no bytes"):
        store.raw(len(store) - 1)


def test_names_of_any_length_and_what_lies_between_do_no_harm(tmp_path):
    # Long names have records of their own before the header; so do those that are not ASCII.
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for number, content in enumerate(numbers(12)):
            for suffix in ("bin", "txt"):
                member = tarfile.TarInfo(f"{'ä' * 90 * (number % 3)}/{number}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    store, bad = places(tmp_path)

    assert not bad
    assert [store.raw(index) for index in range(len(store))] == numbers(12)


def test_places_and_sizes_that_cannot_be_kept_are_named(tmp_path, monkeypatch):
    # A size beside the header, as for members of more than 8 GB; and places beyond what 32 bits of
    # records hold, here beyond six of them.
    monkeypatch.setattr("vqkit.data.blocks.MOST_BYTES", 6 * 512)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"{number}.bin")
            member.size = 1
            member.pax_headers = {"size": "1"} if number == 0 else {}
            archive.addfile(member, io.BytesIO(b"x"))

    store, bad = places(tmp_path)

    assert [one.name for one in bad] == ["0.bin", "2.bin"]
    assert len(store) == 1 and store.raw(0) == b"x"


def test_an_archive_that_was_replaced_gives_no_wrong_samples(tmp_path):
    write_tar(tmp_path / "a.tar", numbers(20))
    store, _ = places(tmp_path)
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[4 * 512 : 8 * 512] = bytes(4 * 512)

    (tmp_path / "a.tar").write_bytes(content)

    assert store.raw(0) == numbers(20)[0]
    with pytest.raises(ValueError, match="changed"):
        store.raw(1)


def test_compressed_archives_are_told_to_be_unpacked(tmp_path):
    write_tar(tmp_path / "a.tar.gz", numbers(3), mode="w:gz")
    with pytest.raises(VqkitError, match="unpack it"):
        places(tmp_path)


def test_archives_without_a_sample_say_so(tmp_path):
    write_tar(tmp_path / "a.tar", numbers(3), suffix="other")
    with pytest.raises(VqkitError, match="none of 1 shards holds a sample"):
        places(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        write_table(folder / f"{number}.parquet", numbers(700, 700 * number), 7, nested=False)
    return places(folder)[0]


def test_whole_blocks_are_held_out(store):
    splits = split_blocks(store, 0, (0.05, 0.1))

    together = np.sort(np.concatenate(list(splits.values())))
    assert np.array_equal(together, np.arange(2100))
    blocks = {name: set((ids // 7).tolist()) for name, ids in splits.items()}
    assert not blocks["train"] & (blocks["test"] | blocks["validation"])
    assert not blocks["test"] & blocks["validation"]
    assert (len(blocks["validation"]), len(blocks["test"])) == (15, 30)
    other = split_blocks(store, 1, (0.05, 0.1))
    assert not np.array_equal(np.sort(other["test"]), np.sort(splits["test"]))


def test_too_few_blocks_are_refused(tmp_path):
    write_table(tmp_path / "a.parquet", numbers(20), 10, nested=False)
    with pytest.raises(VqkitError, match="too few"):
        split_blocks(places(tmp_path)[0], 0, (0.05, 0.05))


def test_a_step_alone_decides_the_order(store):
    ids = split_blocks(store, 0, (0.05, 0.1))["train"]
    order = BlockOrder(ids, store, 3)
    seen = np.concatenate([order.positions(at, at + 32) for at in range(0, 3 * len(ids), 32)])

    for epoch in range(3):
        part = seen[epoch * len(ids) : (epoch + 1) * len(ids)]
        assert np.array_equal(np.sort(part), np.sort(ids))
    assert not np.array_equal(seen[: len(ids)], seen[len(ids) : 2 * len(ids)])
    # Whoever resumes there, or has a part of a batch, finds the same samples.
    for start, stop in ((1, 2), (1783, 1797), (5000, 5041), (0, 4000)):
        assert np.array_equal(BlockOrder(ids, store, 3).positions(start, stop), seen[start:stop])
    assert not np.array_equal(BlockOrder(ids, store, 4).positions(0, 32), seen[:32])


def test_few_blocks_are_read_at_a_time(store):
    ids = split_blocks(store, 0, (0.05, 0.1))["train"]
    window = 7 * WINDOW_BLOCKS
    order = BlockOrder(ids, store, 0)

    first = order.positions(0, window)

    assert len(set((first // 7).tolist())) == WINDOW_BLOCKS
    # Mixed: a batch has samples from most of them.
    assert len(set((first[:64] // 7).tolist())) > WINDOW_BLOCKS / 3
    # And their order is not that in which they lie.
    assert abs(np.corrcoef(first, np.arange(window))[0, 1]) < 0.3


def test_bytes_bound_a_window(store, monkeypatch):
    ids = split_blocks(store, 0, (0.05, 0.1))["train"]
    bound = int(10 * store.sizes.mean())
    monkeypatch.setattr("vqkit.data.blocks.WINDOW_BYTES", bound)

    # A window has at least seven blocks here, as the largest is not much larger than the mean.
    first = set((BlockOrder(ids, store, 0).positions(0, 49) // 7).tolist())

    assert store.sizes[list(first)].sum() <= bound
    assert len(first) > 5
