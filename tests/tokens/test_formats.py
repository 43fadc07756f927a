"""Files of tokens beside the libraries that read them, and beside readers of a few lines."""

import io
import json
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from vqkit.errors import VqkitError
from vqkit.tokens import dataset
from vqkit.tokens.cache import ModelInfo, open_cache
from vqkit.tokens.dataset import materialize, open_dataset, verify
from vqkit.tokens.formats import FORMATS, columns, webdataset
from vqkit.tokens.sequences import ORDERS, Sequences
from vqkit.tokens.vocabulary import Vocabulary

from .caches import MODEL, sample, write_cache

SAMPLES = [sample(number) for number in range(7)]
# Shards of several sizes, one of them empty, and a grid of its own in the last one.
SHARDS = [SAMPLES[:3], [], SAMPLES[3:], [sample(7, grid=(4, 1)), sample(8, grid=(4, 1))]]
ALL = [one for shard in SHARDS for one in shard]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return open_cache(write_cache(tmp_path_factory.mktemp("cache") / "tokens", SHARDS))


def expected(order, base=0, model=MODEL, samples=ALL):
    """Tokens of every item, one codebook after the other in the vocabulary."""
    sequences = Sequences(Vocabulary(model.codebook_sizes, model.groups, base), order)
    return [sequences.tokens(one.codes[None])[0].tolist() for one in samples]


def large_model(size):
    """A vocabulary of `size` ids, three of which are special."""
    return ModelInfo("cd" * 32, "/nowhere", "image", (size - 3,), (0,))


def large(tmp_path, size):
    model = large_model(size)
    samples = [sample(number, model) for number in range(3)]
    samples[1].codes[0, 0, 0] = size - 4
    return open_cache(write_cache(tmp_path / f"cache-{size}", [samples], model)), samples


def megatron_items(folder):
    with warnings.catch_warnings():
        # It misses libraries for training on GPUs.
        warnings.simplefilter("ignore")
        from megatron.core.datasets.indexed_dataset import IndexedDataset

    found = IndexedDataset(str(folder / "tokens"), mmap=True)
    assert found.document_indices.tolist() == list(range(len(found) + 1))
    return [found[index].tolist() for index in range(len(found))]


def datatrove_items(folder, bytes_a_token):
    """By the library's reader in windows, cut at the ends that its index tells."""
    from datatrove.utils.dataset import DatatroveFileDataset

    path = folder / "00000_tokens.ds"
    ends = np.fromfile(f"{path}.index", np.uint64).astype(int).tolist()
    window = 5
    read = DatatroveFileDataset(str(path), window - 1, bytes_a_token)
    tokens = [int(token) for row in range(len(read)) for token in read[row]["input_ids"]]
    # What does not fill a window is left out by the library.
    assert ends[-1] - window < len(tokens) <= ends[-1]
    raw = np.fromfile(path, f"<u{bytes_a_token}").tolist()
    assert raw[: len(tokens)] == tokens and len(raw) == ends[-1]
    name, total, _ = Path(f"{path}.metadata").read_text().split("\n")
    assert name == f"vqkit|{bytes_a_token}" and int(total) == ends[-1]
    return [raw[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@pytest.mark.parametrize("order", ORDERS)
def test_megatron_core_reads_what_was_written(cache, tmp_path, order):
    materialize(cache, tmp_path / "ds", "megatron", order)
    assert megatron_items(tmp_path / "ds") == expected(order)


@pytest.mark.parametrize("order", ORDERS)
def test_datatrove_reads_what_was_written(cache, tmp_path, order):
    materialize(cache, tmp_path / "ds", "datatrove", order)
    assert datatrove_items(tmp_path / "ds", 2) == expected(order)


def test_types_change_where_the_readers_change_them(tmp_path):
    for size, dtype in ((65499, "uint16"), (65501, "int32"), (70000, "int32")):
        cache, samples = large(tmp_path, size)
        made = materialize(cache, tmp_path / f"megatron-{size}", "megatron")
        assert made.dtype.name == dtype
        wanted = expected("raster", model=cache.model, samples=samples)
        assert megatron_items(made.folder) == wanted
    for size, width in ((65536, 2), (65537, 4)):
        cache, samples = large(tmp_path / "other", size)
        made = materialize(cache, tmp_path / f"datatrove-{size}", "datatrove")
        wanted = expected("raster", model=cache.model, samples=samples)
        assert datatrove_items(made.folder, width) == wanted


def test_nanogpt_reads_16_bits_and_is_refused_more(tmp_path):
    cache, samples = large(tmp_path, 65536)
    made = materialize(cache, tmp_path / "ds", "bin16")
    # As train.py of nanoGPT reads it.
    tokens = np.memmap(made.folder / "train.bin", dtype=np.uint16, mode="r")
    wanted = expected("raster", model=cache.model, samples=samples)
    assert tokens.tolist() == [token for item in wanted for token in item]
    with pytest.raises(VqkitError, match="ids below 65536, and this vocabulary has 65537"):
        materialize(cache, tmp_path / "more", "bin16", base=1)
    assert not (tmp_path / "more").exists() and not list(tmp_path.glob(".*"))


def test_parquet_and_jsonl_hold_a_row_an_item_with_its_text(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "ITEMS_A_PART", 3)
    materialize(cache, tmp_path / "p", "parquet", text="caption")
    materialize(cache, tmp_path / "j", "jsonl", text="caption")
    rows = []
    for path in sorted((tmp_path / "p").glob("data-*.parquet")):
        rows += pyarrow.parquet.read_table(path).to_pylist()
    lines = []
    for path in sorted((tmp_path / "j").glob("data-*.jsonl")):
        lines += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == lines and len(list((tmp_path / "p").glob("data-*"))) == 3
    assert [row["tokens"] for row in rows] == expected("raster")
    for row, one in zip(rows, ALL, strict=True):
        assert (row["id"], row["label"]) == (one.id, one.label)
        assert (row["extent"], row["grid"]) == (list(one.extent), list(one.codes.shape[1:]))
        assert row["caption"] == one.texts.get("caption")


def test_archives_call_members_by_number_whatever_ids_are(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "ITEMS_A_PART", 4)
    materialize(cache, tmp_path / "ds", "webdataset", text="caption")
    found = {}
    for path in sorted((tmp_path / "ds").glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                found[member.name] = archive.extractfile(member).read()
    wanted = expected("raster")
    for number, one in enumerate(ALL):
        tokens = np.load(io.BytesIO(found.pop(f"{number:09d}.tokens.npy")))
        assert tokens.tolist() == wanted[number] and tokens.dtype == np.uint16
        assert json.loads(found.pop(f"{number:09d}.json"))["id"] == one.id
        text = found.pop(f"{number:09d}.txt", b"").decode()
        assert text == one.texts.get("caption", "")
    assert not found


@pytest.mark.parametrize("form", FORMATS)
def test_items_of_several_grids_are_told_apart_by_their_tokens(cache, tmp_path, form):
    materialize(cache, tmp_path / "ds", form, row_ends=True)
    made = open_dataset(tmp_path / "ds")
    assert made.sequences.vocabulary.special["row_end"] == made.sequences.vocabulary.size - 1
    for number, one in enumerate(ALL):
        item = made.item(number)
        assert (made.codes(item.tokens) == one.codes).all()
    assert len({one.codes.shape for one in ALL}) > 1
    assert verify(tmp_path / "ds") == []


def test_row_ends_are_refused_where_there_are_none(cache, tmp_path):
    with pytest.raises(VqkitError, match="raster alone, not of delay"):
        materialize(cache, tmp_path / "ds", "jsonl", "delay", row_ends=True)
    line = write_cache(tmp_path / "line", [[sample(1, grid=(5,))]])
    with pytest.raises(VqkitError, match="along one dimension"):
        materialize(open_cache(line), tmp_path / "ds", "jsonl", row_ends=True)
    assert not (tmp_path / "ds").exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("order", ORDERS)
def test_every_item_is_found_again(cache, tmp_path, form, order, monkeypatch):
    monkeypatch.setattr(columns, "ITEMS_A_PART", 4)
    monkeypatch.setattr(webdataset, "ITEMS_A_PART", 4)
    monkeypatch.setattr(dataset, "_ITEMS_TOGETHER", 4)
    materialize(cache, tmp_path / "ds", form, order, base=1000)
    made = open_dataset(tmp_path / "ds")
    assert made.commonest_grid == (2, 3)
    for number, one in enumerate(ALL):
        item = made.item(number)
        assert (item.id, item.label, list(item.extent)) == (one.id, one.label, list(one.extent))
        assert item.tokens.tolist() == expected(order, 1000)[number]
        assert (made.codes(item.tokens, item.grid) == one.codes).all()
    for number in (-1, len(ALL)):
        with pytest.raises(VqkitError, match="numbered from 0 to 8"):
            made.item(number)
    assert verify(tmp_path / "ds") == []


@pytest.mark.parametrize("form", FORMATS)
def test_every_changed_byte_of_a_set_is_noticed(cache, tmp_path, form):
    made = materialize(cache, tmp_path / "ds", form)
    names = [file["name"] for file in made.manifest["files"]]
    assert {path.name for path in made.folder.iterdir()} == {*names, "manifest.json"}
    for name in names:
        path = made.folder / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert any(name in sentence for sentence in verify(made.folder))
        path.write_bytes(content)
    assert verify(made.folder) == []


@pytest.mark.parametrize("form", FORMATS)
def test_files_that_are_cut_off_are_refused_by_name(cache, tmp_path, form):
    made = materialize(cache, tmp_path / "ds", form)
    for file in made.manifest["files"]:
        path = made.folder / file["name"]
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 3])
        try:
            made.item(len(ALL) - 1)
        except VqkitError as error:
            assert str(path) in str(error)
        path.write_bytes(content)


def test_a_text_that_is_not_there_or_that_a_form_cannot_hold_is_said(cache, tmp_path):
    with pytest.raises(VqkitError, match="'title'; of texts there are: caption, other"):
        materialize(cache, tmp_path / "ds", "parquet", text="title")
    with pytest.raises(VqkitError, match="tokens alone"):
        materialize(cache, tmp_path / "ds", "megatron", text="caption")
    with pytest.raises(VqkitError, match="every row has"):
        materialize(cache, tmp_path / "ds", "jsonl", text="tokens")
    assert not list(tmp_path.iterdir())


def test_models_are_never_mixed(tmp_path):
    other = ModelInfo("ef" * 32, "/nowhere", "image", MODEL.codebook_sizes, MODEL.groups)
    one = write_cache(tmp_path / "one", [SAMPLES])
    two = write_cache(tmp_path / "two", [SAMPLES], other)
    name = "shard-000000.parquet"
    content = (one / name).read_bytes()
    # The file alone, and then with its receipt.
    (one / name).write_bytes((two / name).read_bytes())
    with pytest.raises(VqkitError, match="tokens of another model than ababab"):
        materialize(open_cache(one), tmp_path / "ds", "jsonl")
    assert any(name in sentence for sentence in verify(one))
    (one / "shard-000000.json").write_bytes((two / "shard-000000.json").read_bytes())
    with pytest.raises(
        VqkitError, match="mixes models: shard-000000.parquet has tokens of model ef"
    ):
        open_cache(one)
    (one / name).write_bytes(content)


def test_a_cache_that_is_not_whole_is_not_read(tmp_path):
    folder = write_cache(tmp_path / "cache", SHARDS)
    (folder / "shard-000002.json").unlink()
    with pytest.raises(VqkitError, match="shard-000002.parquet is missing or cut off"):
        open_cache(folder)
    folder = write_cache(tmp_path / "second", SHARDS)
    (folder / "plan.json").write_text("{}")
    (folder / "manifest.json").unlink()
    with pytest.raises(VqkitError, match="not whole yet"):
        open_cache(folder)
    with pytest.raises(VqkitError, match="holds no tokens"):
        open_cache(tmp_path)


def test_codes_that_the_model_has_not_are_refused(tmp_path):
    wrong = sample(0)
    wrong.codes[0, 0, 0] = 10
    cache = open_cache(write_cache(tmp_path / "cache", [[wrong]]))
    with pytest.raises(VqkitError, match="codes that the model has not"):
        materialize(cache, tmp_path / "ds", "jsonl")
    assert not (tmp_path / "ds").exists()


MANIFESTS = [
    {"form": "pickle"},
    {"order": "spiral"},
    {"dtype": "int64"},
    {"num_items": "many"},
    {"vocabulary": {}},
    {"model": {"codes_id": 1}},
    {"files": [{"name": "../../etc/passwd", "items": 3}]},
    {"format": "something"},
    {"version": 99},
]


@pytest.mark.parametrize("change", MANIFESTS, ids=lambda change: next(iter(change)))
def test_manifests_of_strangers_are_read_within_bounds(cache, tmp_path, change):
    made = materialize(cache, tmp_path / "ds", "parquet")
    path = made.folder / "manifest.json"
    path.write_text(json.dumps({**made.manifest, **change}))
    with pytest.raises(VqkitError, match="ds"):
        open_dataset(made.folder)


@pytest.mark.parametrize("column", ["id", "grid", "extent", "codes", "texts"])
def test_caches_of_strangers_are_read_within_bounds(tmp_path, column):
    """A sample without one of its parts, and one whose codes do not fill its grid."""
    for value in (None, [], [None, 2], [1 << 40, 1 << 40]):
        folder = write_cache(tmp_path / f"{column}-{value}", [SAMPLES])
        path = folder / "shard-000000.parquet"
        table = pyarrow.parquet.read_table(path)
        rows = table.to_pylist()
        if column in ("id", "texts"):
            value = None
        if column == "codes" and value and value[-1] != 2:
            value = [1]
        if column == "extent" and value and value[-1] != 2:
            value = [0, 5]
        rows[2][column] = value
        changed = pyarrow.Table.from_pylist(rows, table.schema)
        pyarrow.parquet.write_table(changed, path)
        receipt = json.loads((folder / "shard-000000.json").read_text())
        receipt["num_bytes"] = path.stat().st_size
        (folder / "shard-000000.json").write_text(json.dumps(receipt))
        if column in ("id", "texts"):
            assert open_cache(folder).num_samples == len(SAMPLES)
            continue
        with pytest.raises(VqkitError, match="shard-000000.parquet"):
            materialize(open_cache(folder), tmp_path / "ds", "jsonl")
        assert not (tmp_path / "ds").exists()
