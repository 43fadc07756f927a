"""Files that are no images, or that would take memory or time without bound: skipped by name, or
refused.
"""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from vqkit.errors import VqkitError
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.files import image_paths, load_image
from vqkit.signals.image.source import bad_files, open_images

# Memory that reading a small file may take, in bytes, beside that of the libraries.
ALLOWED = 300 << 20


def write_images(folder: Path, pictures: np.ndarray, count: int = 100) -> None:
    for number in range(count):
        Image.fromarray(pictures[number]).save(folder / f"{number:03}.png", compress_level=1)


def test_odd_files_are_skipped_by_name(folder: Path, pictures: np.ndarray, tmp_path: Path) -> None:
    """Every kind in one folder; images under wrong names and names that are no text are used."""
    write_images(tmp_path, pictures)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.gif").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "tail.tif").write_bytes(b"II*\0" + bytes(3))
    Image.fromarray(pictures[200]).save(tmp_path / "really-a-png.jpg", "png")
    os.rename(tmp_path / "000.png", os.fsencode(tmp_path) + b"/\xff\xfe.png")
    config = DataConfig()
    data = open_images(tmp_path, config, seed=0, max_bad=0.5)
    reasons = {bad.name: bad.reason for bad in data.bad}
    assert set(reasons) == {
        "pipe.png",
        "zeros.png",
        "gone.png",
        "empty.png",
        "text.gif",
        "tail.tif",
    }
    assert "named pipe" in reasons["pipe.png"] and "device" in reasons["zeros.png"]
    assert len(data) == 101 and "really-a-png.jpg" in data.names
    assert os.fsdecode(b"\xff\xfe.png") in data.names
    assert sorted(bad.name for bad in bad_files(tmp_path, config)[0]) == sorted(reasons)


@pytest.mark.parametrize("name", ["x.png", "x.npy", "x.npz", "x.gz", "x", "x.parquet"])
@pytest.mark.parametrize("kind", ["pipe", "device", "empty"])
def test_sources_that_are_no_files(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
    with pytest.raises(
        VqkitError, match={"pipe": "named pipe", "device": "device", "empty": "cannot read"}[kind]
    ):
        open_images(path, DataConfig(), seed=0)
    if kind != "empty":
        with pytest.raises(VqkitError, match="cannot read .*not a regular file"):
            load_image(path)


def test_an_idx_pipe_in_a_folder(tmp_path: Path) -> None:
    """It is not taken for a set of images, and does not hang."""
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(VqkitError, match="holds no images"):
        open_images(tmp_path, DataConfig(), seed=0)


def test_folders_called_like_images_are_searched_not_read(
    pictures: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "a.png").mkdir()
    Image.fromarray(pictures[0]).save(tmp_path / "a.png" / "b.png")
    assert list(image_paths([tmp_path])) == [tmp_path / "a.png" / "b.png"]


def test_truncated_jpegs_are_found_however_they_are_read(photos: Path, tmp_path: Path) -> None:
    image = Image.open(photos / "astronaut.png").convert("RGB").resize((560, 560))
    for number in range(30):
        image.rotate(12 * number).save(tmp_path / f"{number:02}.jpg", quality=80)
    cut = tmp_path / "07.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    for config in (
        DataConfig(image_size=(32, 32)),
        DataConfig(image_size=(200, 200), max_memory_mb=1),
        DataConfig(image_size=(200, 200), fit="patches"),
    ):
        data = open_images(tmp_path, config, seed=0)
        assert [(bad.name, "truncated" in bad.reason) for bad in data.bad] == [("07.jpg", True)]
    assert [bad.name for bad in bad_files(tmp_path, DataConfig())[0]] == ["07.jpg"]


# ------------------------------------------------------------------------- what unpacks to far more


def small_npz(path: Path, megabytes: int) -> None:
    """Images of zeros that hardly take room."""
    count = megabytes << 4
    header = (
        str({"descr": "|u1", "fortran_order": False, "shape": (count, 256, 256)})
        .encode()
        .ljust(117)
        + b"\n"
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as file,
    ):
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        for _ in range(count // 16):
            file.write(bytes(1 << 20))


def small_idx(path: Path, megabytes: int) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(struct.pack(">BBBBIII", 0, 0, 8, 3, megabytes << 4, 256, 256))
        for _ in range(megabytes):
            file.write(bytes(1 << 20))


def small_parquet(path: Path, megabytes: int) -> None:
    """One value, a megabyte long, in every row: a dictionary holds it once."""
    pyarrow.parquet.write_table(
        pyarrow.table({"image": [b"\x89PNG" + bytes(1 << 20)] * megabytes}),
        path,
        compression="zstd",
        dictionary_pagesize_limit=1 << 30,
    )


@pytest.mark.parametrize(("make", "name"), [(small_npz, "x.npz"), (small_idx, "x-idx3-ubyte.gz")])
def test_what_unpacks_to_too_much_is_refused(
    tmp_path: Path, make: Callable[..., None], name: str
) -> None:
    path = tmp_path / name
    make(path, megabytes=20)
    assert path.stat().st_size < 200_000
    with pytest.raises(
        VqkitError, match=r"unpacks to 2\d* bytes, more than the 10000000 .*data.max_bytes=2"
    ):
        open_images(path, DataConfig(max_bytes=10_000_000), seed=0)
    with pytest.raises(VqkitError, match="different items"):  # allowed, and read: all are equal
        open_images(path, DataConfig(max_bytes=30_000_000), seed=0)


def test_parquet_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    images = [np.random.default_rng(number).bytes(1000) for number in range(2000)]
    pyarrow.parquet.write_table(pyarrow.table({"image": images}), tmp_path / "x.parquet")
    with pytest.raises(VqkitError, match="a row group of .*unpacks to .*data.max_bytes"):
        open_images(tmp_path / "x.parquet", DataConfig(max_bytes=100_000), seed=0)


READ = """
import re, resource, sys
from pathlib import Path
import pyarrow.parquet
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import open_images
from vqkit.errors import VqkitError
taken = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_DATA, (taken + int(sys.argv[3]),) * 2)
try:
    open_images(sys.argv[1], DataConfig(max_bytes=int(sys.argv[2]), max_memory_mb=64), seed=0)
except VqkitError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="bounds the memory of a process as Linux does")
@pytest.mark.parametrize(
    ("make", "name", "limit", "words"),
    [
        (small_npz, "x.npz", 1 << 30, "different items"),
        (small_parquet, "x.parquet", 64 << 20, "500 of 500 files"),
    ],
)
def test_memory_stays_flat(
    tmp_path: Path, make: Callable[..., None], name: str, limit: int, words: str
) -> None:
    """Files of less than a few megabytes that unpack to 500, read with room for 300: to the end,
    with the answer that their images deserve.
    """
    path = tmp_path / name
    make(path, megabytes=500)
    assert path.stat().st_size < 4 << 20
    command = [sys.executable, "-c", READ, str(path), str(limit), str(ALLOWED)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert words in run.stdout, run.stdout + run.stderr


def number_at(content: bytes, place: int, form: str) -> int:
    return int(struct.unpack_from(form, content, place)[0])


def test_pages_are_bounded_like_first_images(tmp_path: Path) -> None:
    """A TIFF whose second page promises more pixels than Pillow allows for the first."""
    path = tmp_path / "x.tif"
    pages = [Image.new("L", (8, 8), value) for value in (1, 2)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    content = bytearray(path.read_bytes())
    first = number_at(content, 4, "<I")
    second = number_at(content, first + 2 + 12 * number_at(content, first, "<H"), "<I")
    for entry in range(number_at(content, second, "<H")):
        place = second + 2 + 12 * entry
        # Width and height.
        if number_at(content, place, "<H") in (256, 257):
            content[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 100_000)
    path.write_bytes(bytes(content))
    for number in range(3):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    data = open_images(
        tmp_path, DataConfig(frames="all", validation=0, test=0), seed=0, max_bad=1.0
    )
    assert [bad.name for bad in data.bad] == ["x.tif"] and "bomb" in data.bad[0].reason


def test_huge_files_are_not_read(tmp_path: Path) -> None:
    """A terabyte with nothing on disk that begins like an image."""
    for name, start in (
        ("x.webp", b"RIFF\xff\xff\xff\xffWEBPVP8 "),
        ("x.png", b"\x89PNG\r\n\x1a\n"),
    ):
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            file.truncate(1 << 40)
        with pytest.raises(VqkitError, match="more than 512 MiB"):
            load_image(tmp_path / name)
