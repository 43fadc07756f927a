"""Fashion-MNIST as quick forms see it."""

import gzip
import os

import numpy as np

from . import bench


def write_idx(path, values):
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes()))


def test_a_shortened_set_has_the_first_images_of_both_parts(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    images = {}
    labels = {}
    for part, count in (("train", 60), ("t10k", 20)):
        images[part] = random.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels[part] = random.integers(0, 10, count).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images[part])
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels[part])
    monkeypatch.setenv("VQKIT_DATA", str(tmp_path))
    sets = bench("image_sets")
    whole = sets.open_set("fashion-mnist")
    monkeypatch.setattr(sets, "SHORT", (40, 7))
    sets.shorten_fashion_mnist()
    assert os.environ["VQKIT_DATA"] != str(tmp_path)
    short = sets.open_set("fashion-mnist")
    assert len(short) == 47
    assert sorted(short.splits["test"]) == list(range(40, 47))
    expected = np.concatenate([images["train"][:40], images["t10k"][:7]])
    assert np.array_equal(sets.arrays(short, range(47))[..., 0], expected)
    assert short.groups == [*whole.groups[:40], *whole.groups[60:67]]
