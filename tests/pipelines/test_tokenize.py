"""Sources to caches: the same codes however a source is cut, packed and shared out, and nothing
twice, nothing in silence.
"""

import io
import os
import shutil
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import vqkit
from tests.signals.audio.conftest import RATE
from tests.signals.audio.test_causal import model_of
from vqkit.apps.evaluate import open_for
from vqkit.artifact import long_items
from vqkit.artifact.store import save_artifact
from vqkit.errors import VqkitError
from vqkit.pipelines import tokenize as pipeline
from vqkit.pipelines.tokenize import Ranks, tokenize
from vqkit.signals.audio.files import encode
from vqkit.tokens.cache import open_cache
from vqkit.tokens.dataset import verify

from ..untrained import PATCH, untrained


@pytest.fixture(scope="module")
def model():
    return untrained()


@pytest.fixture(scope="module")
def artifact(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact")
    save_artifact(model.artifact, folder)
    return folder


@pytest.fixture(scope="module")
def photos(photo, tmp_path_factory):
    """Parts of a photograph in two classes: files of three sizes, and two that are broken."""
    folder = tmp_path_factory.mktemp("photos")
    with Image.open(photo) as image:
        for number in range(70):
            path = folder / "ab"[number % 2] / f"{number:03}.png"
            path.parent.mkdir(exist_ok=True)
            side = 16 + 3 * (number % 3)
            left = 5 * number
            image.convert("RGB").crop((left, left // 2, left + side, left // 2 + 16)).save(path)
    (folder / "a" / "broken.png").write_bytes((folder / "a" / "000.png").read_bytes()[:90])
    (folder / "b" / "empty.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def by_folder(artifact, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("tokens") / "tokens"
    tokenize(artifact, str(photos), out, num_workers=1)
    return out


def samples(folder):
    """Codes, extent, class and texts of every sample, by the last part of its name."""
    found = {}
    for _, rows in open_cache(folder).rows():
        for row, name in enumerate(rows.ids):
            assert name not in found
            what = rows.codes[row], tuple(rows.extents[row]), rows.labels[row], rows.texts[row]
            found[name] = what
    return found


def contents(folder):
    """All files of a folder but the plan, which names the source."""
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    return {name: (folder / name).read_bytes() for name in names if name != "plan.json"}


def packed(photos, out, kind):
    """The photographs as shards of 30 in another form."""
    paths = sorted(photos.rglob("*.png"))
    out.mkdir()
    for first in range(0, len(paths), 30):
        some = paths[first : first + 30]
        if kind == "tar":
            with tarfile.open(out / f"{first}.tar", "w") as archive:
                for path in some:
                    archive.add(path, path.stem + ".png")
                    label = path.parent.name.encode()
                    member = tarfile.TarInfo(f"{path.stem}.cls")
                    member.size = len(label)
                    archive.addfile(member, io.BytesIO(label))
            continue
        columns = {
            "image": [{"bytes": path.read_bytes(), "path": path.name} for path in some],
            "label": [path.parent.name for path in some],
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), out / f"{first}.parquet")
    return out


def test_codes_are_those_of_every_item_alone_whatever_it_is_packed_in(
    model, artifact, photos, by_folder, tmp_path
):
    found = samples(by_folder)
    assert len(found) == 70
    for name, (codes, extent, label, _) in found.items():
        values = model.signal.read(photos / name, model.data, model.config.data)
        assert extent == tuple(values.shape[1:]) and label == name[0]
        assert (codes == model.tokenizer.encode_alone(values[None])[0].numpy()).all()
    names = {name[2:5]: name for name in found}
    paths = sorted(photos.rglob("*.png"))
    assert len(paths) == 72
    for kind in ("tar", "parquet"):
        source = packed(photos, tmp_path / kind, kind)
        out = tmp_path / f"tokens-{kind}"
        done = tokenize(artifact, str(source), out, num_workers=1)
        assert done.cache.num_skipped == 2 and done.num_shards == 3
        packed_too = samples(out)
        assert len(packed_too) == 70
        for name, (codes, extent, label, _) in packed_too.items():
            stem = name
            if kind == "parquet":
                first, row = name.split(".parquet:")
                stem = paths[int(first) + int(row)].stem
            wanted = found[names[stem]]
            assert (codes == wanted[0]).all() and (extent, label) == wanted[1:3]


def test_bad_files_are_named_with_the_reason_and_counted(by_folder):
    cache = open_cache(by_folder)
    skipped = dict(one for shard in cache.shards for one in shard.skipped)
    assert cache.num_skipped == 2 and cache.num_samples == 70
    assert set(skipped) == {"a/broken.png", "b/empty.png"}
    assert all(reason and "cannot read" not in reason for reason in skipped.values())


def test_two_processes_and_two_ranks_write_the_bytes_of_one(
    artifact, photos, by_folder, tmp_path, monkeypatch
):
    wanted = contents(by_folder)
    tokenize(artifact, str(photos), tmp_path / "two", num_workers=2)
    assert contents(tmp_path / "two") == wanted
    first = tokenize(artifact, str(photos), tmp_path / "ranks", num_workers=1, ranks=Ranks(0, 2))
    assert first.cache is None and (first.num_done, first.num_shards) == (2, 3)
    assert not (tmp_path / "ranks" / "manifest.json").exists()
    # Sums on two threads differ in the last bit; the caller's number of threads stays.
    torch.set_num_threads(2)
    try:
        last = tokenize(artifact, str(photos), tmp_path / "ranks", num_workers=1, ranks=Ranks(1, 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert last.cache.num_samples == 70 and contents(tmp_path / "ranks") == wanted
    with pytest.raises(VqkitError, match="rank 2 of 2 is none"):
        Ranks(2, 2)


def test_resume_does_what_is_missing_and_nothing_else(artifact, photos, by_folder, tmp_path):
    out = tmp_path / "tokens"
    shutil.copytree(by_folder, out)
    # A receipt that was not written any more, a shard that was cut off, and no manifest.
    (out / "manifest.json").unlink()
    (out / "shard-000000.json").unlink()
    with open(out / "shard-000002.parquet", "r+b") as file:
        file.truncate(100)
    before = (out / "shard-000001.parquet").stat().st_mtime_ns
    with pytest.raises(VqkitError, match="holds tokens already; add --resume"):
        tokenize(artifact, str(photos), out, num_workers=1)
    done = []
    tokenize(artifact, str(photos), out, num_workers=1, resume=True, progress=done.append)
    assert (out / "shard-000001.parquet").stat().st_mtime_ns == before
    assert contents(out) == contents(by_folder) and verify(out) == []
    assert done[0] > 1 / 3 and done[-1] == 1
    # A run that was killed before its plan was there has done nothing yet.
    (tmp_path / "begun").mkdir()
    shutil.copy(out / "codebooks.safetensors", tmp_path / "begun")
    tokenize(artifact, str(photos), tmp_path / "begun", num_workers=1)
    assert contents(tmp_path / "begun") == contents(by_folder)


def test_a_source_that_changed_is_refused_by_name(artifact, photos, by_folder, tmp_path):
    changes = {
        "a/000.png to a/062.png changed": lambda at: os.utime(at / "a" / "004.png"),
        "b/057.png to b/empty.png changed": lambda at: (at / "b" / "069.png").unlink(),
        "b/057.png to b/empty.png is gone": lambda at: [
            shutil.copy(at / "a/000.png", at / f"z{n}.png") for n in range(40)
        ],
        "a/064.png to b/055.png is gone": lambda at: shutil.rmtree(at / "b"),
    }
    for number, (words, change) in enumerate(changes.items()):
        source = tmp_path / f"source-{number}"
        shutil.copytree(photos, source)
        out = tmp_path / f"tokens-{number}"
        tokenize(artifact, str(source), out, num_workers=1, ranks=Ranks(0, 3))
        before = contents(out)
        change(source)
        with pytest.raises(VqkitError, match=words):
            tokenize(artifact, str(source), out, num_workers=1, resume=True)
        assert contents(out) == before


def test_items_can_be_brought_to_the_size_of_training(model, artifact, photos, tmp_path):
    out = tmp_path / "tokens"
    tokenize(artifact, str(photos), out, num_workers=1, fit=True)
    found = samples(out)
    assert len(found) == 70 and {codes.shape for codes, *_ in found.values()} == {(4, 8, 8)}
    # 22 pixels wide, 16 high: the middle is cut out.
    codes, extent, *_ = found["a/002.png"]
    with Image.open(photos / "a" / "002.png") as image:
        middle = torch.from_numpy(np.asarray(image)[:, 3:19].copy()).permute(2, 0, 1)
    assert extent == (16, 16) and image.size == (22, 16)
    assert (codes == model.tokenizer.encode_alone(middle[None])[0].numpy()).all()
    with pytest.raises(VqkitError, match="was begun with --fit"):
        tokenize(artifact, str(photos), out, num_workers=1, resume=True)


def test_another_model_is_refused_and_so_is_a_full_folder(artifact, photos, by_folder, tmp_path):
    other = untrained(network={**PATCH, "width": 8})
    save_artifact(other.artifact, tmp_path / "other")
    out = tmp_path / "tokens"
    shutil.copytree(by_folder, out)
    with pytest.raises(VqkitError, match="one cache holds tokens of one model"):
        tokenize(tmp_path / "other", str(photos), out, resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").touch()
    with pytest.raises(VqkitError, match="is not empty"):
        tokenize(artifact, str(photos), tmp_path / "full", resume=True)
    plain = untrained(quantizer={"kind": "none", "code_dim": 4})
    save_artifact(plain.artifact, tmp_path / "plain")
    with pytest.raises(VqkitError, match="no codes to tokenize with"):
        tokenize(tmp_path / "plain", str(photos), tmp_path / "none")


def test_a_source_without_a_good_sample_leaves_no_whole_cache(artifact, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.png").write_bytes(b"no image")
    with pytest.raises(VqkitError, match="no sample of .* can be used; 0.png: not an image"):
        tokenize(artifact, str(tmp_path / "bad"), tmp_path / "tokens")
    assert not (tmp_path / "tokens" / "manifest.json").exists()


def test_a_set_that_training_knows_has_its_classes_and_captions(
    model, artifact, emoji, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    # A folder of that name does not stand in the way.
    (tmp_path / "emoji").mkdir()
    done = tokenize(artifact, "emoji", tmp_path / "tokens", num_workers=1, ranks=Ranks(16, 17))
    assert (done.num_shards, done.num_done) == (17, 1)
    info = pipeline.model_info(model, artifact)
    (rows,) = pipeline.cache.read_shard(tmp_path / "tokens" / "shard-000016.parquet", info)
    first = 16 * 210
    assert rows.ids == list(emoji.names[first:])
    assert rows.labels == list(emoji.groups[first:])
    assert [texts["caption"] for texts in rows.texts] == list(emoji.captions[first:])
    values = open_for(model, "emoji", "all").read([first]).values
    assert (rows.codes[0] == model.tokenizer.encode_alone(values)[0].numpy()).all()


# --------------------------------------------------------------------------------------- recordings


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk")
    random = np.random.default_rng(0)
    with tarfile.open(folder / "0.tar", "w") as archive:
        for number, seconds in enumerate((0.5, 1.3, 0.77)):
            samples = random.integers(-9000, 9000, (1, int(RATE * seconds))).astype(np.int16)
            content = encode(samples, RATE)
            (folder / f"{number}.wav").write_bytes(content)
            member = tarfile.TarInfo(f"{number}.wav")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
            text = b"what is said"
            member = tarfile.TarInfo(f"{number}.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return folder


def test_recordings_of_any_length_have_the_codes_that_they_have_alone(talk, tmp_path, monkeypatch):
    model = model_of("lapped", False)
    save_artifact(model.artifact, tmp_path / "model")
    found = {}
    for length in (long_items.LONG, 3000):
        # Longer recordings go through in pieces.
        monkeypatch.setattr(long_items, "LONG", length)
        out = tmp_path / f"tokens-{length}"
        tokenize(tmp_path / "model", str(talk), out, num_workers=1)
        found[length] = samples(out)
    whole, in_pieces = found.values()
    assert set(whole) == {f"{number}{end}" for number in range(3) for end in ("", ".wav")}
    for name, (codes, extent, _, texts) in whole.items():
        values = model.signal.read(talk / f"{name[0]}.wav", model.data, model.config.data)
        assert extent == tuple(values.shape[1:])
        assert (codes == model.tokenizer.encode_alone(values[None])[0].numpy()).all()
        assert (codes == in_pieces[name][0]).all() and extent == in_pieces[name][1]
        assert texts == ({} if name.endswith("wav") else {"caption": "what is said"})


# ------------------------------------------------------------------------------------------- series


def test_series_in_files_and_archives_have_the_codes_that_they_have_alone(tmp_path):
    source = tmp_path / "series"
    source.mkdir()
    random = np.random.default_rng(0)
    with tarfile.open(source / "0.tar", "w") as archive:
        for number, length in enumerate((64, 100, 37, 64)):
            path = source / f"{number}.npy"
            np.save(path, random.normal(size=(length, 2)).astype(np.float32))
            archive.add(path, path.name)
    settings = ["train.steps=2", "coder.steps=1", "train.batch_size=2"]
    vqkit.train(source, tmp_path / "model", "signal", settings)
    model = vqkit.load(tmp_path / "model", device="cpu")
    tokenize(tmp_path / "model", str(source), tmp_path / "tokens", num_workers=1)
    found = samples(tmp_path / "tokens")
    assert set(found) == {f"{number}{end}" for number in range(4) for end in ("", ".npy")}
    for name, (codes, extent, *_) in found.items():
        values = model.signal.read(source / f"{name[0]}.npy", model.data, model.config.data)
        assert extent == tuple(values.shape[1:])
        assert (codes == model.tokenizer.encode_alone(values[None])[0].numpy()).all()
