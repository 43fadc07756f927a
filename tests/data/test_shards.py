"""Sources of many samples: what is found in them, and what becomes of damaged ones."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from vqkit.data import shards
from vqkit.data.shards import Entry, Skipped, find_shards, read_shard
from vqkit.errors import VqkitError


def is_item(path: Path) -> bool:
    return path.suffix == ".png"


def found_in(source):
    """Everything that a source gives, entries by their ids, and what was skipped."""
    entries = {}
    skipped = []
    for shard in find_shards(str(source), is_item):
        for found in read_shard(shard, is_item):
            if isinstance(found, Skipped):
                skipped.append(tuple(found))
            else:
                assert found.id not in entries and 0 <= found.done <= 1
                entries[found.id] = found
    return entries, skipped


def write_tar(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


SAMPLES = [
    ("./a/0.png", b"zero"),
    ("./a/0.cls", b"7\n"),
    ("a/1.txt", b"a  dog\n"),
    ("a/1.left.PNG", b"one"),
    ("a/1.seg", b"ignored"),
    ("../../2.png", b"two"),
    ("../../2.json", json.dumps({"label": "cat", "caption": "c", "w": 3, "x": [1]}).encode()),
]


def test_members_of_one_name_are_a_sample(tmp_path):
    path = write_tar(tmp_path / "0.tar", SAMPLES)
    entries, skipped = found_in(path)
    assert not skipped
    assert list(entries) == ["a/0", "a/1", "../../2"], "names stay as they are: no paths are made"
    assert [one.content for one in entries.values()] == [b"zero", b"one", b"two"]
    assert [one.label for one in entries.values()] == ["7", None, "cat"]
    assert entries["a/1"].texts == {"caption": "a dog"}
    assert entries["../../2"].texts == {"caption": "c", "w": "3"}


@pytest.mark.parametrize("suffix, mode", [("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar", "w")])
def test_packed_archives_give_the_same(tmp_path, suffix, mode):
    path = write_tar(tmp_path / f"0.{suffix}", SAMPLES, mode)
    assert [one.content for one in found_in(path)[0].values()] == [b"zero", b"one", b"two"]


def test_an_archive_that_breaks_off_gives_what_is_before_wherever_that_is(tmp_path):
    """Cut anywhere: samples whose file is there in full are all given, nothing else is, and that
    the rest is missing is said.
    """
    whole = write_tar(tmp_path / "whole.tar", SAMPLES)
    content = whole.read_bytes()
    with tarfile.open(whole) as archive:
        members = {member.name: member.offset_data + member.size for member in archive}
    ends = [members["./a/0.png"], members["a/1.left.PNG"], members["../../2.png"]]
    # The last member fills a block, and the first block of zeros behind it says that this is all.
    complete = -(-max(members.values()) // 512) * 512 + 512
    path = tmp_path / "0.tar"
    for cut in range(0, len(content), 128):
        path.write_bytes(content[:cut])
        entries, skipped = found_in(path)
        contents = [one.content for one in entries.values()]
        assert contents == [b"zero", b"one", b"two"][: sum(end <= cut for end in ends)], cut
        is_said = any("damaged from here on" in reason for _, reason in skipped)
        assert is_said == (cut < complete), cut


def test_a_damaged_header_in_the_middle_is_named_and_nothing_is_lost_in_silence(tmp_path):
    path = write_tar(tmp_path / "0.tar", SAMPLES)
    content = bytearray(path.read_bytes())
    # The header of the third member: the checksum no longer fits.
    content[2 * 1024 + 3] ^= 0xFF
    path.write_bytes(content)
    entries, skipped = found_in(path)
    assert list(entries) == ["a/0"]
    assert skipped == [("0.tar", "damaged from here on: no header of a member at byte 2048")]


def test_what_is_no_archive_or_has_no_samples_is_named(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"nonsense" * 100)
    write_tar(tmp_path / "1.tar", [("README.md", b"hello"), ("x.txt", b"a text alone")])
    (tmp_path / "2.tar.gz").write_bytes(gzip.compress(b"x" * 3000)[:-20])
    entries, skipped = found_in(tmp_path)
    assert not entries
    assert [name for name, _ in skipped] == ["0.tar", "README", "x", "2.tar.gz"]
    assert skipped[1][1] == "no member is a sample by its suffix"


def test_a_member_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_CONTENT", 1 << 20)
    content = b"\0" * ((1 << 20) + 1)
    path = write_tar(tmp_path / "0.tar", [("a.png", content), ("b.png", b"small")])
    entries, skipped = found_in(path)
    assert list(entries) == ["b"] and skipped == [("a", "it holds more than 1 MiB")]


# ------------------------------------------------------------------------------------------- tables


def test_tables_give_bytes_classes_by_name_and_texts(tmp_path):
    rows = {
        "id": [1, 2, 3],
        "image": [{"bytes": b"a", "path": "x"}, {"bytes": None, "path": "y"}, {"bytes": b"c"}],
        "label": [1, 0, None],
        "caption": ["one", "two", "three"],
        "other": [b"", b"", b""],
    }
    names = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    table = pyarrow.table(rows).replace_schema_metadata({"huggingface": json.dumps(names)})
    pyarrow.parquet.write_table(table, tmp_path / "0.parquet", row_group_size=2)
    for kind, opened in (("stream", pyarrow.ipc.new_stream), ("file", pyarrow.ipc.new_file)):
        folder = tmp_path / kind
        folder.mkdir()
        with opened(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
        # What Hugging Face datasets computed from it.
        (folder / "cache-123.arrow").write_bytes(b"")
    for source, name in (
        (tmp_path / "0.parquet", "0.parquet"),
        (tmp_path / "stream", "data-00000-of-00001.arrow"),
        (tmp_path / "file", "data-00000-of-00001.arrow"),
    ):
        entries, skipped = found_in(source)
        assert skipped == [(f"{name}:1", "the row holds no bytes")]
        assert {key: one.content for key, one in entries.items()} == {
            f"{name}:0": b"a",
            f"{name}:2": b"c",
        }
        assert [one.label for one in entries.values()] == ["dog", None]
        assert [one.texts["caption"] for one in entries.values()] == ["one", "three"]


def test_damaged_tables_are_named_and_those_without_samples_refused(tmp_path):
    table = pyarrow.table({"image": [bytes(100)] * 500})
    path = tmp_path / "0.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=100, compression="none")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-5])
    entries, skipped = found_in(path)
    assert not entries and skipped[0][0] == "0.parquet:0"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), path)
    with pytest.raises(VqkitError, match="no column of samples"):
        found_in(path)


# -------------------------------------------------------------------------------------------- files


def test_folders_lists_and_patterns_give_the_same_files(tmp_path):
    root = tmp_path / "photos"
    for name in ("a/1.png", "a/2.png", "b/3.png", ".hidden/4.png", "b/notes.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "a" / "1.txt").write_text(" one\n line ")
    names = ["a/1.png", "a/2.png", "b/3.png"]
    (root / "list.lst").write_text("\n".join(names) + "\n")
    for source in (root, root / "list.lst", f"{root}/*/*.png"):
        entries, skipped = found_in(source)
        assert list(entries) == names and not skipped
        assert [one.label for one in entries.values()] == ["a", "a", "b"]
        assert entries["a/1.png"].texts == {"caption": "one line"}
        assert [Path(one.content).read_text() for one in entries.values()] == names
    (root / "list.lst").write_text("a/1.png\ngone.png\n")
    with pytest.raises(VqkitError, match="gone.png: No such file"):
        found_in(root / "list.lst")


def test_shards_depend_on_the_files_alone_and_tell_when_one_changes(tmp_path):
    for number in range(70):
        (tmp_path / f"{number:03}.png").write_bytes(b"x")
    before = find_shards(str(tmp_path), is_item)
    assert [len(shard.paths) for shard in before] == [32, 32, 6]
    assert before == find_shards(str(tmp_path), is_item)
    os.utime(tmp_path / "040.png", ns=(1, 1))
    after = find_shards(str(tmp_path), is_item)
    changed = [one.name for one, other in zip(before, after, strict=True) if one != other]
    assert changed == ["032.png to 063.png"]


def test_archives_and_files_of_one_folder_are_both_found(tmp_path):
    write_tar(tmp_path / "sub" / "0.tar", SAMPLES)
    (tmp_path / "z.png").write_bytes(b"z")
    entries, _ = found_in(tmp_path)
    assert list(entries) == ["a/0", "a/1", "../../2", "z.png"]
    assert isinstance(entries["z.png"], Entry)
