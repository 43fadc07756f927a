"""Images in archives and tables that are read while a model is trained."""

import io
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from vqkit.errors import VqkitError
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.signal import IMAGE
from vqkit.signals.image.source import open_images

COUNT = 1000


def png(number: int, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), number % 256, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, contents: list[bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for number, content in enumerate(contents):
            member = tarfile.TarInfo(f"{number:05}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    contents = [png(number) for number in range(COUNT)]
    write_tar(folder / "a.tar", contents[:600])
    write_tar(folder / "b.tar", contents[600:])
    return folder


def test_archives_are_a_set(shards):
    data = open_images(shards, DataConfig(num_workers=0), seed=0)

    assert (data.kind, len(data), data.in_memory) == ("shards", COUNT, False)
    assert data.shape.extent == (8, 8)
    read = data.read([0, 599, 600, 999]).values
    assert read[:, 0, 0, 0].tolist() == [0, 599 % 256, 600 % 256, 999 % 256]
    assert len(data.splits["test"]) and len(data.splits["validation"])
    assert "1000 images in 2 shards" in data.remarks()[0]


def test_settings_are_chosen_by_a_look_into_archives(shards):
    suggestion = IMAGE.suggest(shards, None)
    assert suggestion is not None
    assert "data.image_size=[8,8]" in [each for one in suggestion.choices for each in one.settings]


def test_batches_are_those_of_the_step(shards):
    config = DataConfig(num_workers=0)
    data = open_images(shards, config, seed=0)
    whole = [batch.ids for batch in islice(data.train(0, 32, 5), 60)]

    again = open_images(str(shards / "*.tar"), config, seed=0)
    resumed = next(again.train(41, 32, 5))
    assert np.array_equal(resumed.ids, whole[41])
    ranks = [next(again.train(7, 32, 5, rank, 4)).ids for rank in range(4)]
    assert np.array_equal(np.concatenate(ranks), whole[7])
    assert torch.equal(resumed.values[:, 0, 0, 0], torch.from_numpy(whole[41] % 256).byte())


def test_workers_read_the_same(shards):
    batches = [
        next(open_images(shards, DataConfig(num_workers=count), seed=0).train(3, 16, 0))
        for count in (0, 1)
    ]
    assert np.array_equal(batches[0].ids, batches[1].ids)
    assert torch.equal(batches[0].values, batches[1].values)


def test_threads_read_the_same_and_name_the_same(tmp_path, monkeypatch):
    """Of tables too, whose groups of rows are kept for all threads, here one at a time."""
    monkeypatch.setattr("vqkit.data.blocks.WINDOW_BYTES", 1)
    write_tar(tmp_path / "a.tar", [png(number) for number in range(300)])
    rows = [{"bytes": png(number), "path": None} for number in range(300, 700)]
    rows[20] = {"bytes": b"no image", "path": None}
    table = pyarrow.table({"image": rows})
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet", row_group_size=10)
    data = open_images(tmp_path, DataConfig(stream=True, num_workers=0), seed=0)

    try:
        torch.set_num_threads(4)
        found = data.read_good(np.arange(700))
    finally:
        torch.set_num_threads(1)

    good = np.delete(np.arange(700), 320)
    assert np.array_equal(found.ids, good)
    assert torch.equal(found.values[:, 0, 0, 0], torch.from_numpy(good % 256).byte())
    assert [one.name for one in found.bad] == ["b.parquet:20"]


def test_tables_stay_where_they_are(tmp_path):
    rows = [{"bytes": png(number), "path": None} for number in range(200)]
    rows[17] = {"bytes": b"no image", "path": None}
    table = pyarrow.table({"image": rows})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=10)

    data = open_images(tmp_path, DataConfig(stream=True, num_workers=0), seed=0)

    assert data.kind == "shards"
    seen = np.concatenate([batch.ids for batch in islice(data.train(0, 20, 0), 18)])
    assert 17 not in seen
    assert [one.name for one in data.bad] == ["a.parquet:17"]


def test_of_too_many_bad_images_nothing_is_opened(tmp_path):
    write_tar(tmp_path / "a.tar", [png(number) if number % 4 else b"no" for number in range(400)])
    with pytest.raises(VqkitError, match="cannot be used"):
        open_images(tmp_path, DataConfig(), seed=0)


def test_large_images_give_the_patch_in_their_middle(tmp_path):
    contents = []
    for number in range(300):
        pixels = np.zeros((32, 40, 3), np.uint8)
        pixels[12:20, 16:24] = number % 256
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    write_tar(tmp_path / "a.tar", contents)

    config = DataConfig(image_size=(8, 8), fit="patches", num_workers=0)
    data = open_images(tmp_path, config, seed=0)

    assert data.read([299]).values.unique().tolist() == [299 % 256]


def test_streaming_has_no_effect_on_other_sources(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    assert open_images(tmp_path, DataConfig(stream=True), seed=0).kind == "folder"
