from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from vqkit.errors import VqkitError
from vqkit.signals.image import bundled
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import open_images


@pytest.fixture(scope="module")
def digits() -> np.ndarray:  # (1797, 8, 8)
    return (load_digits().images * 15).astype(np.uint8)


def idx(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    shape = shape or array.shape
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + array.tobytes()


def write_mnist(folder: Path, digits: np.ndarray, suffix: str = ".gz") -> None:
    pack = gzip.compress if suffix else bytes
    labels = np.arange(len(digits), dtype=np.uint8) % 10
    for part, chosen in (("train", slice(0, 200)), ("t10k", slice(200, 260))):
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(digits[chosen])))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels[chosen])))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder_keeps_the_ready_made_test_set(
    digits: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    write_mnist(tmp_path, digits, suffix)
    data = open_images(tmp_path, DataConfig(validation=0.1), seed=0)
    assert data.kind == "idx" and data.shape.channels == 1 and len(data) == 260
    assert data.splits["test"].tolist() == list(range(200, 260))
    assert len(data.splits["validation"]) == 20 and data.splits["validation"].max() < 200
    assert sorted([*data.splits["train"], *data.splits["validation"]]) == list(range(200))
    assert np.array_equal(data.read(range(260)).values[:, 0].numpy(), digits[:260])
    assert data.groups is not None and data.groups[201] == "1"


def test_one_idx_file(digits: np.ndarray, tmp_path: Path) -> None:
    for name, content in (
        ("a.idx", idx(digits[:50])),
        ("b-idx3-ubyte.gz", gzip.compress(idx(digits[:50]))),
    ):
        (tmp_path / name).write_bytes(content)
        assert len(open_images(tmp_path / name, DataConfig(), seed=0)) == 50


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("shape", "count"),
    [((50, 8, 8), 49), ((49, 8, 8), 50), ((2**31, 2**20, 2**10), 50), ((4000, 64, 64), 50)],
)
def test_lying_idx_headers(
    digits: np.ndarray, tmp_path: Path, shape: tuple[int, ...], count: int, suffix: str
) -> None:
    content = idx(digits[:count], shape)
    path = tmp_path / f"x-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(VqkitError, match="header promises"):
        open_images(path, DataConfig(), seed=0)


def test_broken_idx(digits: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx(digits[:50]))[:-100])
    with pytest.raises(VqkitError, match="cannot read"):
        open_images(path, DataConfig(), seed=0)
    path.write_bytes(gzip.compress(b"\0\0\x0d\x03" + bytes(100)))
    with pytest.raises(VqkitError, match="not an IDX file of uint8"):
        open_images(path, DataConfig(), seed=0)


def test_fashion_mnist(digits: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fashion-mnist").mkdir()
    write_mnist(tmp_path / "fashion-mnist", digits)
    monkeypatch.setenv("VQKIT_DATA", str(tmp_path))
    data = open_images("fashion-mnist", DataConfig(), seed=0)
    assert (
        len(data.splits["test"]) == 60
        and data.groups is not None
        and data.groups[0] == "T-shirt/top"
    )


def test_fashion_mnist_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VQKIT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        bundled, "_DEBIAN", tmp_path / "nowhere"
    )  # as on a machine without the package
    with pytest.raises(VqkitError, match="apt-get install dataset-fashion-mnist.*" + str(tmp_path)):
        open_images("fashion-mnist", DataConfig(), seed=0)


def save(path: Path, array: np.ndarray) -> Path:
    np.savez_compressed(
        path, images=array, labels=np.zeros(3)
    ) if path.suffix == ".npz" else np.save(path, array)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "grey"])
def test_npy_and_npz(pictures: np.ndarray, tmp_path: Path, kind: str, suffix: str) -> None:
    array = pictures[:40, :, :, 0] if kind == "grey" else pictures[:40]
    stored = (array / 255).astype(kind) if kind.startswith("float") else array
    data = open_images(save(tmp_path / f"x{suffix}", stored), DataConfig(), seed=0)
    read = data.read(range(40)).values.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(read, array[..., None] if kind == "grey" else array)
    assert data.kind == suffix[1:] and data.names[5] == f"x{suffix}:5"


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((5, 8, 8), np.nan), "NaN"),
        (np.full((5, 8, 8), -np.inf, dtype=np.float16), "infinite"),
        (np.zeros((5, 8, 8), dtype=np.complex64), "complex64"),
        (np.zeros((5, 8, 8), dtype="S3"), "whole numbers or floats"),
        (np.zeros((5, 4)), r"\(N, H, W\)"),
        (np.zeros((5, 7, 8, 7), dtype=np.uint8), "1 to 4 channels"),
        (np.zeros((0, 4, 4), dtype=np.uint8), r"\(N, H, W\)"),
        (np.array(3.0), r"\(N, H, W\)"),
        (np.array([{"a": 1}], dtype=object), "Python objects"),
    ],
)
def test_other_arrays_are_refused(
    tmp_path: Path, array: np.ndarray, words: str, suffix: str
) -> None:
    with pytest.raises(VqkitError, match=words):
        open_images(save(tmp_path / f"x{suffix}", array), DataConfig(), seed=0)


def lying_npy(pictures: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 4096, 4096)}
    )
    return file.getvalue() + pictures[:5].tobytes()


def test_lying_npy_headers(pictures: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(lying_npy(pictures))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", lying_npy(pictures))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(VqkitError, match="header promises the shape"):
            open_images(tmp_path / name, DataConfig(), seed=0)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x93NUMPY\x01\0\x10\0{'descr': nonsense", b"PK\x03\x04" + bytes(50), b"\x93NUMPY"],
)
def test_broken_npy(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VqkitError, match="cannot read"):
        open_images(tmp_path / name, DataConfig(), seed=0)


def test_npz_with_unclear_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", first=np.zeros(3), second=np.zeros(3))
    with pytest.raises(VqkitError, match="first, second"):
        open_images(tmp_path / "x.npz", DataConfig(), seed=0)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_larger_than_memory_are_mapped(
    pictures: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    path = save(tmp_path / f"x{suffix}", pictures)
    streamed = open_images(path, DataConfig(max_memory_mb=1), seed=0)
    assert (
        not streamed.in_memory and len(pickle.dumps(streamed)) < 100_000
    )  # what a spawned worker would be sent
    assert torch.equal(
        pickle.loads(pickle.dumps(streamed)).read([7]).values, streamed.read([7]).values
    )
    assert np.array_equal(streamed.read(range(400)).values.permute(0, 2, 3, 1).numpy(), pictures)
    assert streamed.normalisation == open_images(path, DataConfig(), seed=0).normalisation


@pytest.mark.parametrize("channels", [1, 4])
def test_arrays_are_fitted_like_pictures(
    pictures: np.ndarray, folder: Path, tmp_path: Path, channels: int
) -> None:
    config = DataConfig(image_size=(16, 24), channels=channels)
    path = save(tmp_path / "x.npy", np.concatenate([pictures[::2], pictures[1::2]]))
    from_array = open_images(path, config, seed=0).read(range(400)).values
    assert np.array_equal(
        from_array.numpy(), open_images(folder, config, seed=0).read(range(400)).values.numpy()
    )
